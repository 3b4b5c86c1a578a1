"""LoRA adapters by name: what `NAME+lora:FOLDER` loads is the base with the adapter added, and nothing else passes."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from looktwice import Item, load_scorer
from looktwice.errors import Mismatch, MissingDependency, ModelError, UsageError
from looktwice.models import adapters, checkpoints
from looktwice.models.checkpoints import Checkpoint

R, ALPHA = 2, 8
has_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build("qwen3_vl", tmp_path_factory.mktemp("base"))


def lora(base: Path, folder: Path, **changed: object) -> Path:
    """Write a LoRA for the value projections of the language model, as peft lays it out."""
    weights = load_file(base / "model.safetensors")
    torch.manual_seed(1)
    made = {}
    for name, matrix in weights.items():
        if name.endswith("v_proj.weight"):
            at = f"base_model.model.{name.removesuffix('.weight')}"
            made[f"{at}.lora_A.weight"] = torch.randn(R, matrix.shape[1]) * 0.3
            made[f"{at}.lora_B.weight"] = torch.randn(matrix.shape[0], R) * 0.3
    assert made
    folder.mkdir()
    save_file(made, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": R, "lora_alpha": ALPHA, "target_modules": ["v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "x", **changed}))
    return folder


def merged_by_hand(base: Path, adapter: Path, folder: Path) -> Path:
    """Write the base with α / r · B · A added."""
    shutil.copytree(base, folder)
    weights, small = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for name in [n for n in weights if n.endswith("v_proj.weight")]:
        at = f"base_model.model.{name.removesuffix('.weight')}"
        weights[name] += ALPHA / R * small[f"{at}.lora_B.weight"] @ small[f"{at}.lora_A.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def asked(name: str, path: str = "auto") -> tuple[np.ndarray, dict]:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(3)]
    scorer = load_scorer(name, device="cpu", dtype="float32", path=path)
    found = scorer.score(Item("q", images[0]), [Item(str(i), one) for i, one in enumerate(images[1:])])
    return found.label_logits, dict(scorer.settings())


@has_peft
def test_the_adapter_is_added_to_the_weights(base: Path, tmp_path: Path) -> None:
    adapter = lora(base, tmp_path / "lora")
    plain, without = asked(str(base))
    wanted, _ = asked(str(merged_by_hand(base, adapter, tmp_path / "merged")))
    for path in ("fast", "reference"):
        found, settings = asked(f"{base}+lora:{adapter}", path)
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert settings["path"] == path
    assert np.abs(wanted - plain).max() > 0.01
    assert settings["mllm"] == f"{base}+lora:{adapter}"
    assert settings["revision"] == f"{without['revision']}+{checkpoints.fingerprint(adapter)}"
    np.testing.assert_array_equal(asked(str(base))[0], plain)  # weights are shared between scorers


@has_peft
def test_a_revision_pins_base_and_adapter(base: Path, tmp_path: Path) -> None:
    adapter = lora(base, tmp_path / "lora")
    name = f"{base}+lora:{adapter}"
    known = adapters.resolve(name).revision
    assert adapters.resolve(name, known).revision == known
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 1}))
    assert adapters.resolve(name).revision != known
    with pytest.raises(Mismatch, match="now holds"):
        adapters.resolve(name, known)


@has_peft
def test_what_does_not_fit_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = lora(base, tmp_path / "lora")
    weights = load_file(adapter / "adapter_model.safetensors")
    first = next(iter(weights))
    for number, wrong in enumerate(
        (
            {**weights, first: torch.zeros(R, 7)},
            {name: one for name, one in weights.items() if name != first},
            {**weights, first.replace("layers.0", "layers.99"): weights[first].clone()},
            {**weights, first: torch.full_like(weights[first], torch.nan)},
        )
    ):
        folder = tmp_path / str(number)
        shutil.copytree(adapter, folder)
        save_file(wrong, folder / "adapter_model.safetensors")
        with pytest.raises(ModelError, match="does not fit the model"):
            asked(f"{base}+lora:{folder}")
    tied = tiny_models.build("gemma3", tmp_path / "tied")
    both_ends = lora(base, tmp_path / "ends", target_modules=["embed_tokens"])
    with pytest.raises(ModelError, match="head shares"):
        asked(f"{tied}+lora:{both_ends}")
    with pytest.raises(UsageError, match="no plain LoRA"):
        adapters.resolve(f"{base}+lora:{lora(base, tmp_path / 'ia3', peft_type='IA3')}")


@has_peft
def test_an_adapter_of_another_model_is_refused(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the hub's names, where both are known; these say more than shapes."""
    monkeypatch.setattr(checkpoints, "resolve", lambda name, *_, **__: Checkpoint(name, base, "abc", local=False))
    other = lora(base, tmp_path / "other", base_model_name_or_path="Qwen/Qwen2.5-VL-7B-Instruct")
    with pytest.raises(UsageError, match=r"was trained for Qwen/Qwen2\.5-VL-7B-Instruct, not for qwen3-vl-2b"):
        adapters.resolve(f"qwen3-vl-2b+lora:{other}")
    mine = lora(base, tmp_path / "mine", base_model_name_or_path="Qwen/Qwen3-VL-2B-Instruct")
    assert adapters.resolve(f"qwen3-vl-2b+lora:{mine}").revision.startswith("abc+")


def test_missing_parts_are_named(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"holds no adapter_config\.json"):
        adapters.resolve(f"{base}+lora:{tmp_path}")
    adapter = lora(base, tmp_path / "lora")
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"looktwice\[lora\]"):
        adapters.resolve(f"{base}+lora:{adapter}")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        adapters.resolve(f"{base}+lora:{adapter}")
    with pytest.raises(UsageError, match="only a local MLLM"):
        checkpoints.resolve(f"{base}+lora:{adapter}")
