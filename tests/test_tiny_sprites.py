"""The recipe's collection of drawings, over made-up packages in the layout of the real ones."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from fakes import INSTALLED
from PIL import Image

ROOT = Path(__file__).parents[1]
SPRITES = runpy.run_path(str(ROOT / "training/tiny/sprites.py"))
ARTIST, ICON_SETS, STUDY_SETS, reveals, split_of, stems = (
    SPRITES[name] for name in ("ARTIST", "ICON_SETS", "STUDY_SETS", "reveals", "split_of", "stems")
)

THINGS = ("bear", "drum", "kite", "lamp", "oar", "pear", "quill", "rake", "sled", "tent", "urn", "vase", "wand", "yak")
HELD_OUT, TRAINED = (next(t for t in THINGS if split_of(t) == split) for split in ("heldout", "train"))
SQUARE = '<path fill="{}" d="M2 2h12v12H2z"/>'


def save(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def icon_set(npm: Path, name: str, icons: dict[str, str]) -> None:
    content = {"width": 16, "height": 16, "icons": {icon: {"body": body} for icon, body in icons.items()}}
    save(npm / f"@iconify-json/{name}/icons.json", content)


def emoji_set(npm: Path, vendor: str, shade: int) -> None:
    entries = [
        {
            "image": f"{code}.png",
            "category": "Objects",
            "subcategory": "thing",
            "unified": code,
            "name": name,
            "short_names": [f"the_{name}"],
        }
        for code, name in (("1F43B", HELD_OUT), ("1F941", TRAINED))
    ]
    save(npm / f"emoji-datasource-{vendor}/emoji.json", entries)
    folder = npm / f"emoji-datasource-{vendor}/img/{vendor}/64"
    folder.mkdir(parents=True)
    for n, entry in enumerate(entries):
        Image.new("RGBA", (40, 40), (shade, 90 * n, 30, 255)).save(folder / str(entry["image"]))


@pytest.fixture
def collected(tmp_path: Path) -> Callable[[dict[str, str]], tuple[list[dict[str, str]], np.ndarray, np.ndarray]]:
    def collect(study: dict[str, str]) -> tuple[list[dict[str, str]], np.ndarray, np.ndarray]:
        npm, art = tmp_path / "npm", tmp_path / "art"
        save(npm / "emojilib/dist/emoji-en-US.json", {})
        for shade, vendor in enumerate(("google", "twitter")):
            emoji_set(npm, vendor, 100 * shade)
        for name in (*ICON_SETS, *STUDY_SETS):
            icon_set(npm, name, study if name == "game-icons" else {})
        icon_set(npm, ARTIST, {icon: SQUARE.format("#13f") for icon in (f"the{TRAINED}", HELD_OUT, "never heard of")})
        (art / "tools").mkdir(parents=True)
        Image.new("RGBA", (50, 30), (9, 9, 200, 255)).save(art / "tools" / "spade_ab_01.png")
        command = [sys.executable, str(ROOT / "training/tiny/sprites.py"), "--npm", str(npm), "--clipart", str(art)]
        environment = {**os.environ, "PYTHONPATH": str(INSTALLED)}
        done = subprocess.run(
            [*command, "--out", str(tmp_path)], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        archive = np.load(tmp_path / "sprites.npz")
        lines = (tmp_path / "sprites.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], archive["pixels"], archive["offsets"]

    return collect


def test_sets_for_study_show_nothing_that_is_held_out(collected: Callable[..., tuple]) -> None:
    names = (HELD_OUT, f"{HELD_OUT}s", f"{HELD_OUT}-head-2", f"{TRAINED}-head-2", TRAINED)
    records, _, _ = collected({n: SQUARE.format(f"#{k}00") for k, n in enumerate(names)})
    study = [r for r in records if r["vendor"] == "game-icons"]
    assert {r["label"] for r in study} <= {f"{TRAINED} head", TRAINED}
    assert TRAINED in {r["label"] for r in study}
    assert {r["split"] for r in study} == {"train"}
    assert {(r["vendor"], r["split"]) for r in records if r["object"] == HELD_OUT} == {
        ("google", "heldout"), ("twitter", "heldout")}  # fmt: skip


def test_an_artist_whom_training_never_meets_draws_only_names_that_it_has(collected: Callable[..., tuple]) -> None:
    records, _, _ = collected({})
    drawn = [r for r in records if r["vendor"] == ARTIST]
    assert [(r["label"], r["object"], r["group"]) for r in drawn] == [(TRAINED, TRAINED, "emoji/thing")]
    assert drawn[0]["split"] in ("artist", "artist validation")


def clip_art_that_is_for(split: str, thing: str) -> dict[str, str]:
    """A record of clip art that shows `thing`, by a contributor whose name brings it into `split`."""
    keys = (SPRITES["object_key"](f"{thing} {by}") for by in map("".join, product("abcdefgh", repeat=3)))
    key = next(key for key in keys if split_of(key) == split)
    return {"vendor": "openclipart", "label": key, "words": [], "object": key, "split": split}


def test_what_goes_by_a_name_met_in_training_is_not_asked_about(collected: Callable[..., tuple]) -> None:
    records, _, _ = collected({})
    others = [clip_art_that_is_for("heldout", TRAINED), clip_art_that_is_for("train", HELD_OUT)]
    marked = SPRITES["without_met"]([*records, *others])
    now = {(r["vendor"], r["object"]): r["split"] for r in marked}
    assert now["openclipart", others[0]["object"]] == "met", "an emoji that was trained on shows the same"
    assert now["google", HELD_OUT] == now["twitter", HELD_OUT] == "met", "clip art that was trained on shows the same"
    assert now["google", TRAINED] == now["openclipart", others[1]["object"]] == "train"
    alone = SPRITES["without_met"]([*records, others[0]])
    assert {r["split"] for r in alone if r["object"] == HELD_OUT} == {"heldout"}


def test_without_clip_art_nothing_is_packed(tmp_path: Path) -> None:
    script = ROOT / "training" / "tiny" / "sprites.py"
    command = [sys.executable, str(script), "--npm", str(tmp_path), "--clipart", str(tmp_path)]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "apt-get install openclipart-png" in done.stderr


def test_an_icon_without_a_colour_gets_one_and_an_empty_one_goes(collected: Callable[..., tuple]) -> None:
    records, pixels, offsets = collected({TRAINED: SQUARE.format("currentColor"), f"{TRAINED}-tip": "<g/>"})
    rows = [row for row, r in enumerate(records) if r["vendor"] == "game-icons"]
    assert [records[row]["label"] for row in rows] == [TRAINED]
    red, green, blue, opaque = pixels[offsets[rows[0]] : offsets[rows[0] + 1]].reshape(-1, 4).max(0)
    assert opaque == 255 and len({red, green, blue}) > 1


def test_clip_art_is_named_by_its_file_and_grouped_by_its_folder(collected: Callable[..., tuple]) -> None:
    records, _, _ = collected({})
    spade = next(r for r in records if r["vendor"] == "openclipart")
    assert (spade["label"], spade["group"], spade["words"]) == ("spade", "clipart/tools", ["tools"])


def test_a_name_reveals_what_all_its_words_or_some_of_them_name() -> None:
    kept_back = {stems("polar bear"), stems("kites")}
    assert reveals(stems("polar bear head"), kept_back) and reveals(stems("kite"), kept_back)
    assert not reveals(stems("bear head"), kept_back) and not reveals(stems("polar star"), kept_back)
