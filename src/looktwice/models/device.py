"""Choose a model's device, dtype and number of threads, each with its reason; measure free memory.

torch loads only when a device is chosen.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from looktwice.errors import ModelError, UnknownName, UsageError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")

DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
}
DTYPE_VARIABLE = "LOOKTWICE_DTYPE"
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # "memory" is in other errors too


@dataclass(frozen=True, slots=True)
class Placement:
    """A device ("cpu", "cuda:0", "mps"), a dtype ("float32", "bfloat16", "float16"), and why."""

    device: str
    dtype: str
    reason: str

    @property
    def torch_dtype(self) -> torch.dtype:
        """Return the dtype as torch's own object."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a device's memory: all of it, and the free part."""

    total: int
    free: int


def place(device: str = "auto", dtype: str = "auto") -> Placement:
    """Choose a device and a dtype.

    `device` is "auto" (CUDA, then Apple's MPS, then CPU), "cpu", "cuda", "cuda:N" or "mps"; `dtype` is "auto" or one of
    DTYPES. The environment variable LOOKTWICE_DTYPE replaces "auto", so that different machines compute alike. Raises
    UsageError for a missing device, UnknownName for an unknown dtype.
    """
    chosen, why = _find_device(device)
    by = "as asked"
    if dtype == "auto" and os.environ.get(DTYPE_VARIABLE):
        dtype, by = os.environ[DTYPE_VARIABLE], f"as {DTYPE_VARIABLE} says"
    if dtype != "auto":
        if dtype not in DTYPES:
            raise UnknownName("dtype", dtype, ["auto", *DTYPES])
        return Placement(chosen, DTYPES[dtype], f"{why}; {DTYPES[dtype]} {by}")
    name, because = _default_dtype(chosen)
    return Placement(chosen, name, f"{why}; {because}")


def _find_device(device: str) -> tuple[str, str]:
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda:0", "CUDA is available"
        if torch.backends.mps.is_available():
            return "mps", "Apple's MPS is available"
        return "cpu", "no GPU is available"
    kind, _, index = device.partition(":")
    if kind == "cpu" and not index:
        return "cpu", "CPU as asked"
    if kind == "mps" and not index:
        if torch.backends.mps.is_available():
            return "mps", "MPS as asked"
        raise UsageError("This machine has no MPS device; use --device cpu or auto.")
    if kind == "cuda" and (not index or index.isdecimal()):
        return _find_cuda(int(index or 0)), f"{device} as asked"
    raise UnknownName("device", device, ["auto", "cpu", "cuda", "cuda:0", "cuda:1", "mps"])


def _find_cuda(index: int) -> str:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise UsageError("torch finds no CUDA device; use --device cpu or auto.")
    if index >= count:
        raise UsageError(f"This machine has no CUDA device {index}; use one of 0 to {count - 1}.")
    return f"cuda:{index}"


def _default_dtype(device: str) -> tuple[str, str]:
    import torch

    if device.startswith("cuda"):
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return "bfloat16", "bfloat16 runs at full speed on it"
        return "float16", "it is too old for bfloat16"
    if device == "mps":
        return "float32", "float32, because several model families overflow in float16"
    capabilities = torch.cpu.get_capabilities()
    for feature, label in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512_BF16")):
        if capabilities.get(feature):
            return "bfloat16", f"the CPU multiplies bfloat16 natively ({label})"
    return "float32", "float32, because this CPU has no bfloat16 arithmetic and emulates it slowly"


def set_threads(count: int | None = None) -> int:
    """Set how many CPU threads torch and FAISS use, and return the number.

    None takes OMP_NUM_THREADS if it is set. Otherwise it takes the machine's idle physical cores, at least 1 and at
    most the CPUs that this process may use. Raises UsageError for a count below 1.
    """
    import torch

    if count is None:
        count = default_threads()
    if count < 1:
        raise UsageError(f"The number of threads must be 1 or more, not {count}; change --threads.")
    torch.set_num_threads(count)
    os.environ["OMP_NUM_THREADS"] = str(count)  # for libraries that load later
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(count)
    return count


def default_threads() -> int:
    """Return the number of threads that `set_threads(None)` sets."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    idle = physical_cores() - round(_load())  # even a container sees the load of the whole machine
    return max(1, min(usable_cpus(), idle))


def usable_cpus() -> int:
    """Return the logical CPUs this process may use: its affinity, limited by a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read_line("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdecimal() and quota[1].isdecimal():
        allowed = min(allowed, max(1, int(quota[0]) // max(1, int(quota[1]))))
    return allowed


def physical_cores() -> int:
    """Return the machine's physical cores; its logical ones if the system does not tell them apart."""
    import psutil

    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def _load() -> float:
    import psutil

    return float(psutil.getloadavg()[0])


def memory(device: str = "cpu") -> Memory:
    """Return the memory of a device; a container's limit applies to the CPU's."""
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return Memory(total, free)
    import psutil

    machine = psutil.virtual_memory()
    return _within_container(Memory(machine.total, machine.available))


def _within_container(machine: Memory) -> Memory:
    limit = _read_line("/sys/fs/cgroup/memory.max")
    used = _read_line("/sys/fs/cgroup/memory.current")
    if not (limit.isdecimal() and used.isdecimal()):
        return machine
    free = max(0, int(limit) - max(0, int(used) - _page_cache()))
    return Memory(min(machine.total, int(limit)), min(machine.free, free))


def _page_cache() -> int:
    """Return the bytes of files that a container caches; they count as used, but are given up on demand."""
    counts = (line.partition(" ") for line in _read_text("/sys/fs/cgroup/memory.stat").splitlines())
    return sum(int(count) for name, _, count in counts if name in ("inactive_file", "active_file"))


def halving(run: Callable[[Sequence[T]], R], batch: Sequence[T], alone: str) -> Iterator[tuple[Sequence[T], R]]:
    """Run a batch or, if memory runs out, its halves; yield each part with its result.

    Raises ModelError with the message `alone` if a single item does not fit.
    """
    import torch

    try:
        result = run(batch)
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(sign in str(error) for sign in _NO_MEMORY):
            raise
        if len(batch) == 1:
            raise ModelError(alone) from error
        log.warning("Memory is too small for a batch of %d; continuing with halves.", len(batch))
    else:
        yield batch, result
        return
    # outside the block above, because its error keeps all that the failed run had made
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(batch) // 2
    yield from halving(run, batch[:middle], alone)
    yield from halving(run, batch[middle:], alone)


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # a system without this file
        return ""


def _read_line(path: str) -> str:
    return _read_text(path).strip()
