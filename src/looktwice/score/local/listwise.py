"""Score all candidates in one numbered list; a candidate's score is the probability of its number.

The released code of 2602.22278 asks this way for image → text and for SugarCrepe, once and in one order. The place of
an option changes the answer, so every call here asks in several orders and averages. The candidates are shuffled with a
seed, then rotated, so that each stands in as many different places as there are orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

from looktwice.errors import LooktwiceError, UsageError
from looktwice.score import fingerprint
from looktwice.score.base import Scorer, ScorerWrapper
from looktwice.score.local import batches, common
from looktwice.score.local.engine import Engine
from looktwice.score.local.rows import Pair
from looktwice.score.prompting.prompt import Piece, Prompt, Side, joined, parts_of
from looktwice.score.readout import labels, modes, probability
from looktwice.types import Item, PairScores, VisualTokens, has_words

MOST = 26  # options: one letter names each, and a name must be one token
ORDERS = 4
QUESTION = "\nWhich candidate fits the query best? Reply with its {} only."


class ListwiseScorer(ScorerWrapper):
    """Makes the model choose among all candidates of a call; p sums to 1 over them.

    Scores of different calls cannot be compared. `orders` is the number of orders asked, at most one per candidate.
    """

    inner: Engine

    def __init__(self, inner: Engine, orders: int = ORDERS, seed: int = 0) -> None:
        super().__init__(inner)
        self.listwise = True  # a score depends on the others of its call, so it must not be cached
        self.orders = orders
        self.seed = seed

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score all candidates together; see Scorer.

        Raises UsageError for more candidates than option names, ModelError if the model has too few positions.
        """
        if len(candidates) > MOST:
            raise UsageError(
                f"The mode choice shows at most {MOST} candidates at once, not {len(candidates)}; use "
                f"--shortlist {MOST} or fewer."
            )
        seen = self._visual_tokens(query, candidates)
        fit = [i for i, (item, tokens) in enumerate(zip(candidates, seen[1:], strict=True)) if _shows(item, tokens)]
        lost = [i for i, tokens in enumerate(seen[1:]) if isinstance(tokens, LooktwiceError)]
        parts: list[tuple[Sequence[int], PairScores]] = [(lost, probability.blank(len(lost), 2, "failed"))]
        if fit:
            parts.append(
                (fit, self._choose(query, [candidates[i] for i in fit], [seen[0], *(seen[1 + i] for i in fit)]))
            )
        return probability.scatter(len(candidates), 2, parts, "missing")

    def settings(self) -> Mapping[str, Any]:
        """See Scorer."""
        own = {"mode": modes.CHOICE, "orders": self.orders, "seed": self.seed, "prompt": "choice"}
        return {**self.inner.settings(), **own, "prompt_hash": None, "shared": "query"}

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> Scorer:
        """See Scorer. A choice has its own prompt, so only another mode gives another scorer."""
        return self if mode in (None, modes.CHOICE) else self.inner.with_prompt(prompt, mode)

    # --- one call -------------------------------------------------------------------------------------------------

    def _visual_tokens(self, query: Item, candidates: Sequence[Item]) -> list[VisualTokens | LooktwiceError | None]:
        items = [query, *candidates]
        shown = [i for i, item in enumerate(items) if item.image is not None or item.tokens is not None]
        found: list[VisualTokens | LooktwiceError | None] = [None] * len(items)
        for i, tokens in zip(shown, self.inner.tower.visual_tokens([items[i] for i in shown], len(shown)), strict=True):
            found[i] = tokens
            if isinstance(tokens, LooktwiceError):
                if i == 0:
                    raise tokens
                common.report(items[i], tokens)
        return found

    def _choose(
        self, query: Item, candidates: Sequence[Item], seen: Sequence[VisualTokens | LooktwiceError | None]
    ) -> PairScores:
        names = (
            [str(i + 1) for i in range(len(candidates))] if len(candidates) < 10 else list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        )
        ids = probability.LabelIds(
            tuple((self._token(name),) for name in names[: len(candidates)]), (0.0,) * len(candidates)
        )
        orders = self._orders(query, candidates)
        ready = [self._row(i, query, candidates, order, names, seen) for i, order in enumerate(orders)]
        shares = np.zeros((len(orders), len(candidates)))
        entropy, off_mass, argmax = np.zeros(len(orders)), np.zeros(len(orders)), np.zeros(len(orders), np.int64)
        for which, logits in self.inner.batches(ready, self.inner.run):
            read = probability.read(logits, ids)
            weights = np.exp(read.label_logits - read.label_logits.max(-1, keepdims=True))
            entropy[which], off_mass[which], argmax[which] = read.entropy, read.off_mass, read.argmax_id
            for row, share in zip(which, weights / weights.sum(-1, keepdims=True), strict=True):
                shares[row, orders[row]] = share
        return _averaged(shares.mean(0), entropy.mean(), off_mass.mean(), int(argmax[0]))

    def _orders(self, query: Item, candidates: Sequence[Item]) -> list[list[int]]:
        """Return orders that do not depend on the order of the call."""
        base = sorted(range(len(candidates)), key=lambda i: (_content(candidates[i]), candidates[i].id))
        Random(f"{self.seed} {_content(query).hex()}").shuffle(base)
        count = min(self.orders, len(base))
        starts = [i * len(base) // count for i in range(count)]
        return [base[start:] + base[:start] for start in starts]

    def _row(
        self,
        index: int,
        query: Item,
        candidates: Sequence[Item],
        order: Sequence[int],
        names: Sequence[str],
        seen: Sequence[VisualTokens | LooktwiceError | None],
    ) -> Pair:
        head = [Piece(None, "Query: "), *self._pieces("query", query), Piece(None, "\nCandidates:")]
        options: list[Piece] = []
        for name, i in zip(names, order, strict=False):
            options += [Piece(None, f"\n{name}: "), *self._pieces("candidate", candidates[i])]
        ask = Piece(None, QUESTION.format("number" if names[0] == "1" else "letter"))
        pieces = joined([*head, *options, ask])
        shown = [tokens for tokens in (seen[0], *(seen[1 + i] for i in order)) if isinstance(tokens, VisualTokens)]
        row = self.inner.family.expand_placeholders(self.inner.encode(pieces), [tokens.layout for tokens in shown])
        if (problem := self.inner.too_long(row)) is not None:
            raise problem
        sides = tuple(str(piece.side) for piece in pieces if piece.text is None)
        stand_ins = [
            self.inner.encode(joined([*head, Piece(None, f"\n1: {text}"), ask])) for text in ("a", "7")
        ]  # two stand-ins share only what stands before the first option
        own = [tokens.layout for tokens in shown[: sides.count("query")]]
        first, second = (self.inner.family.expand_placeholders(ids, own) for ids in stand_ins)
        begins = batches.in_common([first, second, row], len(row.ids) - 1)
        return Pair(index, row, tuple(shown), sides, begins)

    def _pieces(self, side: Side, item: Item) -> list[Piece]:
        has = parts_of(side, item)
        image = [Piece(side, None)] if f"{side}.image" in has else []
        return image + ([Piece(None, f" <{self.inner.clean(item.text or '')}>")] if f"{side}.text" in has else [])

    def _token(self, name: str) -> int:
        token = labels.single_token(name, self.inner.mllm.processor.tokenizer)
        if token is None:
            raise UsageError(f"This model's tokenizer has no single token for the option {name!r}; use another mode.")
        return token


def _content(item: Item) -> bytes:
    """Return what identifies an item, shown as pixels or tokens alike: a codec must not change the orders."""
    return fingerprint.unread(item.sha256, item.text) if item.sha256 is not None else fingerprint.fingerprint(item)


def _shows(item: Item, tokens: VisualTokens | LooktwiceError | None) -> bool:
    return isinstance(tokens, VisualTokens) or (tokens is None and has_words(item.text))


def _averaged(p: Any, entropy: float, off_mass: float, argmax: int) -> PairScores:
    n = len(p)
    ok = bool(np.isfinite(p).all())
    with np.errstate(divide="ignore"):
        logits = np.stack([np.log1p(-np.minimum(p, 1.0)), np.log(p)], axis=-1).astype(np.float32)
    if not ok:
        return probability.blank(n, 2, "failed")
    return PairScores(
        p=p.astype(np.float32),
        label_logits=logits,
        entropy=np.full(n, entropy, np.float32),
        off_mass=np.full(n, off_mass, np.float32),
        argmax_id=np.full(n, argmax, np.int64),
        status=tuple("ok" for _ in range(n)),
    )
