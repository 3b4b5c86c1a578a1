"""Spread work over the workers of a Ray cluster: shards in order, each result once, again if its worker was lost.

Workers only compute. Whatever is written, the process that called `Cluster.map` writes, so that results do not depend
on the number of workers.
"""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from looktwice import __version__
from looktwice.errors import LooktwiceError, MissingDependency, TooManyFailures, UsageError, first_line
from looktwice.models.mailbox import answering

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[T], R]

AHEAD = 2
"""Shards that a worker has at once: one in work, one waiting."""

WINDOW = 4
"""Shards per worker that are begun before the oldest one is done: results are handed on in order."""

ATTEMPTS = 3
"""How often a shard is tried whose worker was lost."""

OUTSIDE = "ray://"
"""How addresses begin of clusters that this machine is not part of."""

_TOKEN = Path("~/.ray/auth_token").expanduser()
_EARLY = ("OMP_NUM_THREADS", "TOKENIZERS_")
"""Variables that workers need when they start. Ray writes them to its logs."""

_LATE = ("AWS_", "AZURE_", "GOOGLE_", "LOOKTWICE_", "HF_")
"""Variables that may hold keys, so workers get them in a way that Ray does not write down."""


class _Worker:
    """What runs in a worker's process: the work, made once, and its version."""

    def __init__(self, make: Callable[[], Work[Any, Any]], environment: dict[str, str]) -> None:
        os.environ.update(environment)
        self._make, self._work = make, None

    def version(self) -> str:
        return __version__

    def run(self, shard: Any) -> Any:
        if self._work is None:
            self._work = self._make()  # type: ignore[assignment]
        return self._work(shard)  # type: ignore[misc]


class _Host:
    """What runs in the process of a shared object."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._object = make()

    def call(self, name: str, *given: Any) -> Any:
        return getattr(self._object, name)(*given)


@dataclass(frozen=True)
class Shared:
    """Calls methods of an object that lives on the driver's machine; workers get it pickled."""

    actor: Any

    def __call__(self, method: str, *given: Any) -> Any:
        import ray

        try:
            return ray.get(self.actor.call.remote(method, *given))
        except ray.exceptions.RayTaskError as error:
            raise _own(error) from None


@dataclass(eq=False)
class _Job(Generic[T]):
    """A shard with its worker, and its result once it is there."""

    slot: int
    shard: T
    future: Any
    attempts: int = 1
    result: Any = None
    done: bool = False


