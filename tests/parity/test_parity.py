"""The fast path gives the reference path's logits, for every family, and the suite notices when it does not.

Weights have standard deviation 0.2, so that logits spread (their std is at least 1) and errors of position, order or
level move them by far more than the tolerance; the tests at the end prove that they would be seen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, Qwen2VLConfig, SmolVLMConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from looktwice.score.load import scorer, widen_head
from looktwice.score.local import prefix_cache
from looktwice.score.local.batches import shared_length
from looktwice.score.local.engine import Engine
from looktwice.score.local.families.base import Family
from looktwice.score.local.mllm import Mllm
from looktwice.score.local.reference import ReferenceScorer
from looktwice.score.prompting import built_in
from looktwice.types import Block, Item, VisualTokens

FAMILIES = list(tiny_models.MLLMS)
GEMMAS = [family for family in FAMILIES if "gemma" in family]
TOLERANCE = 1e-4
Get = Callable[[str], Mllm]
DIRECTIONS = [
    ("object", "image"),
    ("match", "text"),
    ("match-query-first", "text"),
    ("caption", "image"),
    ("composed", "both"),
    ("composed-query-first", "both"),
    ("mixed", "both"),
    ("mixed", "text"),
]


def engine(mllm: Mllm, prompt: str, **options: Any) -> Engine:
    fast = scorer(mllm, built_in.get(prompt), path="fast", **options)
    assert isinstance(fast, Engine)
    return fast


def fast_logits(fast: Engine, query: Item, candidates: Sequence[Item]) -> Tensor:
    out = torch.full((len(candidates), fast.mllm.model.config.get_text_config().vocab_size), torch.nan)
    for rows, logits in fast.logits(query, candidates):
        out[rows] = logits
    assert not out.isnan().any(), "a candidate was left out"
    return out


def oracle(mllm: Mllm, prompt: str, query: Item, candidates: Sequence[Item]) -> Tensor:
    slow = ReferenceScorer(mllm, built_in.get(prompt))
    return torch.stack([slow.logits(query, candidate) for candidate in candidates])


def shown(prompt: str, candidates: Sequence[Item]) -> list[Item]:
    """Candidates without what the prompt would not show anyway."""
    return [Item(c.id, text=c.text) if prompt == "caption" else c for c in candidates]


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def rms(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


@pytest.mark.parametrize(("prompt", "kind"), DIRECTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_fast_equals_reference(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str, prompt: str, kind: str
) -> None:
    model, items = mllm(family), shown(prompt, candidates)
    expected = oracle(model, prompt, query[kind], items)
    fast = engine(model, prompt)
    found = fast_logits(fast, query[kind], items)
    assert expected.std() >= 1 and expected.std(0).mean() > 0.1, "logits must spread, or nothing is tested"
    assert gap(found, expected) <= TOLERANCE
    labels = [i for variants in fast.labels.ids for i in variants]
    assert gap(found[:, labels], expected[:, labels]) <= TOLERANCE
    slow = ReferenceScorer(model, built_in.get(prompt)).score(query[kind], items)
    scores = fast.score(query[kind], items)
    for name in ("p", "entropy", "off_mass", "label_logits"):
        assert getattr(scores, name) == pytest.approx(getattr(slow, name), abs=TOLERANCE)
    assert scores.argmax_id.tolist() == slow.argmax_id.tolist() and scores.status == slow.status


@pytest.mark.parametrize("family", FAMILIES)
def test_alone_among_sixty_four_and_in_any_order(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str
) -> None:
    many = [replace(candidates[i % len(candidates)], id=f"m{i}") for i in range(64)]
    together = fast_logits(engine(mllm(family), "object"), query["image"], many)
    alone = engine(mllm(family), "object", batch_size=1)
    for i in range(len(candidates)):
        assert gap(together[i], fast_logits(alone, query["image"], [many[i]])[0]) <= TOLERANCE
    order = np.random.default_rng(0).permutation(64).tolist()
    shuffled = fast_logits(engine(mllm(family), "object", batch_size=5), query["image"], [many[i] for i in order])
    assert gap(shuffled, together[order]) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_of_any_length_alone_and_together(mllm: Get, query: dict[str, Item], family: str) -> None:
    items = [Item(f"t{i}", text="a red cup " * (i + 1)) for i in range(6)] + [Item("t", text="a red cup " * 3)]
    together = fast_logits(engine(mllm(family), "caption"), query["image"], items)
    for i, item in enumerate(items):
        alone = fast_logits(engine(mllm(family), "caption"), query["image"], [item])
        assert gap(alone[0], together[i]) <= TOLERANCE
    assert gap(together[2], together[6]) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_stays_near_itself_and_near_float32(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str
) -> None:
    """Two paths of one bfloat16 model round differently.

    Seen: 0.01 apart and 0.05 from float32 (rms of logits of std 1.1), but up to 0.22 and 0.27 where every layer's
    output is normed (Gemma) or a token may be sent to another expert of two that are nearly equal.
    """
    exact = mllm(family)
    half = replace(exact, model=copy.deepcopy(exact.model).to(torch.bfloat16))
    widen_head(half.model)
    fast = fast_logits(engine(half, "object"), query["image"], candidates)
    slow, sharp = (oracle(one, "object", query["image"], candidates) for one in (half, exact))
    assert rms(fast, slow) <= max(0.02, 2 * rms(slow, sharp)), "what rounding does to both"
    assert rms(fast, sharp) <= max(0.06, 2 * rms(slow, sharp))
    assert len(fast.unique()) > 0.9 * fast.numel(), "the head is float32: logits are not rounded to bfloat16"


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_alone_and_in_a_batch(mllm: Get, query: dict[str, Item], candidates: list[Item], family: str) -> None:
    """Rounding follows the shape of a batch: seen were 6.2e-4 of p, by images of torchvision 6.1e-3 (gemma4: 0.047)."""
    half = replace(mllm(family), model=copy.deepcopy(mllm(family).model).to(torch.bfloat16))
    widen_head(half.model)
    together = engine(half, "object").score(query["image"], candidates).p
    alone = engine(half, "object", batch_size=1)
    single = np.array([alone.score(query["image"], [candidate]).p[0] for candidate in candidates])
    exact = engine(mllm(family), "object").score(query["image"], candidates).p
    assert np.abs(together - single).max() <= np.abs(single - exact).max(), "bfloat16 itself moves p by more"
    assert np.ptp(single) > 5e-3


def test_smolvlm_is_read_like_idefics3(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    """SmolVLM's own processor wants more packages; its model takes the same inputs."""
    base = mllm("idefics3")
    settings = {**base.model.config.to_dict(), "model_type": "smolvlm"}
    twin = kin(base, SmolVLMConfig(**settings))
    twin.model.load_state_dict(base.model.state_dict())
    check_kin(twin, query, candidates)


