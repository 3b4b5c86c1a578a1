"""What is wrong with a Ray cluster is one sentence; lost parts come again, in order. test_ray.py has real clusters."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.core import TyperCommand

from looktwice import __version__
from looktwice.cli.cluster import Distribution, WorkerCost
from looktwice.cli.console import progress
from looktwice.errors import LooktwiceError, TooManyFailures, UsageError
from looktwice.models.cluster import ATTEMPTS, Cluster


class RayError(Exception):
    """What Ray raises; `RayTaskError` has the error of the work as its cause."""


class RayTaskError(RayError):
    cause: BaseException | None = None


class OutOfMemoryError(RayError):
    """The worker's machine has ended it."""


@dataclass
class FakeRay:
    """Ray in this process: calls are made when their result is fetched, the newest first. `lose` loses workers."""

    workers: int = 2
    version: str = __version__
    fails: Exception | None = None
    lose_version: Exception | None = None
    lose: Callable[[Any], Exception | None] = lambda shard: None
    exceptions: Any = field(default_factory=lambda: SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError))

    _private: Any = field(default_factory=lambda: SimpleNamespace(worker=SimpleNamespace()))

    def tell_version(self) -> str:
        if self.lose_version is not None:
            raise self.lose_version
        return self.version

    def is_initialized(self) -> bool:
        return False

    def init(self, **settings: Any) -> None:
        if self.fails is not None:
            raise self.fails

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.workers}

    def remote(self, **needs: Any) -> Callable[[type], Any]:
        def method(call: Callable[..., Any]) -> Any:
            return SimpleNamespace(remote=lambda *given: (call, given))

        def actor(made: Any) -> Any:
            return SimpleNamespace(run=method(made.run), version=method(self.tell_version))

        return lambda kind: SimpleNamespace(remote=lambda *given: actor(kind(*given)))

    def wait(self, futures: list[Any]) -> tuple[list[Any], list[Any]]:
        return futures[-1:], futures[:-1]

    def get(self, future: Any) -> Any:
        call, given = future
        if given and (lost := self.lose(given[0])) is not None:
            raise lost
        try:
            return call(*given)
        except RayError:
            raise
        except Exception as error:
            raised = RayTaskError()
            raised.cause = error
            raise raised from None

    def kill(self, actor: Any) -> None:
        pass


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    made = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", made)
    return made


def squares() -> Callable[[int], int]:
    return lambda number: number * number


def test_results_are_in_order_whoever_is_ready_first(ray: FakeRay) -> None:
    assert list(Cluster().map(squares, range(30))) == [number * number for number in range(30)]


def test_parts_of_lost_workers_are_done_again(ray: FakeRay, caplog: pytest.LogCaptureFixture) -> None:
    left = {3: 1, 7: 2}

    def lose(shard: int) -> Exception | None:
        left[shard] = left.get(shard, 0) - 1
        return RayError("the worker died") if left[shard] >= 0 else None

    ray.lose = lose
    assert list(Cluster().map(squares, range(10))) == [number * number for number in range(10)]
    assert left[3] == left[7] == -1
    assert caplog.text.count("A worker was lost (RayError); its part is done again.") == 3


@pytest.mark.parametrize(("error", "said"), [(OutOfMemoryError(), "a smaller --batch-size"), (RayError(), "is kept")])
def test_a_part_that_always_loses_its_worker_is_a_sentence(ray: FakeRay, error: Exception, said: str) -> None:
    tries: list[int] = []
    ray.lose = lambda shard: tries.append(shard) or error if shard == 2 else None  # type: ignore[func-returns-value]
    results, found = Cluster().map(squares, range(9)), []
    with pytest.raises(TooManyFailures, match=said) as caught:
        found += results
    assert len(tries) == ATTEMPTS and caught.value.exit_code == 3


def test_an_error_of_the_work_is_told(ray: FakeRay) -> None:
    with pytest.raises(LooktwiceError, match="A worker failed: integer division or modulo by zero"):
        list(Cluster().map(lambda: lambda number: 1 // number, [1, 0]))


def test_workers_with_another_version_are_refused(ray: FakeRay) -> None:
    ray.version = "0.0.9"
    with pytest.raises(UsageError, match=rf"The workers have looktwice 0\.0\.9, this machine {__version__}"):
        list(Cluster().map(squares, [1]))


def test_too_little_memory_for_a_worker_is_said(ray: FakeRay) -> None:
    ray.lose_version = OutOfMemoryError()
    with pytest.raises(UsageError, match="ran out of memory when it started; use workers with more memory"):
        list(Cluster().map(squares, [1]))


def test_another_version_of_ray_is_refused(ray: FakeRay) -> None:
    ray.fails = RuntimeError("Version mismatch: The cluster was started with Ray: 2.40.0 Python: 3.11.7")
    with pytest.raises(UsageError, match=r"The Ray cluster auto cannot be used \(Version mismatch.*2\.40"):
        Cluster()


def test_a_cluster_without_workers_is_refused(ray: FakeRay) -> None:
    ray.workers = 0
    with pytest.raises(UsageError, match="has no CPU or GPU"):
        Cluster()


def test_progress_shows_what_workers_cost(ray: FakeRay, capsys: pytest.CaptureFixture[str]) -> None:
    cost = WorkerCost(2, 2.5, time.monotonic() - 3600)
    assert [cost.in_progress(None), cost.in_progress(1800)] == ["cost 5", "cost 5 of 7.5"]
    assert cost.in_all() == "2 workers for 3,600 s: 2 worker hours; at 2.5 each: 5"
    assert WorkerCost(2, None).in_progress(9) == ""

    def shown() -> str:
        with progress("indexing", "items", 10) as bar:
            bar.at(5)
            return str(bar._bar.tasks[0].fields["rate"])

    with typer.Context(TyperCommand("index")) as ctx:
        Distribution(ray="auto", worker_price=3.6e9).connect(ctx)
        assert shown().startswith("cost ")
    assert "2 worker" in capsys.readouterr().err and "cost" not in shown()
