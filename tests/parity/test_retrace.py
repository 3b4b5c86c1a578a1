"""Retrace against a direct transcription of its equations, run inside the stock forward of one pair at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from looktwice.errors import UnknownName, UsageError
from looktwice.score.load import scorer
from looktwice.score.local import retracer
from looktwice.score.local.engine import Engine
from looktwice.score.local.generated import GenerationState
from looktwice.score.local.last_position import hook_lock
from looktwice.score.local.mllm import Mllm
from looktwice.score.local.reference import ReferenceScorer
from looktwice.score.local.retrace import PRESETS, Retrace, delta, early_entropy
from looktwice.score.prompting import built_in
from looktwice.types import Item, TextIds, VisualTokens

FAMILIES = ["idefics3", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "gemma3"]
GAMMAS = {"qwen3_5": 0.0028, "gemma3": 0.31}  # their early exits are surer
TOLERANCE = 1e-4
Get = Callable[[str], Mllm]


def engine(mllm: Mllm, prompt: str, retrace: str | Retrace, **options: Any) -> Engine:
    fast = scorer(mllm, built_in.get(prompt), path="fast", retrace=retrace, **options)
    assert isinstance(fast, Engine)
    return fast


def logits(fast: Engine, query: Item, candidates: Sequence[Item]) -> Tensor:
    out = torch.full((len(candidates), fast.mllm.model.config.get_text_config().vocab_size), torch.nan)
    for rows, found in fast.logits(query, candidates):
        out[rows] = found
    return out


# --- the transcription ------------------------------------------------------------------------------------------------


def transcribed(spec: Retrace, mlp: Any, x: Tensor, ffn: Tensor, z: Tensor, begins: int) -> Tensor:
    """FFN' of one pair: `x` and `ffn` [T, d], `z` [N, d]; one number at a time where it matters."""
    mean_z = z.abs().mean()
    key, value = (
        p.weight.abs().mean() / mean_z if spec.scaled else 1.0
        for p in (getattr(mlp, f"{spec.keys}_proj"), mlp.down_proj)
    )
    added = torch.zeros_like(x)
    for t in range(len(x)):
        for j in range(len(z)):
            product = torch.dot(x[t], key * z[j])
            weight = product * torch.sigmoid(product) if spec.phi else product
            added[t] += weight * value * z[j]
    out = ffn.clone()
    for t in range(begins, len(x)):
        size = 1.0
        if spec.match == "token":
            size = ffn[t].norm() / added[t].norm()
        elif spec.match == "pair":
            size = ffn[begins:].abs().mean() / added[begins:].abs().mean()
        out[t] = (1 - spec.alpha) * ffn[t] + spec.alpha * size * added[t]
    return out


def stock(mllm: Mllm, spec: Retrace, fast: Engine, prompt: str, query: Item, candidate: Item) -> tuple[Tensor, int]:
    """Logits of the stock forward with the transcription inside, and the layer it acted in (-1: none)."""
    slow = ReferenceScorer(mllm, built_in.get(prompt))
    inputs = slow.inputs(query, candidate)
    slots = (inputs["input_ids"][0] == fast.family.image_token_id).nonzero()[:, 0]
    shown = {side: fast.visual_tokens([item])[0].features for side, item in (("query", query), ("candidate", candidate))
             if item.image is not None}  # fmt: skip
    two = len(shown) == 2 and "query.image" in built_in.get(prompt).parts
    candidate_first = int(slots[len(shown["query"]) if two else 0])
    decoder = fast.family.decoder
    with torch.no_grad():
        base = mllm.model(**inputs, output_hidden_states=True)
    z = {
        "candidate": shown["candidate"],
        "query": shown.get("query"),
        "last": shown["candidate"],
        "both": torch.cat([shown["query"], shown["candidate"]]) if two else shown["candidate"],
        "all": base.hidden_states[0][0],
    }[spec.tokens]
    layer = where_it_fires(mllm, spec, decoder, base.hidden_states)
    if layer < 0:
        return base.logits[0, -1], layer
    # tiles of Idefics3 begin with marker tokens, which belong to the candidate's picture
    begins = 0 if spec.positions == "all" else candidate_first - lead(fast)
    mlp = decoder.layers[layer].mlp
    hook = mlp.register_forward_hook(lambda m, args, out: transcribed(spec, m, args[0][0], out[0], z, begins)[None])
    with torch.no_grad():
        found = mllm.model(**inputs).logits[0, -1]
    hook.remove()
    return found, layer


