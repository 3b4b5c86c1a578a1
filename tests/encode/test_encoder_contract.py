"""What every encoder promises, over a table of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from looktwice.encode import load_encoder, parse
from looktwice.encode.base import BaseEncoder
from looktwice.errors import ModelError, UsageError
from looktwice.types import Encoder, Item, _warn_of_cut

TEXT = ["{clip}", "{siglip}", "{siglip2}"]
PICTURES = ["{dinov2}", "{dinov3}", "{siglip_vision}", "{siglip2_vision}"]
JOINT = ["{qwen3_vl_embedding}", "{qwen3_vl_embedding}@64+dim:24"]
SIZED = ["{clip}@42", "{siglip}@50", "{siglip2}@64", "{dinov2}@50", "{dinov3}@70", "tower:{internvl}@64"]
TOWERS = [f"tower:{{{family}}}" for family in ("idefics3", "qwen2_5_vl", "qwen3_vl", "internvl", "llava_onevision")]
ADAPTED = ["{clip}+linear:24", "{dinov2}@50+linear:32", "tower:{qwen3_vl}+linear:32"]
BUNDLED = ["tiny-clip", "tower:tiny-vl"]
SENTENCE = ["st:{clip}", "st:{dinov2}+dim:24"]  # where sentence-transformers is installed
ALL = TEXT + PICTURES + JOINT + SENTENCE + SIZED + TOWERS + ADAPTED + BUNDLED

Loader = Callable[..., BaseEncoder]

MOVES = {"float32": 2e-5, "bfloat16": 1e-2}
"""How far a number of a vector may move with its batch. Largest seen: 2.5e-7 and 4.8e-3; items are 0.08 apart."""


@pytest.fixture
def moves(cpu_dtype: str) -> float:
    return MOVES[cpu_dtype]


@pytest.fixture
def load(tiny: Callable[[str], Path], tmp_path: Path, cpu_dtype: str) -> Loader:
    """Load from a template: {family} is that family's folder, `linear:d` an adaptation of d numbers to 16.

    Every test that uses it runs on both kinds of CPU.
    """

    def encoder(template: str, **options: object) -> BaseEncoder:
        if template.startswith("st:"):
            pytest.importorskip("sentence_transformers", reason="the optional extra st is not installed")
        front, _, width = template.partition("+linear:")
        name = front.format_map(Folders(tiny))
        if width:
            weight = np.random.default_rng(1).normal(size=(16, int(width))).astype(np.float32)
            np.savez(tmp_path / "linear.npz", weight=weight, bias=weight[:, 0])
            name += f"+linear:{tmp_path / 'linear.npz'}"
        return load_encoder(name, device="cpu", **options)  # type: ignore[arg-type]

    return encoder


class Folders(dict[str, Path]):
    def __init__(self, tiny: Callable[[str], Path]) -> None:
        self.tiny = tiny

    def __missing__(self, family: str) -> Path:
        return self.tiny(family)


@pytest.mark.parametrize("name", ALL)
def test_rows_are_float32_of_unit_length_and_differ(name: str, load: Loader, items: list[Item]) -> None:
    encoder = load(name)
    rows = encoder.encode(items)
    assert isinstance(encoder, Encoder)
    assert rows.dtype == np.float32 and rows.shape == (len(items), encoder.info.dim)
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=1e-6)
    assert np.ptp(rows[[0, 1, 2]] @ rows[0]) > 1e-4, "different pictures give the same vector"


@pytest.mark.parametrize("name", ALL)
def test_order_is_kept_and_the_batch_does_not_matter(name: str, load: Loader, items: list[Item], moves: float) -> None:
    together = load(name).encode(items)
    order = [5, 0, 7, 2, 1, 6, 4, 3]
    one_by_one = load(name, batch_size=1).encode([items[i] for i in order])
    np.testing.assert_allclose(one_by_one, together[order], atol=moves)


@pytest.mark.parametrize("name", ALL)
def test_no_items_and_items_with_nothing(name: str, load: Loader, items: list[Item]) -> None:
    encoder = load(name)
    assert encoder.encode([]).shape == (0, encoder.info.dim)
    rows = encoder.encode([items[0], Item("nothing"), Item("empty", text="")])
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, True]


@pytest.mark.parametrize("name", ALL)
def test_a_table_finds_the_same_encoder_again(name: str, load: Loader, items: list[Item]) -> None:
    encoder = load(name)
    again = load_encoder(encoder.info.name, revision=encoder.info.revision, device="cpu")
    assert again.info == encoder.info
    assert str(parse(encoder.info.name)) == encoder.info.name
    np.testing.assert_array_equal(again.encode(items[:2]), encoder.encode(items[:2]))


@pytest.mark.parametrize("name", ALL)
def test_a_row_without_direction_is_nan_and_spoils_no_other(
    name: str, load: Loader, items: list[Item], monkeypatch: pytest.MonkeyPatch, moves: float
) -> None:
    encoder = load(name)
    expected = encoder.encode(items[:4])
    real = encoder._forward

    def broken(batch: list, forward: Callable) -> np.ndarray:
        vectors = real(batch, forward).copy()
        for row, given in enumerate(batch):
            image = given[0] if isinstance(given, tuple) else given
            if image is items[1].image:
                vectors[row] = 0
            if image is items[2].image:
                vectors[row, 3] = float("nan")
        return vectors

    monkeypatch.setattr(encoder, "_forward", broken)
    rows = encoder.encode(items[:4])
    if encoder.linear is None:
        assert np.isnan(rows[1]).all()
    assert np.isnan(rows[2]).all()
    np.testing.assert_allclose(rows[[0, 3]], expected[[0, 3]], atol=moves)


@pytest.mark.parametrize("name", TEXT)
def test_text_and_pictures_share_a_space_and_mix_as_stated(name: str, load: Loader, items: list[Item]) -> None:
    picture, text = items[0], Item("t", text="a photo of a red bicycle")
    both = Item("b", picture.image, text.text)
    for weight in (0.0, 0.3, 0.5, 1.0):
        encoder = load(name, text_weight=weight)
        rows = encoder.encode([picture, text, both]).astype(np.float64)
        expected = (1 - weight) * rows[0] + weight * rows[1]
        np.testing.assert_allclose(rows[2], expected / np.linalg.norm(expected), atol=1e-6)
        assert f"text-weight={weight:g}" in encoder.info.preprocessing


@pytest.mark.parametrize("name", ["{clip}", "{dinov3}", "{qwen3_vl_embedding}"])
def test_a_blank_text_is_as_good_as_none(name: str, load: Loader, items: list[Item], moves: float) -> None:
    encoder, picture = load(name), items[0].image
    alone, blank, empty, nothing = encoder.encode(
        [Item("a", picture), Item("b", picture, " \n"), Item("c", picture, ""), Item("d", text="\t ")]
    )
    np.testing.assert_allclose([blank, empty], [alone, alone], atol=moves)
    assert np.isnan(nothing).all() and encoder.unread == 0


@pytest.mark.parametrize("name", TEXT)
def test_long_texts_are_cut_counted_and_reported_once(
    name: str, load: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    _warn_of_cut.cache_clear()
    encoder = load(name)
    start = "two cats and a dog " * 20
    with caplog.at_level(logging.WARNING):
        rows = encoder.encode([Item("a", text=start), Item("b", text=start + "at night"), Item("c", text="a dog")])
        encoder.encode([Item("d", text=start)])
        encoder.encode([Item("e", text=start * 10_000)])
    assert encoder.truncated == 4 and "A text of 3,800,000 characters is too long" in caplog.text
    assert [record.getMessage() for record in caplog.records if "tokens of text" in record.getMessage()] == [
        f"{encoder.info.name} reads 16 tokens of text and cuts longer texts; shorten them to use all of them."
    ]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


@pytest.mark.parametrize("name", TEXT + JOINT[:1])
def test_half_characters_are_refused_in_a_sentence(name: str, load: Loader) -> None:
    with pytest.raises(UsageError, match="'t' is not UTF-8"):
        load(name).encode([Item("t", text="caf\udce9")])


@pytest.mark.parametrize("name", PICTURES + TOWERS[:1])
def test_a_vision_encoder_refuses_text_and_says_who_reads_it(
    name: str, load: Loader, items: list[Item], caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load(name)
    with pytest.raises(UsageError, match=r"reads no text.*'t'.*tiny-clip"):
        encoder.encode([items[0], Item("t", text="a red bicycle")])
    both = [Item("b", items[0].image, "caption"), Item("c", items[1].image, "caption")]
    with caplog.at_level(logging.WARNING):
        rows = encoder.encode(both)
    np.testing.assert_array_equal(rows, load(name).encode(items[:2]))
    assert encoder.unread == 2 and len(caplog.records) == 1


@pytest.mark.parametrize("name", TEXT)
def test_a_weight_in_the_name_is_the_same_and_stays_with_the_table(name: str, load: Loader, items: list[Item]) -> None:
    both = [replace(items[0], text="a red bicycle"), items[1]]
    named, told = load(f"{name}+mix:0.3"), load(name, text_weight=0.3)
    assert named.info == told.info and named.info.name.endswith("+mix:0.3") and named.for_queries is named
    np.testing.assert_array_equal(named.encode(both), told.encode(both))
    again = load_encoder(named.info.name, device="cpu")
    assert again.info == named.info != load(name).info
    assert load(f"{name}+mix:0.5").info == load(name).info


@pytest.mark.parametrize("name", TEXT)
def test_mmeb_mixes_as_the_released_code_does(name: str, load: Loader, items: list[Item]) -> None:
    """Its scores, written out: queries of raw features, items whose sum is not rescaled, dot products."""
    encoder, plain = load(f"{name}+mix:mmeb"), load(name)
    given = [replace(item, text=f"thing number {n}") for n, item in enumerate(items[:4])]
    raw = [torch.as_tensor(plain._run([i.image for i in given], plain._key, plain._images)),
           torch.as_tensor(plain._run([str(i.text) for i in given], lambda _: None, plain._texts))]  # fmt: skip
    normalise = torch.nn.functional.normalize
    query = normalise(0.8 * raw[0] + 0.2 * raw[1])
    target = 0.7 * normalise(raw[0]) + 0.3 * normalise(raw[1])
    cosines = encoder.for_queries.encode(given) @ encoder.encode(given).T
    np.testing.assert_allclose(cosines, (query @ target.T).numpy(), atol=2e-6)
    assert np.abs(cosines - (query @ normalise(target).T).numpy()).max() > 1e-3, "the length counts"
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(given), axis=1), 1, atol=1e-6)
    assert encoder.info.dim == plain.info.dim + 1 and encoder.for_queries.info == encoder.info
    assert "items 0.7/0.3 unit, not rescaled, queries 0.8/0.2 raw" in encoder.info.preprocessing
    np.testing.assert_allclose(encoder.encode(items[:2])[:, :-1], plain.encode(items[:2]), atol=1e-6)
    assert np.isnan(encoder.encode([Item("nothing", text="")])).all()


def test_queries_may_have_a_size_of_their_own(load: Loader, items: list[Item]) -> None:
    encoder = load("{dinov3}@48/80")
    assert encoder.info == load("{dinov3}@48").info == encoder.for_queries.info
    expected = load("{dinov3}@80").encode(items)
    np.testing.assert_array_equal(encoder.for_queries.encode(items), expected)
    assert np.abs(encoder.encode(items) - expected).max() > 1e-3
    plain = load("{dinov3}@48")
    assert plain.for_queries is plain


def test_the_checkpoints_own_size_is_no_other_encoder(load: Loader) -> None:
    assert load("{dinov3}@32").info == load("{dinov3}").info
    assert load("{clip}@28").info == load("{clip}").info
    assert load("{clip}@42").info != load("{clip}").info


def test_a_batch_that_does_not_fit_is_halved(
    load: Loader, items: list[Item], monkeypatch: pytest.MonkeyPatch, moves: float
) -> None:
    encoder = load("{dinov3}")
    expected, real, tried = encoder.encode(items), encoder._images, []

    def small(images: list) -> torch.Tensor:
        tried.append(len(images))
        if len(images) > 2:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")
        return real(images)

    monkeypatch.setattr(encoder, "_images", small)
    np.testing.assert_allclose(encoder.encode(items), expected, atol=moves)
    assert tried == [8, 4, 2, 2, 4, 2, 2] and encoder.batch_size == 2

    def hopeless(images: list) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(encoder, "_images", hopeless)
    with pytest.raises(ModelError, match="too little memory"):
        encoder.encode(items[:1])


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("clip-x", {}, "Unknown encoder"),
        ("{clip}@5", {}, "5 px is out of range"),
        ("tower:{clip}", {}, "not a multimodal LLM"),
        ("{qwen3_vl}", {}, "as tower:"),
        ("qwen3-vl-4b", {}, "as tower:qwen3-vl-4b"),
        ("tower:clip-b", {}, "is an encoder, not a multimodal LLM"),
        ("{clip}", {"text_weight": 1.5}, "from 0 to 1"),
        ("{clip}+mix:1.5", {}, "from 0 to 1"),
        ("{clip}+mix:nan", {}, "from 0 to 1"),
        ("{clip}+mix:half", {}, "Unknown mixing 'half'"),
        ("{clip}+mix:", {}, "has no weights"),
        ("{clip}+mix:0.3", {"text_weight": 0.2}, "text weight is given twice"),
        ("{dinov3}+mix:0.3", {}, "reads no text"),
        ("{qwen3_vl_embedding}+mix:0.3", {}, "reads image and text together"),
        ("{qwen3_vl_embedding}+dim:33", {}, "have 32 numbers"),
        ("{clip}+dim:8", {}, "not trained for shorter vectors"),
        ("{clip}+dim:0", {}, "1 or more"),
        ("{clip}", {"batch_size": 0}, "1 or more"),
        ("{clip}", {"revision": "0123abcd"}, "now holds"),
        ("{clip}#abc", {"revision": "0123abcd"}, "revision is given twice"),
        ("{clip}+linear:/no/such/file.npz", {}, "cannot be read"),
        ("{siglip2}@16+linear:24", {}, "takes vectors of 24 numbers"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(name: str, options: dict, says: str, load: Loader, tiny) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=says) as caught:
        load_encoder(name.format_map(Folders(tiny)), **options) if "/no/such" in name else load(name, **options)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
