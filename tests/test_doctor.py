"""The report on a machine, and what naming models must not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from looktwice.models import doctor as module
from looktwice.models.doctor import DoctorCheck, doctor


def by_name(checks: list[DoctorCheck]) -> dict[str, DoctorCheck]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def test_every_line_says_something_and_every_fault_has_a_remedy() -> None:
    checks = by_name(doctor())
    assert {"python", "torch", "device", "threads", "memory cpu", "tiny-clip", "tiny-vl", "timm"} <= set(checks)
    assert all(check.value for check in checks.values())
    assert all(check.remedy for check in checks.values() if not check.ok)
    assert checks["device"].ok and "(" in checks["device"].value
    assert "HF_HUB_OFFLINE" in checks["model hub"].value


def test_missing_optional_parts_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(module, "_version", lambda name: None)
    checks = by_name(doctor())
    assert checks["torchvision"].ok and "Mistral 3" in checks["torchvision"].remedy
    assert checks["timm"].ok and "looktwice[timm]" in checks["timm"].remedy
    assert not checks["lancedb"].ok


def test_a_torchvision_for_another_torch_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> object:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module, "import_module", broken)
    check = by_name(doctor())["torchvision"]
    assert not check.ok and "nms does not exist" in check.value and "\n" not in check.value


def test_missing_models_and_little_memory_are_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bundled_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(module, "memory", lambda device: module_memory(1024**3, 1024**2))
    checks = by_name(doctor())
    assert not checks["tiny-clip"].ok and not checks["memory cpu"].ok
    assert checks["memory cpu"].value == "0.0 GiB free of 1.0 GiB"


def module_memory(total: int, free: int) -> object:
    from looktwice.models.device import Memory

    return Memory(total, free)


def test_naming_models_loads_nothing_heavy() -> None:
    code = (
        "import sys; from looktwice.models import catalog, checkpoints, device, doctor, processors, weights\n"
        "import looktwice.encode as e\n"
        "e.parse('pe-l@512+linear:x.pt'); checkpoints.bundled_names(); catalog.names('mllm')\n"
        "heavy = {'torch', 'transformers', 'lancedb', 'faiss', 'PIL', 'numpy', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
