"""Score pairs by routes whose answers are probabilities already: re-rankers and decisions."""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from looktwice.errors import ServerError, UsageError
from looktwice.score.config import ScorerConfig
from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Prompt, showing
from looktwice.score.readout.probability import assemble, blank, scatter
from looktwice.score.remote import probe as probing
from looktwice.score.remote.endpoint import Endpoint
from looktwice.score.remote.pool import EndpointPool, PairReply, PairRequest
from looktwice.score.remote.samples import sample_pair
from looktwice.score.remote.scorer import RemoteScorer
from looktwice.score.remote.spending import Spending
from looktwice.types import Item, PairScores

MOVED = 0.1  # by which p of the same pair may differ before it counts as another model's

Form: TypeAlias = str
"""One of the shapes of a request that servers of a kind take."""

DirectAnswer: TypeAlias = "float | ServerError"


@dataclass(frozen=True, slots=True)
class DirectFacts:
    """What a probe found: the shape that the server takes, and its p of a pair that is alike and one that is not."""

    served: probing.ServedModel
    form: Form
    alike: float
    apart: float

    def record(self) -> dict[str, Any]:
        """Return the facts for a manifest."""
        served = self.served
        return {
            "model": served.model,
            "engine": served.engine,
            "reading": "the server's p",
            "form": self.form,
            "self_pair_first": self.alike >= self.apart,
        }


class DirectScorer(RemoteScorer):
    """A scorer that takes the server's own p. A subclass makes requests, in one of `forms`, and reads answers."""

    forms: tuple[Form, ...] = ("",)
    chunk = 1
    """Most candidates of one request."""

    def __init__(
        self,
        pool: EndpointPool,
        prompt: Prompt,
        config: ScorerConfig,
        spending: Spending,
        known: dict[str, DirectFacts],
    ) -> None:
        super().__init__(pool, prompt, config, spending)
        self.known = known

    @abstractmethod
    def body(self, form: Form, model: str, query: Item, candidates: Sequence[Item]) -> tuple[str, dict[str, Any]]:
        """Return path and body of a request for some candidates."""

    @abstractmethod
    def answers(self, reply: Mapping[str, Any], n: int) -> Sequence[DirectAnswer]:
        """Return p of n candidates, in their order, or why there is none."""

    def off_masses(self, reply: Mapping[str, Any], n: int) -> Sequence[float]:
        """Return the off-mass of n candidates, NaN where the server does not say."""
        return [np.nan] * n

    @property
    def revision(self) -> str:
        """Return the hash of what the first server says of its model."""
        return next(iter(self.known.values())).served.revision

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for a run's manifest; see Scorer."""
        return {**super().settings(), "server": [facts.record() for facts in self.known.values()]}

    def probe(self) -> list[dict[str, Any]]:
        """Return the facts of each server."""
        return [{"server": name, **facts.record()} for name, facts in self.known.items()]

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> DirectScorer:
        """Return a scorer for pairs of another kind. Raises UsageError for a second question."""
        if mode is not None:
            raise UsageError(
                f"A server's {self.path} route can ask only one question; use --ties default or coarse, which ask no "
                "second one."
            )
        other = copy.copy(self)
        other.prompt = built_in.get(prompt)
        return other

    def jobs(self, query: Item, candidates: Sequence[Item], fit: Sequence[int], route: bytes) -> Iterable[PairRequest]:
        """Yield requests of up to `chunk` candidates; see RemoteScorer."""
        asked = showing(query, self.prompt, "query")
        for start in range(0, len(fit), self.chunk):
            rows = tuple(fit[start : start + self.chunk])

            def make(server: Endpoint, rows: Sequence[int] = rows) -> tuple[str, dict[str, Any]]:
                facts = self.known[str(server.address)]
                shown = [showing(candidates[row], self.prompt, "candidate") for row in rows]
                return self.body(facts.form, facts.served.model, asked, shown)

            yield PairRequest(rows, route, make)

    def read(self, job: PairRequest, reply: PairReply) -> PairScores:
        """Return the scores of a request's candidates; see RemoteScorer."""
        found = self.answers(reply.body, len(job.rows))
        good = [i for i, one in enumerate(found) if not isinstance(one, ServerError)]
        for one in found:
            if isinstance(one, ServerError) and len(found) == 1:
                raise one
        if not good:
            return blank(len(found), 2, "failed")
        off = self.off_masses(reply.body, len(found))
        rows = as_scores([float(found[i]) for i in good], [off[i] for i in good])  # type: ignore[arg-type]
        return scatter(len(found), 2, [(good, rows)], "failed")

    # --- before anything depends on a server ----------------------------------------------------------------------

    async def connect(self, server: Endpoint) -> DirectFacts:
        """Try one server with two pairs, in each form that servers of this kind take. Raises ServerError."""
        about = await probing.served(server)
        refused: ServerError | None = None
        for form in self.forms:
            try:
                alike, apart = [await self._sample(server, about.model, form, pair) for pair in ((0, 0), (0, 1))]
            except ServerError as error:
                if error.status not in (400, 422):
                    raise
                refused = refused or error
                continue
            return DirectFacts(about, form, alike, apart)
        assert refused is not None
        raise refused

    async def verify(self, server: Endpoint, facts: DirectFacts) -> None:
        """Raise ServerError, which stops, if a server runs another model than the one that was probed."""
        about = await probing.served(server)
        now = await self._sample(server, about.model, facts.form, (0, 1))
        if about.revision != facts.served.revision or abs(now - facts.apart) > MOVED:
            raise probing.moved(server)

    async def _sample(self, server: Endpoint, model: str, form: Form, pair: tuple[int, int]) -> float:
        query, candidate = sample_pair(self.prompt, pair)
        path, body = self.body(form, model, query, [candidate])
        reply = await server.ask("POST", server.address.base + path, json.dumps(body).encode())
        self.spending.learn(reply)
        (found,) = self.answers(reply, 1)
        if isinstance(found, ServerError):
            raise found
        return found


def as_scores(p: Sequence[float], off: Sequence[float]) -> PairScores:
    """Return scores of probabilities; their label logits are log(1 − p) and log(p)."""
    values = np.asarray(p, dtype=np.float64)
    with np.errstate(divide="ignore"):
        logits = np.log(np.stack([1 - values, values], axis=1))
    unknown = np.full(len(values), np.nan)
    return assemble(logits, unknown, np.asarray(off, dtype=np.float64), np.full(len(values), -1), (0.0, 1.0))


def probability(value: object, what: str) -> DirectAnswer:
    """Return a server's number if it is a probability, or why it is none. A number outside [0, 1] stops the run."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return ServerError(f"The server gave no {what} for this pair.")
    if not -1e-6 <= value <= 1 + 1e-6:
        raise ServerError(
            f"The server's {what} {str(value)[:20]} is not a probability; make it give scores between 0 and 1.",
            stops=True,
        )
    return min(1.0, max(0.0, float(value)))