def test_qwen2_vl_is_read_like_its_successor(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    base = mllm("qwen2_5_vl")
    settings = {**base.model.config.to_dict(), "model_type": "qwen2_vl"}
    settings["text_config"]["model_type"] = "qwen2_vl_text"
    settings["vision_config"] = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    twin = kin(base, Qwen2VLConfig(**settings))
    tiny_models.randomise(twin.model, 0.2)
    check_kin(twin, query, candidates)


def kin(base: Mllm, config: Any) -> Mllm:
    """A relative of a tiny model that understands its processor."""
    torch.manual_seed(1)
    return replace(base, model=AutoModelForImageTextToText.from_config(config).eval().requires_grad_(False))


def check_kin(twin: Mllm, query: dict[str, Item], candidates: list[Item]) -> None:
    for prompt, kind in (("object", "image"), ("match", "text")):
        expected = oracle(twin, prompt, query[kind], candidates)
        assert expected.std() >= 1
        assert gap(fast_logits(engine(twin, prompt), query[kind], candidates), expected) <= TOLERANCE


# --- stored tokens ----------------------------------------------------------------------------------------------------


def decoded(tokens: VisualTokens, seed: int) -> VisualTokens:
    """What a coarse codec would give back."""
    noise = torch.Generator().manual_seed(seed)
    levels = tokens.levels
    return replace(
        tokens,
        features=tokens.features + 0.3 * torch.randn(tokens.features.shape, generator=noise),
        levels=None if levels is None else levels + 0.3 * torch.randn(levels.shape, generator=noise),
    )


def encoder_outputs(fast: Engine, pair: Sequence[VisualTokens]) -> Any:
    """The pair's tokens in the shape in which each family's stock forward takes them."""
    packs = [packed(fast.family, tokens) for tokens in pair]
    if fast.family.levels:
        levels = zip(*[tokens.levels for tokens in pair if tokens.levels is not None], strict=True)
        return BaseModelOutputWithDeepstackFeatures(pooler_output=packs, deepstack_features=list(levels))
    if type(fast.family).__name__ in ("InternVL", "Gemma3"):
        return BaseModelOutputWithPooling(pooler_output=torch.cat(packs)[None])
    return BaseModelOutputWithPooling(pooler_output=packs)


def packed(family: Family, tokens: VisualTokens) -> Tensor:
    newline = family.newline()
    return tokens.features if newline is None else torch.cat([tokens.features, newline[None]])


@pytest.mark.parametrize("family", FAMILIES)
def test_decoded_tokens_against_the_reference_fed_the_same(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str
) -> None:
    model = mllm(family)
    fast, slow = engine(model, "object"), ReferenceScorer(model, built_in.get("object"))
    own = fast.visual_tokens([query["image"], *candidates])
    stored = [decoded(tokens, i) for i, tokens in enumerate(own)]
    expected = []
    for candidate, tokens in zip(candidates, stored[1:], strict=True):
        inputs = slow.inputs(query["image"], candidate)
        inputs.pop("pixel_values")
        fed = {"image": encoder_outputs(fast, (stored[0], tokens))}
        with torch.no_grad():
            expected.append(model.model(**inputs, mm_encoder_outputs=fed, logits_to_keep=1).logits[0, -1])
    items = [Item(c.id, tokens=t) for c, t in zip(candidates, stored[1:], strict=True)]
    seen = fast.tower.images_seen
    found = fast_logits(fast, Item("q", tokens=stored[0]), items)
    assert fast.tower.images_seen == seen, "stored tokens must not meet the vision tower"
    assert gap(found, torch.stack(expected)) <= TOLERANCE
    assert gap(found, fast_logits(fast, query["image"], candidates)) > 100 * TOLERANCE


def thin(tokens: VisualTokens) -> tuple[VisualTokens, list[int]]:
    """Every second row and column of every block; odd ends dropped. Also the indices that are left."""
    parts, kept, start = [], [], 0
    for part in tokens.layout:
        if isinstance(part, Block):
            h, w = max(part.h // 2, 1), max(part.w // 2, 1)
            kept += [start + (2 * r) * part.w + 2 * c for r in range(h) for c in range(w)]
            start += part.h * part.w
            part = replace(part, h=h, w=w, stride=2, grid=(part.h, part.w))
        parts.append(part)
    levels = tokens.levels[:, kept] if tokens.levels is not None else None
    return VisualTokens(tokens.features[kept], levels, tuple(parts)), kept


@pytest.mark.parametrize("family", FAMILIES)
def test_dropped_tokens_keep_the_positions_of_those_that_stay(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str
) -> None:
    """Against the stock decoder run on the whole row with the dropped tokens, and their positions, cut out."""
    model = mllm(family)
    fast, slow = engine(model, "object"), ReferenceScorer(model, built_in.get("object"))
    own = fast.visual_tokens([query["image"], *candidates])
    items, expected = [], []
    for candidate, tokens in zip(candidates, own[1:], strict=True):
        short, kept = thin(tokens)
        items.append(Item(candidate.id, tokens=short))
        inputs = slow.inputs(query["image"], candidate)
        ids = inputs["input_ids"]
        slots = (ids[0] == fast.family.image_token_id).nonzero()[:, 0]
        newlines = fast.family.newline() is not None
        first = len(own[0].features) + newlines
        keep = torch.ones(ids.shape[1], dtype=torch.bool)
        keep[slots[first : first + len(tokens.features)]] = False
        keep[slots[first : first + len(tokens.features)][kept]] = True
        grids = inputs.get("image_grid_thw")
        positions = torch.arange(ids.shape[1])[None]
        if grids is not None:
            positions = model.model.model.get_rope_index(ids, inputs["mm_token_type_ids"], grids)[0]
        fed = {"image": encoder_outputs(fast, (own[0], short))}
        kinds = {name: of[:, keep] for name, of in inputs.items() if grids is None and name.endswith("token_type_ids")}
        with torch.no_grad():
            out = model.model(
                input_ids=ids[:, keep],
                position_ids=positions[..., keep],
                attention_mask=torch.ones(1, int(keep.sum()), dtype=torch.long),
                mm_encoder_outputs=fed,
                logits_to_keep=1,
                **kinds,
            )
        expected.append(out.logits[0, -1])
    assert gap(fast_logits(fast, query["image"], items), torch.stack(expected)) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("prompt", "kind"), [("object", "image"), ("match", "text"), ("mixed", "both")])
def test_token_ids_are_those_of_the_models_own_processor(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str, prompt: str, kind: str
) -> None:
    fast, slow = engine(mllm(family), prompt), ReferenceScorer(mllm(family), built_in.get(prompt))
    shown = 2 if prompt == "object" or kind == "both" else 1
    for pair, candidate in zip(
        fast.pairs(query[kind], candidates, range(len(candidates)), shown), candidates, strict=True
    ):
        assert pair.row.ids.tolist() == slow.inputs(query[kind], candidate)["input_ids"][0].tolist()


# --- tests of the tests -----------------------------------------------------------------------------------------------


def test_a_lost_deepstack_level_is_noticed(
    mllm: Get, query: dict[str, Item], candidates: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mllm("qwen3_vl")
    fast = engine(model, "object")
    monkeypatch.setattr(fast.family, "extras", lambda ids, visual, levels: {})
    assert (
        gap(fast_logits(fast, query["image"], candidates), oracle(model, "object", query["image"], candidates)) > 0.05
    )


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5"])
def test_positions_on_one_axis_are_noticed(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mllm(family)
    fast = engine(model, "object")

    def flat(block: Block, start: int) -> tuple[Tensor, int]:
        positions, after = Family.position_ids(fast.family, block, start)
        return positions.expand(3, -1), after

    monkeypatch.setattr(fast.family, "position_ids", flat)
    assert (
        gap(fast_logits(fast, query["image"], candidates), oracle(model, "object", query["image"], candidates)) > 0.05
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_swapped_pictures_are_noticed(mllm: Get, query: dict[str, Item], candidates: list[Item], family: str) -> None:
    model = mllm(family)
    swapped = [fast_logits(engine(model, "object"), c, [query["image"]])[0] for c in candidates]
    assert gap(torch.stack(swapped), oracle(model, "object", query["image"], candidates)) > 0.05


def test_a_lost_newline_is_noticed(
    mllm: Get, query: dict[str, Item], candidates: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mllm("llava_onevision")
    fast = engine(model, "match")
    spread = fast.family.expand_placeholders
    forget = lambda ids, layouts: replace(row := spread(ids, layouts), newline=torch.zeros_like(row.newline))  # noqa: E731
    monkeypatch.setattr(fast.family, "expand_placeholders", forget)
    assert gap(fast_logits(fast, query["text"], candidates), oracle(model, "match", query["text"], candidates)) > 0.01


@pytest.mark.parametrize("kind", ["conv_states", "recurrent_states"])
def test_a_lost_state_is_noticed(
    mllm: Get, query: dict[str, Item], candidates: list[Item], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the prefix's states in gated delta-net layers, one of them at zero."""
    model = mllm("qwen3_5")
    lent = prefix_cache.SharedStates.__init__

    def forget(self: Any, *given: Any) -> None:
        lent(self, *given)
        setattr(self, kind, {0: torch.zeros_like(getattr(self, kind)[0])})

    monkeypatch.setattr(prefix_cache.SharedStates, "__init__", forget)
    # few tokens after the prefix: a convolution of four has forgotten it after three
    items = [Item(f"t{i}", text=text) for i, text in enumerate(("yes", "no", "0"))]
    found = fast_logits(engine(model, "caption"), query["image"], items)
    assert gap(found, oracle(model, "caption", query["image"], items)) > 100 * TOLERANCE


def test_a_state_is_lent_and_not_given_away(mllm: Get, query: dict[str, Item]) -> None:
    """One candidate leaves one token after the prefix, and the model writes into the state that it is given then."""
    fast, item = engine(mllm("qwen3_5"), "caption"), Item("t", text="a red cup")
    first = fast_logits(fast, query["image"], [item])
    assert [batch.tolist() for batch in fast_logits(fast, query["image"], [item])] == first.tolist()


def blind(family: Any, how: str) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """A mask that is wrong in one way."""
    right = family.mask

    def wrong(distances: Tensor, visual: Tensor) -> dict[str, Tensor]:
        if how == "pictures from left to right":
            return right(distances, torch.zeros_like(visual))
        mask = dict(right(distances, visual))
        if how == "no window":
            mask["sliding_attention"] = mask["full_attention"]
        else:
            mask["sliding_attention"] = mask["full_attention"] & (
                distances < family.model.config.text_config.sliding_window + 1
            )
        return mask

    return wrong


@pytest.mark.parametrize("family", GEMMAS)
@pytest.mark.parametrize("how", ["pictures from left to right", "no window", "a window of one more"])
def test_a_wrong_mask_is_noticed(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mllm(family)
    fast = engine(model, "object")
    monkeypatch.setattr(fast.family, "mask", blind(fast.family, how))
    moved = gap(fast_logits(fast, query["image"], candidates), oracle(model, "object", query["image"], candidates))
    assert moved > 100 * TOLERANCE


@pytest.mark.parametrize("family", GEMMAS)
def test_a_prefix_is_longer_than_the_window(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str
) -> None:
    """What the other tests take for granted: windows end inside the prefix, inside pictures and inside the rest."""
    fast = engine(mllm(family), "object")
    ready = fast.pairs(query["image"], candidates, range(len(candidates)), 2)
    shared, window = shared_length(ready), mllm(family).model.config.text_config.sliding_window
    assert shared > window and len(ready[0].row.ids) - shared > 2 * window
    assert len(ready[0].images[0].features) > window
