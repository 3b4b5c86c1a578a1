"""Count tokens and money, and refuse work that would cost more than was allowed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from looktwice.errors import UsageError
from looktwice.score.remote.replies import tokens_read

MILLION = 1_000_000
SURE = 200
"""Pairs whose tokens tell those of the others: until then, the rest of a planned run is estimated again and again."""

log = logging.getLogger(__name__)


class Spending:
    """The tokens that servers have read for one scorer. `price` is money per million of them; `most` limits the sum."""

    def __init__(self, price: float | None, most: float | None) -> None:
        self.price, self.most = price, most
        self.tokens = 0
        self.pairs = 0
        self.planned = 0
        self.per_pair: float | None = None
        self._lock = threading.Lock()

    def estimate(self, pairs: int) -> tuple[int, float | None] | None:
        """Return the tokens and the money of so many pairs, from those so far; None if no server counts tokens."""
        if self.per_pair is None:
            return None
        tokens = round(self.per_pair * pairs)
        return tokens, None if self.price is None else tokens * self.price / MILLION

    def plan(self, pairs: int) -> None:
        """Tell what a run of at most so many pairs takes. Raises UsageError as `demand` does."""
        self.planned = pairs
        if (about := self.estimate(pairs)) is not None:
            money = "" if about[1] is None else f" ({about[1]:.4g} of money)"
            log.info(
                "Up to %s pairs: about %s tokens%s, if each is as long as the probe's pair of small images.",
                f"{pairs:,}",
                f"{about[0]:,}",
                money,
            )
        self.demand(0)

    def learn(self, reply: Mapping[str, Any]) -> None:
        """Take the tokens of a probe's answer as those of a pair, until pairs are answered."""
        tokens = tokens_read(reply)
        if tokens is not None and not self.pairs:
            self.per_pair = float(tokens)

    def demand(self, pairs: int) -> None:
        """Raise UsageError if so many pairs more, or all that are planned, would cost too much or an unknown sum."""
        if self.most is None:
            return
        if self.pairs < SURE:
            pairs = max(pairs, self.planned - self.pairs)
        more = self.estimate(pairs)
        if more is None:
            raise UsageError("This server does not count tokens, so --max-cost cannot be kept; leave it out.")
        if self.cost + (more[1] or 0.0) > self.most:
            raise UsageError(
                f"The next {pairs} pairs would cost about {more[1]:.4g} on top of {self.cost:.4g} spent, more "
                f"than --max-cost {self.most:g}; raise it. Scores in a --score-cache or beside a --run are kept."
            )

    @property
    def cost(self) -> float:
        """Return the money spent."""
        return self.tokens * (self.price or 0.0) / MILLION

    def add(self, reply: Mapping[str, Any], pairs: int) -> None:
        """Count the tokens that an answer for so many pairs reports."""
        tokens = tokens_read(reply)
        if tokens is None:
            return
        with self._lock:
            self.tokens += tokens
            self.pairs += pairs
            self.per_pair = self.tokens / self.pairs

    def record(self) -> dict[str, Any]:
        """Return tokens and money for a run's manifest."""
        money = {} if self.price is None else {"cost": round(self.cost, 6)}
        return {"prompt_tokens": self.tokens, **money}
