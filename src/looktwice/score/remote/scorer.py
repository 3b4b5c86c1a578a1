"""Score pairs by requests to servers: what the scorers of all kinds of servers share."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from looktwice.errors import ServerError, UsageError
from looktwice.score.base import Scorer
from looktwice.score.config import ScorerConfig
from looktwice.score.fingerprint import fingerprint
from looktwice.score.local import common
from looktwice.score.prompting.prompt import Prompt
from looktwice.score.readout import modes, probability
from looktwice.score.remote.images import ImageEncoder
from looktwice.score.remote.pool import EndpointPool, PairReply, PairRequest
from looktwice.score.remote.spending import Spending
from looktwice.types import Item, PairScores


class RemoteScorer(Scorer):
    """A scorer whose pairs are requests. A subclass makes the jobs of one query, and reads an answer."""

    path = "remote"
    labels = 2
    """How many labels a row of its scores has."""

    def __init__(self, pool: EndpointPool, prompt: Prompt, config: ScorerConfig, spending: Spending) -> None:
        self.pool, self.prompt, self.config, self.spending = pool, prompt, config, spending
        self.images = ImageEncoder(config.resolution)
        self._status: Counter[str] = Counter()
        self._lock = threading.Lock()

    @abstractmethod
    def jobs(self, query: Item, candidates: Sequence[Item], fit: Sequence[int], route: bytes) -> Iterable[PairRequest]:
        """Yield the requests for the candidates at `fit`."""

    @abstractmethod
    def read(self, job: PairRequest, reply: PairReply) -> PairScores:
        """Return one row for each of the job's candidates. Raises ServerError for an answer that holds none."""

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score every candidate against one query; see Scorer."""
        return self._joined(len(candidates), list(self.score_parts(query, candidates)))

    def score_parts(self, query: Item, candidates: Sequence[Item]) -> Iterator[tuple[Sequence[int], PairScores]]:
        """Yield scores as the server gives them; see Scorer."""
        for _, rows, part in self._stream([(query, candidates)]):
            yield rows, part

    def score_many(self, requests: Sequence[tuple[Item, Sequence[Item]]]) -> list[PairScores]:
        """Score several requests, in order; the window stays full, and the pairs of a query stay together."""
        parts: list[list[tuple[Sequence[int], PairScores]]] = [[] for _ in requests]
        for which, rows, part in self._stream(requests):
            parts[which].append((rows, part))
        return [self._joined(len(c), own) for (_, c), own in zip(requests, parts, strict=True)]

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for a run's manifest; see Scorer."""
        return {
            "mllm": self.name,
            "revision": self.revision,
            "preprocessing": self.images.regime,
            "prompt": self.prompt.name,
            "prompt_hash": self.prompt.hash,
            "dtype": "the server's",
            "device": "server",
            "path": self.path,
            "mode": modes.P_LABEL,
        }

    @property
    @abstractmethod
    def revision(self) -> str:
        """Return what changes when the server runs another model."""

    @property
    def name(self) -> str:
        """Return the addresses, with models."""
        return ",".join(sorted(str(server.address) for server in self.pool.servers))

    def probe(self) -> list[dict[str, Any]]:
        """Return, for each server that was probed, its address and what was found out."""
        return [{"server": str(endpoint.address)} for endpoint in self.pool.servers]

    def stats(self) -> Mapping[str, Any]:
        """Return counts of requests, tokens, money and statuses."""
        return {"requests": {**self.pool.counts(), **self.spending.record(), **self._status}}

    # --- one stream of requests ------------------------------------------------------------------------------------

    def _stream(
        self, requests: Sequence[tuple[Item, Sequence[Item]]]
    ) -> Iterator[tuple[int, Sequence[int], PairScores]]:
        """Yield (number of the request, its rows, their scores) as answers come."""
        fits = [common.showable(self.prompt, query, candidates) for query, candidates in requests]
        self.spending.demand(sum(map(len, fits)))
        for job, reply in self.pool.run(self._all(requests, fits)):
            part = self._scored(job, reply, requests[job.request][1])
            with self._lock:
                self._status.update(part.status)
            yield job.request, job.rows, part

    def _all(
        self, requests: Sequence[tuple[Item, Sequence[Item]]], fits: Sequence[Sequence[int]]
    ) -> Iterator[PairRequest]:
        for number, ((query, candidates), fit) in enumerate(zip(requests, fits, strict=True)):
            for job in self.jobs(query, candidates, fit, fingerprint(query)) if fit else ():
                yield PairRequest(job.rows, job.route, job.make, number)

    def _scored(self, job: PairRequest, reply: PairReply | ServerError, candidates: Sequence[Item]) -> PairScores:
        try:
            if isinstance(reply, ServerError):
                raise reply
            self.spending.add(reply.body, len(job.rows))
            return self.read(job, reply)
        except ServerError as error:
            if error.stops:
                raise
            for row in job.rows:
                common.report(candidates[row], error)
            return probability.blank(len(job.rows), self.labels, "failed")

    def _joined(self, n: int, parts: Sequence[tuple[Sequence[int], PairScores]]) -> PairScores:
        return probability.scatter(n, self.labels, parts, "missing")


def refuse_local_settings(config: ScorerConfig, keeps: Sequence[str] = ()) -> None:
    """Raise UsageError for settings that only models of this process have."""
    local = {"retrace", "prior", "as_released", "max_tiles", "batch_size", "score_mode", "revision"} - set(keeps)
    if given := sorted(local & config.changed().keys() - {"device", "dtype"}):
        named = ", ".join("--" + name.replace("_", "-").replace("as-released", "repetition-penalty") for name in given)
        raise UsageError(f"A model on a server cannot be given {named}; leave it out, or load the model here.")
