"""The engine around the maths: batches, memory, failures, what is remembered and what is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from engine_helpers import (
    Get,
    engine,
    plain_fixture,  # noqa: F401  # fixtures
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from looktwice.errors import ModelError, UsageError
from looktwice.models.device import Memory
from looktwice.score.load import scorer
from looktwice.score.local import memory
from looktwice.score.local.engine import Engine
from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Piece
from looktwice.types import Block, Item


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 900), max_size=70), st.integers(1, 5000))
def test_a_plan_covers_every_row_once_within_its_limits(lengths: list[int], tokens: int) -> None:
    batches = memory.plan(lengths, lambda longest: max(1, tokens // longest))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or longest * len(batch) <= tokens
        assert sum(lengths[i] for i in batch) >= 0.84 * longest * len(batch)


def test_equal_lengths_fill_their_batches() -> None:
    assert [len(b) for b in memory.plan([10] * 25, lambda n: 8)] == [8, 8, 8, 1]


def test_rows_follow_memory_in_steps(mllm: Get) -> None:
    cost = memory.Cost.of(mllm("qwen3_vl").model.config.get_text_config(), 4)
    assert cost.rows(100, 50, 1 << 40, 4096) == 40, "the limit of tokens"
    rows = [cost.rows(100, 50, room, 1 << 20) for room in range(0, 1 << 26, 1 << 20)]
    assert rows[0] == 1 and rows == sorted(rows) and rows[-1] > 8
    assert all(n & (n - 1) == 0 for n in rows)
    assert cost.rows(5000, 50, 1 << 40, 4096) == 1


@pytest.mark.parametrize(
    ("family", "more"), [("qwen3_vl_moe", "qwen3_vl"), ("qwen3_5", "qwen3_vl"), ("qwen3_5_moe", "qwen3_vl_moe")]
)
def test_experts_and_recurrent_states_take_their_memory(mllm: Get, family: str, more: str) -> None:
    cost, plain = (memory.Cost.of(mllm(name).model.config.get_text_config(), 4) for name in (family, more))
    assert cost.per_token > plain.per_token
    assert (cost.per_row > plain.per_row) == ("qwen3_5" in family)


@pytest.mark.parametrize(
    ("place", "free", "room"),
    [
        ("cpu", 8 << 30, 2 << 30),
        ("cpu", 99 << 30, 4 << 30),
        ("cpu", 0, 0),
        ("cpu", None, 4 << 30),
        ("cuda", 8 << 30, 5 << 30),
        ("cuda", 0, 1 << 30),
    ],
)
def test_room_is_what_is_free_and_what_torch_keeps_to_use_again(
    monkeypatch: pytest.MonkeyPatch, place: str, free: int | None, room: int
) -> None:
    monkeypatch.setattr("looktwice.models.device.memory", lambda device: Memory(None, free))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 9 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 7 << 30)
    assert memory.room(torch.device(place)) == room


def test_batches_are_halved_until_they_fit(
    mllm: Get, query: dict[str, Item], candidates: list[Item], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    fast = engine(mllm("idefics3"))
    expected = fast.score(query["image"], candidates).p
    run, sizes = Engine.run, []

    def small(self: Engine, part: Sequence[Any], *rest: Any) -> Any:
        sizes.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, part, *rest)

    monkeypatch.setattr(Engine, "run", small)
    assert fast.score(query["image"], candidates).p == pytest.approx(expected, abs=1e-5)
    assert max(sizes) > 2 and "halves" in caplog.text
    with pytest.raises(ModelError, match="single pair"):
        list(memory.halving(lambda part: (_ for _ in ()).throw(RuntimeError("can't allocate memory")), [1, 2]))
    with pytest.raises(RuntimeError, match="shape"):
        list(memory.halving(lambda part: (_ for _ in ()).throw(RuntimeError("shape mismatch")), [1, 2]))


def test_pictures_meet_the_tower_once(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    fast = engine(mllm("qwen3_vl"))
    first = fast.score(query["image"], candidates)
    assert fast.tower.images_seen == len(candidates) + 1
    again = fast.score(query["image"], [replace(c, id="other name") for c in candidates])
    assert fast.tower.images_seen == len(candidates) + 1 and again.p.tolist() == first.p.tolist()
    fast.with_prompt("landmark").score(query["image"], candidates)
    assert fast.tower.images_seen == len(candidates) + 1
    by_hash = [Item("a", image=candidates[0].image, sha256="aa"), Item("b", image=candidates[1].image, sha256="bb")]
    fast.score(query["image"], [*by_hash, *by_hash])
    assert fast.tower.images_seen == len(candidates) + 3


def test_memory_of_pictures_has_a_limit(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    expected = engine(mllm("qwen3_vl")).score(query["image"], candidates).p
    forgetful = engine(mllm("qwen3_vl"), cache_bytes=0)
    assert forgetful.score(query["image"], candidates).p.tolist() == expected.tolist()
    assert len(forgetful.tower._kept) == 0 and forgetful.tower._kept.bytes == 0
    small = engine(mllm("qwen3_vl"), cache_bytes=16_000)
    small.score(query["image"], candidates)
    assert 0 < small.tower._kept.bytes <= 16_000 and len(small.tower._kept) < len(candidates)


def test_no_more_pictures_are_prepared_than_the_next_batch_takes(
    mllm: Get, candidates: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo's prepared pixels can be hundreds of megabytes."""
    expected = [t.features for t in engine(mllm("qwen2_5_vl")).visual_tokens(candidates)]
    fast = engine(mllm("qwen2_5_vl"))
    prepare, look, done = fast.family.prepare, fast.family.encode_images, []

    def seen(batch: Sequence[Any]) -> Any:
        done.append(f"look at {len(batch)}")
        return look(batch)

    monkeypatch.setattr(fast.family, "prepare", lambda *given: done.append("prepare") or prepare(*given))
    monkeypatch.setattr(fast.family, "encode_images", seen)
    monkeypatch.setattr("looktwice.score.local.vision_tower.TOWER_NUMBERS", (1, 1))
    found = fast.visual_tokens(candidates)
    assert done[:5] == ["prepare", "prepare", "look at 1", "prepare", "look at 1"], "one ahead shows that it is full"
    assert done.count("look at 1") == len(candidates)
    for tokens, features in zip(found, expected, strict=True):
        torch.testing.assert_close(tokens.features, features)