def lead(fast: Engine) -> int:
    """Marker tokens of a picture before its first slot."""
    (tokens,) = fast.visual_tokens([Item("x", image=Image.new("RGB", (90, 60)))])
    first = tokens.layout[0]
    return len(first.ids) if isinstance(first, TextIds) else 0


def where_it_fires(mllm: Mllm, spec: Retrace, decoder: Any, hidden: Sequence[Tensor]) -> int:
    depth = len(decoder.layers)
    if spec.layers:
        return math.floor(spec.layers[0] * depth)
    for at in range(depth - 1):
        if spec.window[0] * depth < at < spec.window[1] * depth:
            state = hidden[at + 1][0, -1]
            state = decoder.norm(state) if spec.normed else state
            top = mllm.model.get_output_embeddings()(state).sort(descending=True).values[:10]
            p = torch.exp(top - top.max()) / torch.exp(top - top.max()).sum()
            if -sum(float(x) * math.log(float(x)) for x in p if x > 0) / math.log(10) > spec.gamma:
                return at + 1
    return -1


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("family", "prompt", "kind"),
    [*((family, "object", "image") for family in FAMILIES), ("idefics3", "match-query-first", "text")],
)
def test_a_batch_equals_the_transcription_pair_by_pair(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str, preset: str, prompt: str, kind: str
) -> None:
    model, some = mllm(family), [replace(c, text=None) for c in candidates[:3]]
    spec = replace(PRESETS[preset], gamma=GAMMAS.get(family, 0.45))  # so that it fires in some pairs and not in others
    if prompt == "match-query-first" and preset.startswith("memvr"):
        spec = replace(spec, alpha=0.9)
    fast = engine(model, prompt, spec)
    off = logits(engine(model, prompt, "off"), query[kind], some)
    found = logits(fast, query[kind], some)
    layers = []
    for i, candidate in enumerate(some):
        expected, layer = stock(model, spec, fast, prompt, query[kind], candidate)
        layers.append(layer)
        assert found[i] == pytest.approx(expected, abs=TOLERANCE, rel=1e-4)
        assert (layer < 0) == bool((found[i] - off[i]).abs().max() < 1e-3)
    report = fast.stats()["retrace"]
    fired = [layer for layer in layers if layer >= 0]
    assert report["pairs"] == 3 and report["trigger_rate"] == len(fired) / 3
    assert report["layers"] == {layer: fired.count(layer) for layer in sorted(set(fired))}
    assert not fired or report["delta_to_ffn"] > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_alone_and_in_batches(mllm: Get, query: dict[str, Item], candidates: list[Item], preset: str) -> None:
    for family in FAMILIES:
        spec = replace(PRESETS[preset], gamma=0.3)
        together = logits(engine(mllm(family), "object", spec), query["image"], candidates)
        alone = engine(mllm(family), "object", spec, batch_size=1)
        for i, candidate in enumerate(candidates[:3]):
            assert logits(alone, query["image"], [candidate])[0] == pytest.approx(together[i], abs=TOLERANCE, rel=1e-4)


