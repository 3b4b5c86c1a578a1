"""Large photos are reduced while they are read, items and queries alike, and old tables keep reading the old way."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from looktwice import Retriever, Table, index, scan
from looktwice.encode import load_encoder
from looktwice.errors import Mismatch, UsageError
from looktwice.indexing import commit, encode_batches
from looktwice.sources import images
from looktwice.sources.decoding import modes
from looktwice.sources.queries import read_alike
from looktwice.sources.reading import Reading
from looktwice.testing import ColorEncoder
from looktwice.types import EncoderInfo, Item


def photo(seed: int, size: tuple[int, int] = (1200, 900)) -> Image.Image:
    """Smooth shapes with some grain, as a camera writes them."""
    dice = np.random.default_rng(seed)
    smooth = Image.fromarray(dice.integers(0, 256, (9, 12, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = dice.normal(0, 6, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))


def write(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.fixture(scope="module")
def clip():
    return load_encoder("tiny-clip", device="cpu", dtype="float32")


@pytest.mark.parametrize("factor", [1, 3, 54, 700])
def test_a_block_stays_small_whatever_the_factor(factor: int) -> None:
    """It once grew with the square of the factor, so that an image of 169 megapixels took 2 GB."""
    boxes = list(modes.blocks((13_000, 9_000), factor))
    assert sum((right - left) * (bottom - top) for left, top, right, bottom in boxes) == 13_000 * 9_000
    assert max((right - left) * (bottom - top) for left, top, right, bottom in boxes) < 4 * 2**20
    assert all(left % factor == top % factor == 0 for left, top, _, _ in boxes)


@pytest.mark.parametrize("factor", [3, 54])
def test_blocks_give_the_pixels_of_the_whole(factor: int) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 5000, 3), np.uint8))
    assert np.array_equal(modes.to_rgb(noise, factor, colours=False), noise.reduce(factor))


def test_encoders_say_how_many_pixels_they_read(clip: object) -> None:
    assert clip.info.side == 120
    assert load_encoder("tiny-clip@200", device="cpu").info.side == 200
    both = load_encoder("tiny-clip@120/240", device="cpu")
    assert (both.info.side, both.for_queries.info.side) == (120, 240)
    assert load_encoder("tower:tiny-vl", device="cpu").info.side is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_format_keeps_twice_the_side(kind: str) -> None:
    out = io.BytesIO()
    photo(1).save(out, kind)
    image, size = images.load(out.getvalue(), Reading(side=120))
    assert size == (1200, 900) and image.size == ((600, 450) if kind == "JPEG" else (400, 300))
    assert images.load(out.getvalue(), Reading(side=226))[0].size == (1200, 900)
    assert images.load(out.getvalue(), Reading(version=1, side=120))[0].size == (1200, 900)
    assert images.load(out.getvalue())[0].size == (1200, 900)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_nothing_is_stretched(kind: str) -> None:
    """The edge between two colours stays at the same share of the width, whatever the width."""
    for width in (801, 804, 807):
        halves = np.zeros((600, width, 3), np.uint8)
        halves[:, : width // 2] = 255
        out = io.BytesIO()
        Image.fromarray(halves).save(out, kind)
        image = images.load(out.getvalue(), Reading(side=35))[0]
        white = np.asarray(image)[..., 0].astype(float).mean() / 255 * image.width
        assert abs(white / image.width - (width // 2) / width) * image.width < 0.15
        assert abs(image.width / image.height - width / 600) < 0.01


def test_vectors_hardly_move(clip: object) -> None:
    """Twenty photos: the reduced ones have the same neighbours, and nearly the same vectors."""
    whole, small = [], []
    for seed in range(20):
        out = io.BytesIO()
        photo(seed).save(out, "JPEG", quality=90)
        whole.append(images.load(out.getvalue())[0])
        small.append(images.load(out.getvalue(), Reading(side=120))[0])
    before, after = (clip.encode([Item("x", image) for image in part]) for part in (whole, small))
    assert (before * after).sum(1).min() > 0.9995
    same = (before @ before.T).argsort(1)[:, -2] == (after @ before.T).argsort(1)[:, -2]
    assert same.sum() >= 18


def test_a_query_is_read_like_the_items(tmp_path: Path, clip: object) -> None:
    (tmp_path / "in").mkdir()
    paths = [write(photo(seed), tmp_path / "in" / f"{seed}.jpg", quality=90) for seed in range(3)]
    table = Table.create(tmp_path / "t.lt", clip.info)
    index(table, scan([tmp_path / "in"]), clip)
    best = Retriever(table, clip).search(paths[1], k=1).hits[0]
    assert (best.id, round(best.coarse, 4)) == ("1.jpg", 1)
    memory = Retriever(table, clip).search(Image.open(paths[1]), k=1).hits[0]
    assert memory.id == "1.jpg" and memory.coarse > 0.9995
    assert "reading" not in Retriever(table, clip).search(paths[1]).manifest


class Remembering(ColorEncoder):
    """An encoder that reads 50 pixels and remembers the sizes and colours that it was shown."""

    info = replace(ColorEncoder.info, side=50)

    def __init__(self) -> None:
        self.shown: list[tuple[tuple[int, int], tuple[int, ...]]] = []

    def encode(self, items):
        self.shown += [(item.image.size, item.image.getpixel((0, 0))) for item in items]
        return super().encode(items)


def old(table: Table) -> Table:
    """The table as a version without `reading` wrote it."""
    path = table.path / "manifest.json"
    values = json.loads(path.read_text())
    assert values.pop("reading") == 2
    path.write_text(json.dumps(values))
    return Table.open(table.path)


def test_tables_of_earlier_versions_read_items_and_queries_as_before(tmp_path: Path) -> None:
    from test_kinds import gamma

    picture = write(Image.new("RGB", (400, 300), (55, 55, 55)), tmp_path / "a.png", icc_profile=gamma(1.0))
    new, encoder = Table.create(tmp_path / "new.lt", Remembering.info), Remembering()
    index(new, scan([picture]), encoder)
    Retriever(new, encoder).search(picture)
    assert {size for size, _ in encoder.shown} == {(133, 100)}
    assert all(abs(colour[0] - 128) <= 2 for _, colour in encoder.shown)

    table, encoder = old(Table.create(tmp_path / "old.lt", Remembering.info)), Remembering()
    assert table.manifest.reading == 1
    index(table, scan([picture]), encoder)
    found = Retriever(table, encoder).search(picture)
    assert encoder.shown == [((400, 300), (55, 55, 55))] * 2
    assert found.manifest["reading"] == 1 and Table.open(table.path).manifest.reading == 1


def test_batches_of_other_rules_are_refused(tmp_path: Path) -> None:
    picture = write(Image.new("RGB", (400, 300), (55, 55, 55)), tmp_path / "a.png")
    table = old(Table.create(tmp_path / "t.lt", Remembering.info))
    with pytest.raises(Mismatch, match="encode again with known"):
        commit(table, encode_batches(scan([picture]), Remembering()))
    assert commit(table, encode_batches(scan([picture]), Remembering(), known=table.snapshot())).added == 1


def test_rules_of_a_later_version_are_refused(tmp_path: Path) -> None:
    table = Table.create(tmp_path / "t.lt", EncoderInfo("x", "1", "p", 8))
    path = table.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "reading": 3}))
    with pytest.raises(UsageError, match="newer looktwice"):
        Table.open(table.path)


def test_read_alike_falls_back_to_the_image_in_memory(tmp_path: Path) -> None:
    image = Image.new("RGB", (400, 300))
    gone = Item("q", image, uri=str(tmp_path / "gone.jpg"), sha256="0" * 64)
    assert read_alike(gone, Reading(side=50)).image.size == (133, 100)
    assert read_alike(gone, Reading(side=500)) is gone
    assert read_alike(Item("q", text="a"), Reading(side=50)).image is None
    assert read_alike(gone, Reading(version=1, side=50)).image is image
