"""Score modes against what stock transformers does with the same pair."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from apple import Apple, send

from looktwice.errors import ModelError, UsageError
from looktwice.score.load import scorer
from looktwice.score.local.generated import GeneratedScorer, GenerationState, parse
from looktwice.score.local.listwise import QUESTION, ListwiseScorer
from looktwice.score.local.mllm import Mllm
from looktwice.score.local.reference import ReferenceScorer
from looktwice.score.prompting import built_in, chat
from looktwice.score.prompting.prompt import Piece
from looktwice.score.readout import labels
from looktwice.token_index.sets import demand_tokens
from looktwice.types import Item

FAMILIES = ["idefics3", "qwen2_5_vl", "qwen3_vl", "qwen3_5", *(name for name in tiny_models.MLLMS if "gemma" in name)]
TOLERANCE = 1e-4
Get = Callable[[str], Mllm]


def of(mllm: Mllm, prompt: str, mode: str, **options: Any) -> Any:
    return scorer(mllm, built_in.get(prompt), score_mode=mode, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_p_true_is_one_token_over_the_whole_vocabulary(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str
) -> None:
    model = mllm(family)
    token = labels.single_token("True", model.processor.tokenizer)
    slow = ReferenceScorer(model, built_in.get("match"))
    expected = [float(slow.logits(query["text"], c).softmax(-1)[token]) for c in candidates]
    for path in ("fast", "reference"):
        scores = of(model, "match", "p-true", path=path).score(query["text"], candidates)
        assert scores.p == pytest.approx(expected, abs=TOLERANCE)
    assert not np.allclose(scores.p, of(model, "match", "p-label").score(query["text"], candidates).p, atol=1e-3)


def test_p_true_needs_a_prompt_that_is_answered_so(mllm: Get) -> None:
    with pytest.raises(UsageError, match="p-true needs a prompt"):
        of(mllm("idefics3"), "object", "p-true")
    with pytest.raises(UsageError, match="labels 0 and 1"):
        of(mllm("idefics3"), "match", "digit")


def test_a_digit_is_the_answer_or_a_parse_error(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    model = mllm("idefics3")
    tokenizer = model.processor.tokenizer
    digits = {labels.single_token(digit, tokenizer): float(digit) for digit in "01"}
    digit = of(model, "object", "digit")
    scores = digit.score(query["image"], candidates)
    assert set(scores.status) == {"parse_error"} and np.isnan(scores.p).all(), "a random model does not say 0 or 1"
    logits = torch.full((3, len(tokenizer)), -5.0)
    for row, token in enumerate([*digits, 7]):
        logits[row, token] = 5.0
    read = digit.read(logits, digit.labels)
    assert read.p[:2].tolist() == list(digits.values()) and np.isnan(read.p[2])
    assert read.status == ("ok", "ok", "parse_error")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("prompt", "kind"), [("score", "text"), ("score-mixed", "image")])
def test_going_on_token_by_token_equals_stock_generation(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str, prompt: str, kind: str
) -> None:
    """Texts of several lengths side by side, right-padded, against one model.generate after the other."""
    model = mllm(family)
    fast = of(model, prompt, "p-label")
    slow = ReferenceScorer(model, built_in.get(prompt))
    for which, steps in fast.each(query[kind], candidates, lambda *batch: go_on(GenerationState(fast, *batch))):
        for row, index in enumerate(which):
            inputs = slow.inputs(query[kind], candidates[index])
            options = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": 4, "min_new_tokens": 4}
            out = model.model.generate(
                **inputs, **options, return_dict_in_generate=True, output_logits=True, eos_token_id=None
            )
            assert torch.stack(out.logits, dim=1)[0] == pytest.approx(steps[row], abs=TOLERANCE)


def go_on(answer: GenerationState) -> torch.Tensor:
    steps = [answer.logits]
    for _ in range(3):
        steps.append(answer.write(steps[-1].argmax(-1)[:, None]))
    return torch.stack(steps, dim=1)


def test_padding_that_fades_a_state_is_noticed(
    mllm: Get, query: dict[str, Item], candidates: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of several lengths, padded on the right, in a model whose layers remember what they have run over."""
    fast = of(mllm("qwen3_5"), "score", "p-label")
    found = written_steps(fast, query["text"], candidates)
    monkeypatch.setattr(fast.family, "ignoring_padding", lambda batch: nullcontext())
    faded = written_steps(fast, query["text"], candidates)
    moved = [float((a - b).abs().max()) for a, b in zip(faded, found, strict=True)]
    assert max(moved) > 100 * TOLERANCE and min(moved) <= TOLERANCE, "the longest row of a batch has no padding"