@dataclass
class Cluster:
    """A connection to a Ray cluster. `auto` is the one that runs on this machine, else one that is started here."""

    address: str = "auto"
    _ray: Any = field(init=False, repr=False)
    _gpus: int = field(init=False, repr=False)
    workers: int = field(init=False)

    def __post_init__(self) -> None:
        self._ray = _connect(self.address)
        have = self._ray.cluster_resources()
        self._gpus = int(have.get("GPU", 0))
        self.workers = self._gpus or int(have.get("CPU", 0))
        if not self.workers:
            raise UsageError(f"The Ray cluster {self.address} has no CPU or GPU; add workers with: ray start")

    def map(self, make: Callable[[], Work[T, R]], shards: Iterable[T]) -> Iterator[R]:
        """Yield the result of each shard, in order. `make` loads what the work needs, once per worker.

        Errors of the work are raised here. A shard whose worker is lost is done again, by a new worker.
        """
        actors = [self._actor(make) for _ in range(self.workers)]
        begun: deque[_Job[T]] = deque()
        try:
            self._demand_version(actors[0])
            for shard in shards:
                while (slot := self._free_slot(begun)) is None:
                    yield from self._next_result(begun, actors, make)
                begun.append(_Job(slot, shard, actors[slot].run.remote(shard)))
            while begun:
                yield from self._next_result(begun, actors, make)
        finally:
            for actor in actors:
                self._ray.kill(actor)

    def share(self, make: Callable[[], Any]) -> Shared:
        """Return a way to call the methods of one object, which `make` returns on this machine.

        A call may be made again if the object's process is lost, so it must change nothing the second time.
        """
        if self.address.startswith(OUTSIDE):
            return Shared(answering(self._ray, make))
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=False
        )
        again: dict[str, Any] = {"max_restarts": -1, "max_task_retries": -1}
        return Shared(self._ray.remote(num_cpus=0, scheduling_strategy=here, **again)(_Host).remote(make))

    def _actor(self, make: Callable[[], Any]) -> Any:
        needs = {"num_gpus": 1} if self._gpus else {"num_cpus": 1}
        return self._ray.remote(**needs, max_restarts=0)(_Worker).remote(make, _environment(_LATE))

    def _free_slot(self, begun: deque[_Job[T]]) -> int | None:
        """Return the worker that has the fewest shards, None if it has enough."""
        load = Counter(job.slot for job in begun if not job.done)
        slot = min(range(self.workers), key=lambda slot: load[slot])
        return slot if load[slot] < AHEAD and len(begun) < WINDOW * self.workers else None

    def _next_result(self, begun: deque[_Job[T]], actors: list[Any], make: Callable[[], Any]) -> Iterator[Any]:
        """Yield the result of the oldest job if it is there; wait for any job otherwise."""
        if not begun[0].done:
            running = {job.future: job for job in begun if not job.done}
            for future in self._ray.wait(list(running))[0]:
                self._finish(running[future], actors, make)
        if begun[0].done:
            yield begun.popleft().result

    def _finish(self, job: _Job[T], actors: list[Any], make: Callable[[], Any]) -> None:
        """Fetch the result of a job that has ended; begin it again if its worker was lost."""
        errors = self._ray.exceptions
        try:
            job.result, job.done = self._ray.get(job.future), True
            return
        except errors.RayTaskError as error:
            raise _own(error) from None
        except errors.RayError as error:
            if job.attempts == ATTEMPTS:
                raise TooManyFailures(_lost(error)) from None
            log.warning("A worker was lost (%s); its part is done again.", type(error).__name__)
        job.attempts += 1
        if not self._answers(actors[job.slot]):
            actors[job.slot] = self._actor(make)
        job.future = actors[job.slot].run.remote(job.shard)

    def _answers(self, actor: Any) -> bool:
        try:
            self._ray.get(actor.version.remote())
        except self._ray.exceptions.RayError:
            return False
        return True

    def _demand_version(self, actor: Any) -> None:
        """Raise UsageError if workers have another looktwice, whose results could differ."""
        try:
            found = self._ray.get(actor.version.remote())
        except self._ray.exceptions.RayError as error:
            if _ran_out_of_memory(error):
                raise UsageError("A worker ran out of memory when it started; use workers with more memory.") from None
            why = str(error).strip().rpartition("\n")[2].strip()[:200]  # the last line of a traceback
            raise UsageError(f"The workers cannot load looktwice ({why}); install it there.") from None
        if found != __version__:
            raise UsageError(
                f"The workers have looktwice {found}, this machine {__version__}; install the same version on all."
            )


def _connect(address: str) -> Any:
    if address.startswith(OUTSIDE) and (_TOKEN.exists() or "RAY_AUTH_TOKEN" in os.environ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray itself does so for all other addresses
    try:
        import ray
    except ImportError:
        raise MissingDependency("ray", "ray", "--ray") from None
    if ray.is_initialized():
        return ray
    _demand_answer(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    early = {"env_vars": _environment(_EARLY)}
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": early}
    warnings.filterwarnings("ignore", "lancedb fork support")  # Ray's own programs never touch LanceDB
    try:
        ray.init(address=address, **settings)
    except ConnectionError:
        if address != "auto":
            token = ", and that its token is on this machine" if address.startswith(OUTSIDE) else ""
            raise UsageError(
                f"The Ray cluster {address} does not answer; check it there with: ray status{token}"
            ) from None
        ray.init(include_dashboard=False, **settings)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"The Ray cluster {address} cannot be used ({first_line(error)}); check it with: ray status"
        ) from None
    ray._private.worker._worker_logs_enabled = False  # else its messages about lost workers go to stdout
    return ray


def _environment(prefixes: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def _demand_answer(address: str) -> None:
    """Raise UsageError if nothing listens at HOST:PORT; Ray would try for minutes."""
    host, colon, port = address.removeprefix(OUTSIDE).rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UsageError(f"No Ray cluster answers at {address} ({first_line(error)}); check the address.") from None


def _own(error: Any) -> BaseException:
    """Return the error that the work raised; one that is not ours with its text only."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, LooktwiceError):
        return cause
    return LooktwiceError(f"A worker failed: {first_line(cause or error)}; run one machine without --ray to see more.")


def _lost(error: BaseException) -> str:
    if _ran_out_of_memory(error):
        return f"A worker ran out of memory {ATTEMPTS} times; use a smaller --batch-size, or workers with more memory."
    kind = type(error).__name__
    return f"Workers were lost {ATTEMPTS} times at the same part of the work ({kind}); what is committed is kept."


def _ran_out_of_memory(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError"
