"""Every recipe from its command line to its table, on miniatures of the real layouts and with the bundled models."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import miniatures
import pytest
from tiny_models import build

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SHARED = {"common", "mllm_ilr", "retllm"}
NAMES = sorted(path.stem for path in RECIPES.glob("*.py") if path.stem not in SHARED)
TINY = ["--encoder", "tiny-clip", "--mllm", "tiny-vl", "--shortlist", "3", "--partial", "--limit", "1"]
TINY += ["--device", "cpu", "--dtype", "float32"]
ILR = ["--pixels", "0", "0", "--codecs", "pq8x4", "pq16x4"]
CASES = {
    "mllm_ilr_ilias": ["--root", "data/ilias", *ILR],
    "mllm_ilr_instre": ["--root", "data/instre", *ILR],
    "retllm_1_captions": ["--root", "data", "--as", "released"],
    "retllm_2_mmeb": ["--root", "data/mmeb", "--only", "DocVQA", "NIGHTS", "--encoder", "tiny-clip+mix:mmeb"],
    "retllm_3_parts": ["--root", "data", "--as", "paper"],
    "retllm_4_encoders": ["--root", "data", "--small", "tiny-clip", "--as", "ours"],
    "retllm_5_mllms": ["--root", "data", "--qwen2", "tiny-vl"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for name in ("ilias", "instre", "flickr30k", "coco", "sharegpt4v", "urban1k", "sugarcrepe", "mmeb"):
        getattr(miniatures, name)(root / "data" / name)
    return root


@pytest.fixture
def recipe(data, monkeypatch, tmp_path):
    """Run a recipe beside the miniatures; its runs go to `tmp_path`."""
    monkeypatch.chdir(data)

    def run(name: str, *more: str) -> dict:
        arguments = [*TINY, *CASES[name], "--out", str(tmp_path / "out"), *more]
        return importlib.import_module(name).recipe(arguments)

    return run


def test_every_recipe_has_a_case_a_docstring_and_a_line_in_the_readme():
    assert sorted(CASES) == NAMES
    readme = (RECIPES / "README.md").read_text("utf-8")
    for name in NAMES:
        doc = importlib.import_module(name).__doc__
        assert "What cannot be reproduced exactly" in doc and f"python recipes/{name}.py" in doc
        assert f"{name}.py" in readme


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_prints_what_is_published_beside_ours(name, recipe, capsys, tmp_path):
    record = recipe(name)
    told = capsys.readouterr()
    (written,) = (tmp_path / "out").glob("*/table.json")
    assert json.loads(written.read_text()) == json.loads(json.dumps(record))
    assert told.out.splitlines()[-1] == str(written) and "published / ours" in told.out
    values = [cell["mean"] for cells in record["ours"].values() for cell in cells.values()]
    assert values and all(0 <= value <= 1 for value in values)
    shown = {column for cells in record["ours"].values() for column in cells}
    for column in {c for row in record["published"]["rows"].values() for c in row} - shown:
        assert name == "retllm_2_mmeb" or f"{column}: none of the queries" in told.err
    assert "not comparable" in told.err or name == "retllm_2_mmeb"  # whose miniatures have one query


def test_second_hand_and_unknown_figures_are_marked(recipe, capsys, tmp_path):
    record = recipe("mllm_ilr_ilias")
    out = capsys.readouterr().out
    assert "27.1†" in out and "? /" in out and record["ours"]["MLLM + PQ"]["mAP@1k"]["bytes_per_image"] > 0
    full, reduced = (record["ours"][row]["mAP@1k"]["bytes_per_image"] for row in ("MLLM + PQ", "MLLM + PQ, reduced"))
    assert reduced < full == record["ours"]["ours: with a middle look"]["mAP@1k"]["bytes_per_image"]
    (ours,) = (tmp_path / "out").rglob("ours*/result.json")
    run = json.loads(ours.read_text())
    assert [row["system"] for row in run["systems"]] == ["shortlist", "middle look", "second look"]
    assert run["manifest"]["middle_look"][0]["codec"] == "pq8x4"
    again = recipe("mllm_ilr_ilias")  # everything is there already, sizes included
    assert again["ours"] == record["ours"]


def test_pictures_are_shown_at_full_and_at_reduced_size(recipe, tmp_path):
    model = str(build("qwen2_5_vl", tmp_path / "qwen"))
    sizes = ["--pixels", "112", "56", "--codecs", "int8", "int8", "--mllm", model]
    ours = recipe("mllm_ilr_instre", *sizes)["ours"]
    full, reduced = (ours[row]["mAP@1k"]["bytes_per_image"] for row in ("MLLM + PQ", "MLLM + PQ, reduced"))
    assert reduced < full / 2


def test_averages_of_mmeb_are_both_printed(monkeypatch, tmp_path, capsys):
    module = importlib.import_module("retllm_2_mmeb")
    cell = {"mean": 0.5, "low": 0.4, "high": 0.6}
    ours = {row: dict.fromkeys(module.mmeb.NAMES, cell) for row in ("CLIP-L", "RetLLM-7B")}
    monkeypatch.setattr(module, "run", lambda *arguments: {"ours": ours})
    record = module.recipe(["--root", str(tmp_path), "--out", str(tmp_path)])
    assert record["ours"]["RetLLM-7B"]["overall by group"] == {"mean": 0.5}
    out = capsys.readouterr().out
    assert "54.2" in out and "overall by data set" in out and "60.3 / 50.0" in out


def test_the_same_queries_are_drawn_each_time(data):
    from common import limited

    from looktwice.evaluate.datasets import open_dataset

    whole = open_dataset("coco:t2i", data / "data/coco", partial=True)
    few, fewer = limited(whole, 3), limited(whole, 2)
    assert {q.id for q in fewer.queries} < {q.id for q in few.queries} == few.qrels.keys() and len(few.queries) == 3
    assert limited(whole, None) is whole and limited(whole, 99) is whole


def test_what_is_refused_is_one_sentence(tmp_path, monkeypatch):
    from common import main

    module = importlib.import_module("mllm_ilr_instre")
    with pytest.raises(SystemExit, match="Error: INSTRE under"):
        main(lambda: module.recipe(["--root", str(tmp_path)]))