def written_steps(fast: Any, query: Item, candidates: list[Item]) -> list[torch.Tensor]:
    """Logits of every candidate after one written token."""
    out: dict[int, torch.Tensor] = {}
    ids = torch.tensor([[17]])
    go = lambda *batch: GenerationState(fast, *batch).write(ids.expand(len(batch[0]), -1))  # noqa: E731
    for which, after in fast.each(query, candidates, go):
        out |= dict(zip(which, after, strict=True))
    return [out[i] for i in range(len(candidates))]


def test_several_tokens_at_once_equal_one_after_the_other(
    mllm: Get, query: dict[str, Item], candidates: list[Item]
) -> None:
    fast = of(mllm("qwen3_vl"), "score", "p-label")

    def both(*batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.tensor([[17, 30, 21]]).expand(len(batch[0]), -1)
        one = GenerationState(fast, *batch)
        for i in range(3):
            one.write(ids[:, i : i + 1])
        return GenerationState(fast, *batch).write(ids), one.logits

    for _, (together, apart) in fast.each(query["text"], candidates, both):
        assert together == pytest.approx(apart, abs=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_expected_number_by_hand(mllm: Get, query: dict[str, Item], candidates: list[Item], family: str) -> None:
    model = mllm(family)
    slow = ReferenceScorer(model, built_in.get("score"))
    vocabulary = model.processor.tokenizer.get_vocab()
    digits = [vocabulary[str(d)] for d in range(10)]
    scores = of(model, "score", "written-expected").score(query["text"], candidates)
    for candidate, p in zip(candidates, scores.p, strict=True):
        inputs = slow.inputs(query["text"], candidate)
        units = slow.logits(query["text"], candidate)[digits[:2]].double().softmax(-1)
        forced = torch.tensor([[vocabulary["0"], vocabulary["."]]])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], forced], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, 2))
        with torch.no_grad():
            after = model.model(**inputs).logits[0, -1, digits].double().softmax(-1)
        expected = units[1] + units[0] * float(after @ torch.arange(10).double()) / 10
        assert p == pytest.approx(float(expected), abs=TOLERANCE)
    assert set(scores.status) == {"ok"} and len(set(scores.p.tolist())) == len(candidates)


