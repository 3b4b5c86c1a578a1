"""Devices, dtypes, threads and memory, with their reasons."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from looktwice.errors import ModelError, UnknownName, UsageError
from looktwice.models import device
from looktwice.models.device import Memory, Placement, halving, memory, place, set_threads


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Pretend to be a machine: `machine(cuda=(8, 0), mps=False, cpu={"amx_bf16"})`."""

    def pretend(cuda: tuple[int, int] | None = None, mps: bool = False, cpu: frozenset[str] = frozenset()) -> None:
        monkeypatch.delenv(device.DTYPE_VARIABLE, raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if cuda else 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(cpu, True))

    return pretend


@pytest.mark.parametrize(
    ("has", "chosen", "dtype", "reason"),
    [
        ({"cuda": (8, 0), "mps": True}, "cuda:0", "bfloat16", "CUDA is available"),
        ({"cuda": (7, 5)}, "cuda:0", "float16", "too old for bfloat16"),
        ({"mps": True}, "mps", "float32", "overflow in float16"),
        ({}, "cpu", "float32", "emulates it slowly"),
        ({"cpu": {"avx512_bf16"}}, "cpu", "bfloat16", "AVX512_BF16"),
        ({"cpu": {"amx_bf16"}}, "cpu", "bfloat16", "AMX"),
    ],
)
def test_the_choice_and_its_reason(has: dict, chosen: str, dtype: str, reason: str, machine) -> None:  # type: ignore[no-untyped-def]
    machine(**has)
    placement = place()
    assert (placement.device, placement.dtype) == (chosen, dtype)
    assert reason in placement.reason
    assert placement.torch_dtype is getattr(torch, dtype)


def test_what_is_asked_for_is_taken(machine) -> None:  # type: ignore[no-untyped-def]
    machine(cuda=(8, 0))
    assert place("cuda:1", "fp32") == Placement("cuda:1", "float32", "cuda:1 as asked; float32 as asked")
    assert place("cuda").device == "cuda:0"
    assert place("cpu", "bf16").dtype == "bfloat16"


def test_the_environment_names_one_dtype_for_unlike_machines(machine, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    machine(cpu={"avx512_bf16"})
    monkeypatch.setenv(device.DTYPE_VARIABLE, "fp32")
    assert place() == Placement("cpu", "float32", "no GPU is available; float32 as LOOKTWICE_DTYPE says")
    assert place(dtype="bf16").dtype == "bfloat16", "what is asked for comes first"
    monkeypatch.setenv(device.DTYPE_VARIABLE, "int8")
    with pytest.raises(UnknownName, match="Unknown dtype 'int8'"):
        place()


@pytest.mark.parametrize(
    ("device", "dtype", "says"),
    [
        ("cuda:2", "auto", "no CUDA device 2; use one of 0 to 1"),
        ("mps", "auto", "no MPS device"),
        ("gpu", "auto", "Unknown device 'gpu'"),
        ("cuda:-1", "auto", "Unknown device"),
        ("cuda:x", "auto", "Unknown device"),
        ("cpu:0", "auto", "Unknown device"),
        ("cpu", "int8", "Unknown dtype 'int8'"),
    ],
)
def test_what_is_not_there_is_said(device: str, dtype: str, says: str, machine) -> None:  # type: ignore[no-untyped-def]
    machine(cuda=(8, 0))
    with pytest.raises(UsageError, match=says):
        place(device, dtype)
    machine()
    with pytest.raises((UsageError, UnknownName)):
        place("cuda" if device.startswith("cuda") else device, dtype)


def test_threads_are_set_for_torch_and_for_later_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    try:
        assert set_threads() == 3 == torch.get_num_threads()
        assert set_threads(2) == 2 == torch.get_num_threads()
        assert os.environ["OMP_NUM_THREADS"] == "2"
        with pytest.raises(UsageError, match="1 or more, not 0"):
            set_threads(0)
    finally:
        torch.set_num_threads(before)


@given(st.integers(1, 64), st.integers(1, 64), st.floats(0, 200))
def test_busy_cores_are_left_alone(cores: int, allowed: int, load: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "")
        patch.setattr(device, "physical_cores", lambda: cores)
        patch.setattr(device, "usable_cpus", lambda: allowed)
        patch.setattr(device, "_load", lambda: load)
        threads = device.default_threads()
    assert 1 <= threads <= min(cores, allowed)
    assert threads == max(1, min(allowed, cores - round(load)))


def test_a_container_has_what_is_idle_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    for what, value in (("physical_cores", 64), ("usable_cpus", 8), ("_load", 20.0)):
        monkeypatch.setattr(device, what, lambda value=value: value)
    assert device.default_threads() == 8


FILES = {
    "/sys/fs/cgroup/cpu.max": "150000 100000\n",
    "/sys/fs/cgroup/memory.max": "2097152\n",
    "/sys/fs/cgroup/memory.current": "1572864\n",
}


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Pretend to be in a container, of these files, on a machine with 4 MiB of memory of which 1 is free."""

    def pretend(files: dict[str, str]) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=4 * 1024**2, available=1024**2))
        monkeypatch.setattr(device, "_read_text", lambda path: files.get(path, ""))

    return pretend


def test_a_container_has_less_than_the_machine(container) -> None:  # type: ignore[no-untyped-def]
    container(FILES)
    assert device.usable_cpus() == 1
    assert memory() == Memory(total=2 * 1024**2, free=512 * 1024)
    container({"/sys/fs/cgroup/memory.max": "max", "/sys/fs/cgroup/cpu.max": "max 100000"})
    assert memory() == Memory(total=4 * 1024**2, free=1024**2)
    assert device.usable_cpus() >= 1


def test_files_that_a_container_keeps_in_memory_are_free_memory(container) -> None:  # type: ignore[no-untyped-def]
    def free(stat: str) -> int:
        container(FILES | {"/sys/fs/cgroup/memory.stat": stat})
        return memory().free

    assert free("anon 9\n") == 512 * 1024
    assert free("anon 9\nfile 524288\ninactive_file 131072\nactive_file 65536\n") == (512 + 128 + 64) * 1024
    assert free("inactive_file 99999999\n") == 1024**2, "no more than the machine has"


def test_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < memory().free <= memory().total and device._load() >= 0
    assert 1 <= device.physical_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    assert device.physical_cores() == os.cpu_count(), "a system that does not tell cores from threads"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("Allocation on device"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_a_batch_too_large_is_halved_and_holds_no_memory_meanwhile(error: Exception) -> None:
    made: list[weakref.ref[set[int]]] = []

    def run(part: Sequence[int]) -> int:
        assert all(one() is None for one in made), "what the failed run had made is gone"
        large = set(part)
        made.append(weakref.ref(large))
        if len(part) > 2:
            raise type(error)(*error.args)
        return sum(part)

    assert list(halving(run, [1, 2, 3, 4, 5], "!")) == [([1, 2], 3), ([3], 3), ([4, 5], 9)]
    with pytest.raises(ModelError, match="too small"):
        list(halving(lambda part: (_ for _ in ()).throw(error), [1, 2], "It is too small."))


def test_other_errors_about_memory_are_themselves() -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal"):
        list(halving(lambda part: (_ for _ in ()).throw(error), [1], "There is not enough memory."))
