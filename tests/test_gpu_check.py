"""The GPU check runs whole on a CPU with toy shapes: every path but CUDA's own kernels."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tiny_models
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

ROOT = Path(__file__).resolve().parents[1]
CPU = ["--device", "cpu", "--smoke"]


@pytest.fixture(autouse=True)
def tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def part(name: str) -> ModuleType:
    return importlib.import_module(f"scripts.gpu.{name}")


def shell(arguments: list[str], cwd: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHON": python, "OMP_NUM_THREADS": "1"}
    command = [str(ROOT / "scripts" / "gpu-check.sh"), *arguments]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)


def test_parity_pairs_and_attention_with_toys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cpu.json"
    code = part("check").main([*CPU, "--here", "--out", str(out), "--only", "parity", "pairs", "attention"])
    record = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == record
    assert code == 0 and record["ok"] and record["finished"] and record["smoke"] and record["device"] == "cpu"
    parity, pairs, attention = (record["parts"][name]["rows"] for name in ("parity", "pairs", "attention"))
    every = [(family, dtype) for family in tiny_models.MLLMS for dtype in ("float32", "bfloat16")]
    assert [(row["family"], row["dtype"]) for row in parity] == every
    fast = [row for row in parity if row["path"] == "fast"]
    assert len(fast) >= 10 and all(row["logits_std"] > 0.5 for row in fast), "logits must spread, or nothing is tested"
    kinds = ("stored", "pooled", "pixels", "reference")
    measured = [row for row in pairs if "candidates" in row]
    models = part("shapes").MODELS
    assert [(row["model"], row["candidates"]) for row in measured] == [
        (name, kind) for name in models for kind in kinds
    ]
    assert all(row["pairs_s"] > 0 and row["of_peak"] > 0 for row in measured)
    assert {row["way"] for row in attention} == {"repeat", "cascade", "flex"} and len(attention) == 12


def test_ways_of_attention_agree_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 a wrong weight of the merge could pass for rounding."""
    attention = part("attention")
    monkeypatch.setattr(attention, "DTYPE", torch.float32)
    sizes = attention.Sizes(3, 17, 21, 4, 2, 16)
    given = attention.draw(sizes, "cpu")
    expected = attention.repeat(given)
    for way in ("cascade", "flex"):
        assert (attention.WAYS[way](given, "cpu")() - expected).abs().max() < 1e-5, way
    blind = attention.Inputs(given.q, given.k, given.v, given.pk[:, :, :16], given.pv[:, :, :16])
    assert (attention.cascade(blind) - expected).abs().max() > 1e-3, "one token of the prefix is seen by nobody"


def test_what_fails_is_recorded_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no kernel image")

    check, out = part("check"), tmp_path / "cpu.json"
    monkeypatch.setattr(part("parity"), "run", broken)
    monkeypatch.setitem(part("attention").WAYS, "flex", broken)
    code = check.main([*CPU, "--here", "--out", str(out), "--only", "parity", "attention"])
    parts = json.loads(out.read_text())["parts"]
    assert code == 3 and parts["parity"]["status"] == "failed" and "no kernel image" in parts["parity"]["error"]
    assert parts["attention"]["status"] == "done"
    assert [row["way"] for row in parts["attention"]["rows"] if "error" in row] == ["flex"] * 4


def test_a_process_that_dies_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    out = tmp_path / "cpu.json"
    assert part("check").main([*CPU, "--out", str(out), "--only", "pairs"]) == 3
    assert json.loads(out.read_text())["parts"]["pairs"]["error"] == "its process ended with 1"


def test_without_time_a_part_is_skipped(tmp_path: Path) -> None:
    out = tmp_path / "cpu.json"
    assert part("check").main([*CPU, "--out", str(out), "--only", "pairs", "--seconds", "1"]) == 3
    assert json.loads(out.read_text())["parts"]["pairs"]["status"] == "skipped"


def test_the_script_runs_the_gpu_tests(tmp_path: Path) -> None:
    done = shell([*CPU, "--only", "tests"], tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "gpu-check-cpu.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == record
    (row,) = record["parts"]["tests"]["rows"]
    assert "3 passed" in row["summary"] and row["code"] == 0


def test_without_torch_the_script_says_what_to_do(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'torch>=2.6'\n")
    python.chmod(0o755)
    done = shell(CPU, tmp_path, str(python))
    assert done.returncode == 2 and "install its CUDA build" in done.stderr and not done.stdout


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "jinja2":
            raise PackageNotFoundError(name)
        return {"transformers": "5.9.1", "torch": "2.13.0+cu130"}.get(name, "99")

    needs = part("needs")
    assert needs.missing() == []
    monkeypatch.setattr(needs, "version", version)
    assert needs.missing() == ["transformers>=5.17", "jinja2>=3.1.6"]


@pytest.mark.parametrize(
    ("name", "billions"), [("Qwen/Qwen2.5-VL-7B-Instruct", 8.29), ("Qwen/Qwen3-VL-2B-Instruct", 2.13)]
)
def test_shapes_are_those_of_the_public_models(name: str, billions: float, tmp_path: Path) -> None:
    shapes = part("shapes")
    shape = shapes.bundled(name)
    config = shapes.grown(tiny_models.MLLMS[shape["model_type"]](tmp_path), shape, shape["model_type"])
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config))
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.005)