def test_what_is_no_number_has_no_score(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    written = of(mllm("idefics3"), "score", "written")
    assert isinstance(written, GeneratedScorer)
    scores = written.score(query["text"], candidates)
    for which, (texts, _, _) in written.inner.each(query["text"], candidates, written._answers, range(len(candidates))):
        for index, text in zip(which, texts, strict=True):
            number = parse(text)
            status = ("parse_error", True) if number is None else ("ok", False)
            assert (scores.status[index], np.isnan(scores.p[index])) == status
    assert "parse_error" in scores.status and np.isfinite(scores.entropy).any()


def test_what_is_a_number_is_the_score(
    mllm: Get, query: dict[str, Item], candidates: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is made to say 0.7 and to stop."""
    model = mllm("idefics3")
    written = of(model, "score", "written")
    tokenizer = model.processor.tokenizer
    script = [*(labels.single_token(c, tokenizer) for c in "0.7"), tokenizer.eos_token_id]

    def say(hidden: torch.Tensor, part: Any, more: Any = ()) -> torch.Tensor:
        logits = torch.zeros(len(part), len(tokenizer))
        logits[:, script[len(more[0]) if more else 0]] = 9.0
        return logits

    monkeypatch.setattr(written.inner, "project", say)
    scores = written.score(query["text"], candidates)
    assert scores.p.tolist() == pytest.approx([0.7] * len(candidates)) and set(scores.status) == {"ok"}
    script[3] = script[0]  # never ends: 0.7000000000…, then cut off
    monkeypatch.setattr(written.inner, "project", lambda h, p, m=(): say(h, p, [m[0][:3]] if m else ()))
    assert set(written.score(query["text"], candidates).status) == {"parse_error"}


@pytest.mark.parametrize("family", FAMILIES)
def test_choice_against_stock_forwards_in_the_same_orders(
    mllm: Get, query: dict[str, Item], candidates: list[Item], family: str
) -> None:
    model = mllm(family)
    options = [Item(c.id, text=c.text) for c in candidates[:3]]
    choice = of(model, "caption", "choice")
    scores = choice.score(query["image"], options)
    expected = np.zeros(3)
    for order in choice._orders(query["image"], options):
        expected[order] += stock_choice(model, query["image"], [options[i] for i in order])
    assert scores.p == pytest.approx(expected / 3, abs=TOLERANCE)
    assert sum(scores.p) == pytest.approx(1)


def stock_choice(model: Mllm, query: Item, options: list[Item]) -> Any:
    listed = "".join(f"\n{i}:  <{item.text}>" for i, item in enumerate(options, 1))
    tail = f"\nCandidates:{listed}{QUESTION.format('number')}"
    text = chat.render(model.processor, [Piece(None, "Query: "), Piece("query", None), Piece(None, tail)])
    inputs = model.processor(
        text=[text],
        images=[[query.image]],
        add_special_tokens=chat.adds_special_tokens(model.processor, text),
        return_tensors="pt",
    )
    ids = [labels.single_token(str(i + 1), model.processor.tokenizer) for i in range(len(options))]
    with torch.no_grad():
        return model.model(**inputs).logits[0, -1, ids].double().softmax(-1).numpy()


def test_every_option_stands_everywhere_and_the_call_order_does_not_matter(
    mllm: Get, query: dict[str, Item], candidates: list[Item]
) -> None:
    choice = ListwiseScorer(of(mllm("idefics3"), "caption", "p-label"))
    options = [Item(c.id, text=c.text) for c in candidates[:4]]
    places = np.array(choice._orders(query["image"], options))
    assert all(sorted(column) == [0, 1, 2, 3] for column in places.T)
    expected = dict(zip([o.id for o in options], choice.score(query["image"], options).p, strict=True))
    for some in list(permutations(options))[5::9]:
        found = choice.score(query["image"], some).p
        assert found == pytest.approx([expected[o.id] for o in some], abs=TOLERANCE)


def test_choice_of_pictures_and_of_too_many(mllm: Get, query: dict[str, Item], candidates: list[Item]) -> None:
    choice = of(mllm("qwen2_5_vl"), "match", "choice")
    pictures = [replace(c, text=None) for c in candidates[:3]]
    scores = choice.score(query["text"], [*pictures, Item("nothing")])
    assert scores.status == ("ok", "ok", "ok", "missing") and sum(scores.p[:3]) == pytest.approx(1)
    with pytest.raises(UsageError, match="at most 26"):
        choice.score(query["text"], pictures * 9)
    with pytest.raises(ModelError, match=r"positions and the model has 4096.*shortlist"):
        choice.score(query["text"], [Item(f"t{i}", text="word " * 3000) for i in range(3)])


@pytest.mark.parametrize("side", ["candidate", "query"])
def test_a_prior_is_divided_out(mllm: Get, query: dict[str, Item], candidates: list[Item], side: str) -> None:
    model = mllm("idefics3")
    plain = of(model, "match", "p-label")
    scores = plain.score(query["text"], candidates)
    if side == "query":
        null = plain.score(Item("", text="N/A"), candidates).label_logits
    else:
        from PIL import Image

        grey = Item("", image=Image.new("RGB", (224, 224), (128, 128, 128)))
        null = plain.score(query["text"], [grey]).label_logits
    odds = np.exp(scores.label_logits - null)
    expected = odds[:, 1] / odds.sum(-1)
    found = of(model, "match", "p-label", prior=side).score(query["text"], candidates)
    assert found.p == pytest.approx(expected, abs=TOLERANCE) and set(found.status) == {"ok"}
    assert not np.allclose(found.p, scores.p, atol=1e-3)


def test_a_prior_has_visual_tokens_where_its_model_has(mllm: Get) -> None:
    fast, slow = (of(mllm("idefics3"), "match", "p-label", prior="query", path=path) for path in ("fast", "reference"))
    for judge in (fast, fast.with_prompt("object")):
        assert demand_tokens(judge).tokens_info() == fast.inner.tokens_info()
    for judge in (slow, slow.with_prompt("object")):
        with pytest.raises(UsageError, match="reference path"):
            demand_tokens(judge)


@pytest.mark.parametrize(("prompt", "mode"), [("match", "p-true"), ("score", "written"), ("score", "written-expected")])
def test_modes_on_a_device_without_float64(
    mllm: Get, query: dict[str, Item], candidates: list[Item], monkeypatch: pytest.MonkeyPatch, prompt: str, mode: str
) -> None:
    judge = of(mllm("idefics3"), prompt, mode)
    near = judge.score(query["text"], candidates[:2])
    engine = getattr(judge, "inner", judge)
    project = engine.project
    monkeypatch.setattr(engine, "project", lambda *batch: send(project(*(torch.Tensor.cpu(batch[0]), *batch[1:]))))
    write = GenerationState.write
    monkeypatch.setattr(GenerationState, "write", lambda self, ids: write(self, ids.cpu()))
    with Apple():
        far = judge.score(query["text"], candidates[:2])
    assert far.status == near.status
    np.testing.assert_allclose(far.p, near.p, atol=1e-6)
    np.testing.assert_allclose(far.entropy, near.entropy, atol=1e-5)
