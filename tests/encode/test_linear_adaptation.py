"""Linear adaptations: three file forms, ILIAS's own names of the arrays, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from looktwice.encode import load_encoder
from looktwice.encode.linear import load_linear
from looktwice.errors import Mismatch, UsageError

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(8, 24)).astype(np.float32)
BIAS = RNG.normal(size=8).astype(np.float32)


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize("prefix", ["", "layer."])
def test_every_form_gives_the_same_map(suffix: str, prefix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"a{suffix}", {f"{prefix}weight": WEIGHT, f"{prefix}bias": BIAS})
    linear = load_linear(path, 24)
    rows = RNG.normal(size=(5, 24)).astype(np.float32)
    expected = torch.nn.functional.linear(torch.tensor(rows), torch.tensor(WEIGHT), torch.tensor(BIAS)).numpy()
    np.testing.assert_allclose(linear.apply(rows), expected, atol=1e-5)
    assert linear.dim == 8
    alone = load_linear(save(tmp_path / f"b{suffix}", {f"{prefix}weight": WEIGHT}), 24)
    np.testing.assert_allclose(alone.apply(rows), rows @ WEIGHT.T, atol=1e-5)
    assert alone.sha256 != linear.sha256


def test_the_encoder_adapts_unit_rows(tiny, items, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """ILIAS normalises before and after the map, which matters because of the bias."""
    path = save(tmp_path / "ilias@2024.pt", {"layer.weight": WEIGHT, "layer.bias": BIAS})
    plain = load_encoder(str(tiny("clip")), device="cpu")
    adapted = load_encoder(f"{tiny('clip')}+linear:{path}", device="cpu")
    expected = plain.encode(items) @ WEIGHT.T + BIAS
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(adapted.encode(items), expected, atol=1e-5)
    assert adapted.info.dim == 8 and adapted.info.revision == plain.info.revision
    before = adapted.info
    save(path, {"layer.weight": WEIGHT, "layer.bias": -BIAS})
    after = load_encoder(before.name, revision=before.revision, device="cpu").info
    assert after.name == before.name and after.preprocessing != before.preprocessing


class Trap:
    def __reduce__(self) -> tuple:  # type: ignore[type-arg]
        return exec, ("raise SystemExit('code of the file was run')",)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"weight": Trap()}, protocol=2))
    torch.save({"weight": Trap()}, tmp_path / "b.pt")
    np.savez(tmp_path / "c.npz", weight=np.array([Trap()], dtype=object))
    for name in ("a.pt", "b.pt", "c.npz"):
        with pytest.raises(UsageError, match="cannot be read"):
            load_linear(tmp_path / name, 24)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"matrix": WEIGHT}, "no array `weight`"),
        ({"weight": WEIGHT[0]}, "save it as a matrix"),
        ({"weight": WEIGHT[:0]}, "save it as a matrix"),
        ({"weight": WEIGHT, "bias": BIAS[:5]}, "save 8 numbers"),
        ({"weight": WEIGHT * np.nan}, "not finite"),
    ],
)
def test_other_contents_are_refused(arrays: dict[str, np.ndarray], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        load_linear(save(tmp_path / "a.npz", arrays), 24)


def test_other_files_and_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match="vectors of 24 numbers, but this encoder gives 32"):
        load_linear(save(tmp_path / "a.npz", {"weight": WEIGHT}), 32)
    with pytest.raises(UsageError, match="cannot be read"):
        load_linear(tmp_path / "missing.npz", 24)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(UsageError, match="cannot be read"):
        load_linear(tmp_path / "cut.safetensors", 24)
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(UsageError, match=r"pass a \.npz"):
        load_linear(tmp_path / "a.txt", 24)