def test_words_begin_where_they_begin_whoever_stands_beside_them(mllm: Get, query: dict[str, Item]) -> None:
    items = [Item(f"t{i}", text="a red cup " * (i + 1)) for i in range(4)] + [Item("b", text="two cats")]
    fast = engine(mllm("qwen2_5_vl"), "caption", "causal")
    together = logits(fast, query["image"], items)
    for i, item in enumerate(items):
        assert logits(fast, query["image"], [item])[0] == pytest.approx(together[i], abs=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_alpha_0_is_bit_identical_to_off(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str
) -> None:
    off = logits(engine(mllm(family), "object", "off"), query["image"], candidates)
    for preset in PRESETS:
        assert torch.equal(logits(engine(mllm(family), "object", f"{preset},alpha=0"), query["image"], candidates), off)


def test_it_leaves_the_model_as_it_was(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    model = mllm("qwen3_vl")
    before, names = (
        {k: v.clone() for k, v in model.model.state_dict().items()},
        [n for n, _ in model.model.named_modules()],
    )
    fast = engine(model, "object", "paper,gamma=0")
    plain = engine(model, "object", "off")
    off = logits(plain, query["image"], candidates)
    assert not torch.allclose(logits(fast, query["image"], candidates), off, atol=1e-2)
    with pytest.raises(RuntimeError, match="broken"), fast.watching(*broken(fast, query["image"], candidates)):
        raise RuntimeError("broken")
    assert [n for n, _ in model.model.named_modules()] == names
    assert all(not m._forward_hooks for m in fast.family.decoder.modules() if "MLP" in type(m).__name__)
    after = model.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(logits(engine(model, "object", "off"), query["image"], candidates), off)


def broken(fast: Engine, query: Item, candidates: list[Item]) -> Any:
    ready = fast.pairs(query, candidates[:1], [0], 2)
    return fast.batch(ready, 0), ready


def test_every_token_may_be_shown_once_more_from_the_candidate_on(
    mllm: Get, query: dict[str, Item], candidates: list[Item]
) -> None:
    model, some = mllm("qwen2_5_vl"), [replace(c, text=None) for c in candidates[:2]]
    spec = replace(PRESETS["causal"], tokens="all")
    fast = engine(model, "object", spec)
    found = logits(fast, query["image"], some)
    for i, candidate in enumerate(some):
        expected, _ = stock(model, spec, fast, "object", query["image"], candidate)
        assert found[i] == pytest.approx(expected, abs=TOLERANCE, rel=1e-4)


def test_whose_tokens(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    model = mllm("idefics3")
    found = {
        tokens: logits(engine(model, "object", f"causal,tokens={tokens}"), query["image"], candidates)
        for tokens in ("candidate", "query", "both", "last")
    }
    assert torch.equal(found["last"], found["candidate"])
    names = ("candidate", "query", "both")
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert (found[one] - found[other]).abs().max() > 1e-3


def test_stored_tokens_are_what_is_shown_once_more(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    fast = engine(mllm("qwen3_vl"), "object", "causal")
    tokens = fast.visual_tokens(candidates)
    stored = [Item(c.id, tokens=t) for c, t in zip(candidates, tokens, strict=True)]
    assert torch.equal(logits(fast, query["image"], stored), logits(fast, query["image"], candidates))
    coded = [replace(t, features=t.features.round(decimals=1)) for t in tokens]
    changed = [Item(c.id, tokens=t) for c, t in zip(candidates, coded, strict=True)]
    expected = [stored_transcription(fast, query["image"], t) for t in coded[:2]]
    assert logits(fast, query["image"], changed)[:2] == pytest.approx(torch.stack(expected), abs=TOLERANCE)


def stored_transcription(fast: Engine, query: Item, tokens: VisualTokens) -> Tensor:
    """One pair alone, with Z from the codes, through a hook of its own on the engine without retrace."""
    plain = engine(fast.mllm, "object", "off")
    ready = plain.pairs(query, [Item("c", tokens=tokens)], [0], 2)
    z = torch.cat([fast.visual_tokens([query])[0].features, tokens.features])
    mlp = plain.family.decoder.layers[1].mlp
    spec = PRESETS["causal"]
    hook = mlp.register_forward_hook(
        lambda m, args, out: transcribed(spec, m, args[0][0], out[0], z, ready[0].begins)[None]
    )
    with torch.no_grad():
        found = plain.run(ready, 0, None)[0]
    hook.remove()
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("preset", ["causal", "paper", "released-code"])
def test_decoding_steps_keep_the_image(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str, preset: str
) -> None:
    """The step after the prompt against the transcription: Z is the picture still, but for the released code."""
    model = mllm(family)
    spec = replace(PRESETS[preset], layers=(0.4,), alpha=0.5)
    fast = engine(model, "score", spec)
    token = torch.tensor([[23]])
    for _, (first, after) in fast.each(query["text"], candidates[:1], lambda *batch: two(fast, token, *batch)):
        answer_logits, expected = by_hand(fast, spec, query["text"], candidates[0], token)
        assert first[0] == pytest.approx(answer_logits, abs=TOLERANCE)
        assert after[0] == pytest.approx(expected, abs=TOLERANCE)


def two(fast: Engine, token: Tensor, *batch: Any) -> tuple[Tensor, Tensor]:
    answer = GenerationState(fast, *batch)
    return answer.logits, answer.write(token)


def by_hand(fast: Engine, spec: Retrace, query: Item, candidate: Item, token: Tensor) -> tuple[Tensor, Tensor]:
    """Prompt and written token in one row; the prompt's positions see what they saw, the token what it sees."""
    plain = engine(fast.mllm, "score", "off")
    ready = plain.pairs(query, [candidate], [0], 1)
    batch = plain.batch(ready, 0)
    own = plain.mllm.model.get_input_embeddings()(token)
    after = batch.positions[..., -1:] + 1
    longer = replace(
        batch, embeds=torch.cat([batch.embeds, own], 1), positions=torch.cat([batch.positions, after], -1),
        visual=torch.nn.functional.pad(batch.visual, (0, 1)),
        extras={**batch.extras, **({"visual_pos_masks": torch.nn.functional.pad(batch.visual, (0, 1))}
                                   if "visual_pos_masks" in batch.extras else {})},
    )  # fmt: skip
    picture = ready[0].images[0].features
    begins = ready[0].begins if spec.positions == "candidate" else 0
    n = batch.embeds.shape[1]
    first_z = batch.embeds[0] if spec.tokens == "all" else picture
    later_z = own[0] if not spec.remember else picture

    def hook(m: Any, args: Any, out: Tensor) -> Tensor:
        x, ffn = args[0][0], out[0]
        prompt = transcribed(spec, m, x[:n], ffn[:n], first_z, begins)
        step = transcribed(spec, m, x[n:], ffn[n:], later_z, 0)
        return torch.cat([prompt, step])[None]

    handle = plain.family.decoder.layers[1].mlp.register_forward_hook(hook)
    with torch.no_grad():
        hidden = plain.decode(longer, plain.mask(longer, 0), None)
        found = plain.mllm.model.get_output_embeddings()(hidden[0, -2:])
    handle.remove()
    return found[0], found[1]


def test_what_cannot_work_is_refused(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    model = mllm("idefics3")
    with pytest.raises(UsageError, match="experts"):
        engine(mllm("qwen3_5_moe"), "object", "causal")
    with pytest.raises(UsageError, match="no feed-forward layer"):
        engine(model, "object", "paper,window=0.01-0.02")
    words = [Item("a", text="a"), Item("b", text="b")]
    with pytest.raises(UsageError, match="no such image"):
        engine(model, "mixed", "causal").score(query["text"], words)
    with pytest.raises(UsageError, match="supports neither retrace"):
        scorer(model, built_in.get("object"), path="reference", retrace="paper")


@pytest.mark.parametrize(
    "text", [*PRESETS, "causal,alpha=0.2,layers=0.25+0.5", "paper,gamma=0.6,window=0.1-0.9,tokens=query"]
)
def test_a_setting_prints_as_its_name(text: str) -> None:
    assert str(Retrace.parse(text)) == text and Retrace.parse("off") is None


@pytest.mark.parametrize("text", ["papr", "paper,beta=1", "paper,alpha", "off,alpha=1", "paper,tokens=none"])
def test_an_unknown_name_is_refused(text: str) -> None:
    with pytest.raises(UnknownName):
        Retrace.parse(text)


@pytest.mark.parametrize("text", ["paper,alpha=1.5", "paper,alpha=x", "paper,window=0.5", "paper,window=0.6-0.2"])
def test_numbers_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Retrace.parse(text)


def test_the_windows_of_the_papers_at_their_own_depth() -> None:
    from looktwice.score.local.retracer import _places

    assert _places(PRESETS["released-code"], 28) == ([], list(range(6, 16)))
    assert _places(PRESETS["memvr-llava"], 32) == ([], list(range(6, 16)))
    assert _places(PRESETS["memvr-qwen"], 32) == ([], list(range(10, 16)))
    assert _places(PRESETS["causal"], 32) == ([15], [])


def test_padding_adds_nothing_and_the_trigger_reads_ten_logits() -> None:
    torch.manual_seed(0)
    x, z = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    there = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    assert delta(x, z, z, there)[1] == pytest.approx(delta(x[1:], z[1:, :2], z[1:, :2], there[1:, :2])[0], abs=1e-6)
    assert early_entropy(torch.zeros(1, 500)) == pytest.approx(1.0)
    sure = torch.full((1, 500), 0.0)
    sure[0, 3] = 50.0
    assert early_entropy(sure) == pytest.approx(0.0, abs=1e-6)


def test_the_last_layer_is_whole_only_where_retrace_acts_in_it(
    mllm: Get, query: dict[str, Item], candidates: list[Item]
) -> None:
    """Most of what retrace costs hangs on this."""
    rows: list[int] = []
    for spec, whole in (("causal", False), ("causal,layers=1", True), ("paper,window=0.0-1.0", True)):
        fast = engine(mllm("idefics3"), "object", spec)
        assert fast.retracer is not None and fast.retracer.needs_last is whole
        hook = fast.family.decoder.layers[-1].mlp.register_forward_hook(lambda _, args, out: rows.append(out.shape[1]))
        logits(fast, query["image"], candidates[:3])
        hook.remove()
        assert (rows[-1] > 1) is whole


def test_counting_takes_no_more_memory_the_longer_it_runs(
    mllm: Get, query: dict[str, Item], candidates: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Tensor] = []
    mean_over = retracer._mean_over

    def recorded(*args: Any) -> Tensor:
        ratios = mean_over(*args)
        ratios[0] = math.nan if not found else ratios[0]  # a pair that fails
        found.append(ratios.clone())
        return ratios

    monkeypatch.setattr(retracer, "_mean_over", recorded)
    fast = engine(mllm("idefics3"), "object", "causal", batch_size=3)

    def held() -> int:
        values = vars(fast.retracer).values()
        return sum(
            x.numel() if isinstance(x, Tensor) else len(x) for x in values if isinstance(x, (Tensor, list, dict))
        )

    fast.score(query["image"], candidates)
    once, report = held(), fast.stats()["retrace"]
    assert report["delta_to_ffn"] == pytest.approx(float(torch.cat(found).nanmean()), rel=1e-5)
    fast.score(query["image"], candidates)
    assert held() == once and fast.stats()["retrace"]["pairs"] == 2 * report["pairs"] == 14


@pytest.mark.parametrize("mode", ["p-label", "written", "written-expected"])
def test_nobody_else_runs_a_model_that_carries_hooks(
    mllm: Get, query: dict[str, Item], candidates: list[Item], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    judge = scorer(mllm("idefics3"), built_in.get("score"), score_mode=mode, retrace="causal,tokens=candidate")
    acting = retracer.Retracer.acting
    let_in: list[bool] = []
    lock = hook_lock(mllm("idefics3").model)
    assert lock is not hook_lock(mllm("internvl").model), "two models never wait for each other"

    def another() -> bool:
        return lock.acquire(blocking=False) and (lock.release() is None)

    with ThreadPoolExecutor(1) as other:

        @contextmanager
        def watched(self: Any, evidence: Any) -> Iterator[None]:
            with acting(self, evidence):
                let_in.append(other.submit(another).result())
                yield

        monkeypatch.setattr(retracer.Retracer, "acting", watched)
        judge.score(query["text"], candidates[:2])
    assert let_in and not any(let_in)
