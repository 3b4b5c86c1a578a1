"""Patch tokens of encoders: every family's grid, what a middle look does with them, and who refuses them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import noise
from PIL import Image
from tiny_models import built_in
from token_fakes import ToyScorer

from looktwice.encode import load_encoder
from looktwice.encode.patch_tower import PatchTower
from looktwice.encode.patches import PATCHES
from looktwice.errors import MediaError, Mismatch, UnknownName, UsageError
from looktwice.indexing import index
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.probe import keep, probe
from looktwice.search.retriever import Retriever
from looktwice.sources import scan
from looktwice.store import Table
from looktwice.token_index import add_tokens
from looktwice.token_index.sets import usable
from looktwice.types import Item

GRIDS = {  # a picture of 64 × 32 pixels
    "clip": (4, 4),
    "siglip": (4, 4),
    "siglip2": (3, 5),
    "siglip_vision": (4, 4),
    "siglip2_vision": (3, 5),
    "dinov2": (4, 4),
    "dinov3": (4, 4),
    "clip@42": (3, 6),
    "dinov3@64": (4, 8),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return built_in(tmp_path_factory.mktemp("towers"))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Twelve images, of which each is half that of its neighbour; tiny-clip."""
    (tmp_path / "images").mkdir()
    for n in range(12):
        noise(64, 64, seed=n).save(tmp_path / "images" / f"i{n:02}.png")
    encoder = load_encoder("tiny-clip", device="cpu", dtype="float32")
    made = Table.create(tmp_path / "t.lt", encoder.info)
    index(made, scan([tmp_path / "images"]), encoder)
    return made


def own() -> PatchTower:
    return PatchTower(load_encoder("tiny-clip", device="cpu", dtype="float32"))


def picture(table: Table, name: str) -> Item:
    return Item("query", image=Image.open(Path(str(table.path)).parent / "images" / name).convert("RGB"))


@pytest.mark.parametrize("name", GRIDS)
def test_every_family_gives_one_token_per_patch(name: str, tiny: Callable[[str], Path]) -> None:
    family, at, size = name.partition("@")
    tower = PatchTower(load_encoder(f"{tiny(family)}{at}{size}", device="cpu", dtype="float32"))
    items = [Item("a", noise(64, 32, seed=1)), Item("b", noise(32, 32, seed=2)), Item("c", noise(64, 32, seed=3))]
    together = tower.visual_tokens(items)
    (block,) = together[0].layout
    assert (block.h, block.w) == GRIDS[name]
    for item, tokens in zip(items, together, strict=True):
        (block,) = tokens.layout
        assert tokens.features.shape == (block.h * block.w, tower.tokens_info().width)
        assert tokens.features.std(0).max() > 1e-3, "all patches are the same"
        torch.testing.assert_close(tower.visual_tokens([item])[0].features, tokens.features, atol=2e-5, rtol=1e-3)


def test_a_token_is_that_of_its_place() -> None:
    """A spot in the lower left corner moves the token of the lower left corner most."""
    plain, spotted = Image.new("RGB", (120, 120), (90, 120, 200)), Image.new("RGB", (120, 120), (90, 120, 200))
    spotted.paste((250, 240, 10), (0, 108, 12, 120))
    before, after = own().visual_tokens([Item("a", plain), Item("b", spotted)])
    moved = (after.features - before.features).norm(dim=1)
    assert int(moved.argmax()) == 90, "row 9, column 0 of 10 × 10"


def test_what_has_no_patches_is_refused(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match="no patch tokens; choose an encoder"):
        PatchTower(load_encoder("tower:tiny-vl", device="cpu")).tokens_info()
    with pytest.raises(MediaError, match="no image"):
        own().visual_tokens([Item("words", text="a thing")])


def test_a_middle_look_needs_no_mllm(table: Table) -> None:
    add_tokens(table, own(), "int8")
    (entry,) = table.manifest.tokens
    assert entry["mllm"] == f"{PATCHES}tiny-clip" and entry["width"] == 192
    retriever = Retriever(table, maxsim=12, device="cpu", dtype="float32")
    answer = retriever.search(picture(table, "i05.png"), k=3)
    assert answer.hits[0].id == "i05.png" and answer.hits[0].maxsim == pytest.approx(1, abs=0.01)
    assert answer.manifest["candidates"]["middle_look"] == {"matched": 12}
    middle = retriever.middle
    assert middle is not None and middle.reranker is None and middle.tower is not None
    assert middle.tower.maker().encoder is retriever.encoder, "the weights are shared"


def test_a_second_look_never_reads_them(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    add_tokens(table, own(), "int8")
    assert usable(table, ToyScorer()) == [] and not caplog.text, "they are no set that it might have wanted"
    with pytest.raises(Mismatch, match="holds visual tokens of patches:tiny-clip"):
        Retriever(table, scorer=ToyScorer(), codec="int8").search(picture(table, "i05.png"))
    answer = Retriever(table, scorer=ToyScorer(), maxsim=12).search(picture(table, "i05.png"))
    assert answer.manifest["candidates_from"] == [{"codec": "pictures"}]
    assert answer.hits[0].p is not None and answer.hits[0].maxsim is not None


def used(table: Table, **how: Any) -> str:
    """Return the token set that a middle look takes."""
    retriever = Retriever(table, scorer=ToyScorer(), maxsim=12, **how)
    retriever.search(picture(table, "i05.png"), rerank=False)
    key = retriever.middle.settings()["middle_look"][0]["tokens_key"]  # type: ignore[union-attr]
    return next(f"{entry['mllm']} {entry['codec']}" for entry in table.manifest.tokens if entry["tokens_key"] == key)


def test_an_mllms_tokens_come_first_unless_patches_are_named_or_known_to_help(table: Table) -> None:
    add_tokens(table, ToyScorer(), "int8")
    add_tokens(table, own(), "pq48", train_tokens=1200)
    assert used(table) == "toy int8"
    assert used(table, maxsim_codec="pq48") == used(table, maxsim_codec="patches:tiny-clip") == "patches:tiny-clip pq48"
    with pytest.raises(UnknownName, match="patches:tiny-clip"):
        used(table, maxsim_codec="patches:dinov3-l")
    found = probe(table, MllmReranker(ToyScorer()), queries=4, depth=8, codec="patches:tiny-clip")
    if found.verdict != "helps":
        found = type(found)(found.rows, found.gain._replace(low=0.1), found.queries, found.pairs, found.settings)
    keep(table, found)
    assert used(table) == "patches:tiny-clip pq48"


def test_scores_do_not_depend_on_the_codec_by_much(table: Table) -> None:
    add_tokens(table, own(), "none")
    add_tokens(table, own(), "int8")
    answers = [
        Retriever(table, maxsim=12, maxsim_codec=codec).search(picture(table, "i03.png"), k=12)
        for codec in ("none", "int8")
    ]
    exact, coded = ({hit.id: hit.maxsim or 0.0 for hit in answer.hits} for answer in answers)
    assert np.max(np.abs([exact[id_] - coded[id_] for id_ in exact])) < 0.02