def test_the_query_runs_once_for_all_its_candidates(
    mllm: Get, query: dict[str, Item], candidates: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = engine(mllm("internvl"), batch_size=2)
    tokens: list[int] = []
    decode = Engine.decode

    def counted(self: Engine, batch: Any, *rest: Any) -> Any:
        tokens.append(batch.embeds.shape[0] * batch.embeds.shape[1])
        return decode(self, batch, *rest)

    monkeypatch.setattr(Engine, "decode", counted)
    whole = fast.score(query["image"], candidates)
    once = len(tokens)
    parts = [fast.score(query["image"], candidates[i : i + 2]).p for i in range(0, len(candidates), 2)]
    assert np.concatenate(parts) == pytest.approx(whole.p, abs=1e-5)
    assert len(tokens) == once + len(parts), "the shared prefix is known from the first call"
    other = fast.score(replace(query["image"], image=candidates[0].image), candidates)
    assert abs(other.p - whole.p).max() > 1e-4, "another query is another prefix"
    stored = Item("q", tokens=fast.visual_tokens([query["image"]])[0])
    assert fast.score(stored, candidates).p == pytest.approx(whole.p, abs=1e-5)


def test_token_ids_that_are_forgotten_are_made_again(mllm: Get) -> None:
    fast, pieces = engine(mllm("internvl")), (Piece(None, "words"),)
    expected = fast.encode(pieces)
    fast.encode.cache_clear()
    assert fast.encode(pieces) == expected == fast.encode(pieces)


@pytest.mark.parametrize("path", ["fast", "reference"])
def test_what_a_candidate_lacks_is_missing_and_nothing_shifts(
    mllm: Get, query: dict[str, Item], candidates: list[Item], path: Any
) -> None:
    judge = scorer(mllm("idefics3"), built_in.get("object"), path=path)
    whole = judge.score(query["image"], candidates[:3])
    holes = judge.score(
        query["image"], [candidates[0], Item("none"), candidates[1], Item("t", text="x"), candidates[2]]
    )
    assert holes.status == ("ok", "missing", "ok", "missing", "ok")
    assert holes.p[[0, 2, 4]] == pytest.approx(whole.p, abs=1e-5) and np.isnan(holes.p[[1, 3]]).all()
    with pytest.raises(UsageError, match="caption"):
        judge.score(query["image"], [Item("t", text="x")])
    empty = judge.score(query["image"], [])
    assert empty.p.shape == (0,) and empty.label_logits.shape == (0, 2)


@pytest.mark.parametrize("path", ["fast", "reference"])
def test_a_picture_that_the_processor_refuses_fails_alone(
    mllm: Get, query: dict[str, Item], candidates: list[Item], path: Any, caplog: Any
) -> None:
    judge = scorer(mllm("qwen2_5_vl"), built_in.get("object"), path=path)
    strip = Item("strip", image=Image.new("RGB", (900, 3)))
    scores = judge.score(query["image"], [candidates[0], strip, candidates[1]])
    assert scores.status == ("ok", "failed", "ok") and "strip" in caplog.text
    if path == "fast":
        with pytest.raises(ModelError, match="aspect ratio"):
            judge.score(strip, candidates[:1])


@pytest.mark.parametrize("path", ["fast", "reference"])
def test_a_picture_that_takes_all_memory_fails_alone(
    mllm: Get, query: dict[str, Item], candidates: list[Item], path: Any, monkeypatch: Any
) -> None:
    model = mllm("qwen2_5_vl")
    judge, kind = scorer(model, built_in.get("object"), path=path), type(model.processor.image_processor)
    prepare = kind.preprocess

    def greedy(self: Any, images: Any, *rest: Any, **options: Any) -> Any:
        if "77x77" in str(images):  # as Pillow writes a picture
            raise MemoryError
        return prepare(self, images, *rest, **options)

    monkeypatch.setattr(kind, "preprocess", greedy)
    scores = judge.score(query["image"], [candidates[0], Item("big", image=Image.new("RGB", (77, 77))), candidates[1]])
    assert scores.status == ("ok", "failed", "ok")


def test_tokens_that_do_not_fit_fail_alone(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    fast = engine(mllm("qwen3_vl"))
    good = fast.visual_tokens([candidates[0]])[0]
    bad = [
        replace(good, features=good.features[:-1]),
        replace(good, features=good.features[:, :-1], levels=good.levels),
        replace(good, levels=None),
        replace(good, levels=good.levels[:1] if good.levels is not None else None),
        replace(good, layout=(Block("global", 1, 1),)),
    ]
    scores = fast.score(query["image"], [Item("good", tokens=good), *(Item("bad", tokens=t) for t in bad)])
    assert scores.status == ("ok", *["failed"] * len(bad))
    with pytest.raises(ModelError, match="run looktwice add-tokens again"):
        fast.score(Item("q", tokens=bad[0]), candidates)


def test_stored_tokens_of_another_number_of_pictures_are_not_shown(
    mllm: Get, query: dict[str, Item], candidates: list[Item]
) -> None:
    """LLaVA-OneVision cuts a picture that stands alone into tiles; `mixed` shows one beside words, two otherwise."""
    fast, some = engine(mllm("llava_onevision"), "mixed"), [replace(c, text=None) for c in candidates[:3]]
    stored = [Item(c.id, tokens=t) for c, t in zip(some, fast.visual_tokens(some), strict=True)]
    both = [replace(c, tokens=s.tokens) for c, s in zip(some, stored, strict=True)]
    two, one = (fast.score(query[kind], some).p for kind in ("image", "text"))
    assert fast.score(query["image"], stored).p == pytest.approx(two, abs=1e-5)
    assert fast.score(query["text"], both).p == pytest.approx(one, abs=1e-5)
    with pytest.raises(UsageError, match="1 image; use --codec images"):
        fast.score(query["text"], stored)
    asked = replace(query["image"], tokens=fast.visual_tokens([query["image"]])[0])
    words = [Item("t", text="a cup"), *some]
    assert fast.score(asked, words).p == pytest.approx(fast.score(query["image"], words).p, abs=1e-5)


def test_numbers_that_are_none_fail(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    fast = engine(mllm("idefics3"))
    tokens = fast.visual_tokens([candidates[0]])[0]
    poisoned = replace(tokens, features=tokens.features.clone().index_fill(0, torch.tensor([1]), torch.nan))
    scores = fast.score(query["image"], [candidates[0], Item("nan", tokens=poisoned), candidates[1]])
    assert scores.status == ("ok", "failed", "ok")
    assert scores.p[[0, 2]] == pytest.approx(fast.score(query["image"], candidates[:2]).p, abs=1e-5)


def test_a_pair_beyond_the_models_positions_fails_with_the_reason(
    mllm: Get, query: dict[str, Item], candidates: list[Item], caplog: Any
) -> None:
    fast = engine(mllm("idefics3"), "mixed")
    long = replace(candidates[0], id="novel", text="word " * 5000)
    assert fast.score(query["image"], [candidates[1], long]).status == ("ok", "failed")
    assert "novel" in caplog.text and "4096" in caplog.text
