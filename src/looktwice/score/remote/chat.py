"""Score pairs by the chat route of a server: the same prompt as here, and the log-probabilities of its labels."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from looktwice.errors import ServerError
from looktwice.score.base import TokenMaker
from looktwice.score.config import ScorerConfig
from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Prompt, showing
from looktwice.score.remote import labels as server_labels
from looktwice.score.remote import limits, loop
from looktwice.score.remote import probe as probing
from looktwice.score.remote.chat_server import ProbedServer, pair_request
from looktwice.score.remote.dialect import chosen, token_id
from looktwice.score.remote.endpoint import Endpoint
from looktwice.score.remote.pool import EndpointPool, PairReply, PairRequest
from looktwice.score.remote.reading import read
from looktwice.score.remote.samples import square
from looktwice.score.remote.scorer import RemoteScorer, refuse_local_settings
from looktwice.score.remote.spending import Spending
from looktwice.types import Item, PairScores

if TYPE_CHECKING:
    from looktwice.score.remote.tokens import TokenSender


class ChatScorer(RemoteScorer):
    """Scores pairs by chat requests. `known` has, by the server's address, what a probe found out."""

    path = "chat"

    def __init__(
        self,
        pool: EndpointPool,
        prompt: Prompt,
        config: ScorerConfig,
        spending: Spending,
        known: dict[str, ProbedServer],
        sender: TokenSender | None = None,
    ) -> None:
        super().__init__(pool, prompt, config, spending)
        self.known = known
        self.sender = sender

    @property
    def labels(self) -> int:  # type: ignore[override]
        """Return the number of the prompt's labels."""
        return len(self.prompt.labels)

    @property
    def revision(self) -> str:
        """Return the hash of what the first server says of its model."""
        return self._facts[0].served.revision

    @property
    def _facts(self) -> list[probing.Facts]:
        return [one.facts for one in self.known.values()]

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for a run's manifest; see Scorer."""
        reading = sorted({facts.reading for facts in self._facts})
        return {
            **super().settings(),
            "reading": ", ".join(reading),
            **({} if self.sender is None else self.sender.settings()),
            "shared": "query" if self.prompt.shares_query else "nothing: this prompt shows the candidate first",
            "server": [facts.record() for facts in self._facts],
        }

    def tokens(self) -> TokenMaker | None:
        """Return the maker of the tokens that are sent in place of images, if any; see Scorer."""
        return self.sender

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> ChatScorer:
        """Return a scorer of the same servers with another prompt."""
        if mode is not None:
            refuse_local_settings(replace(self.config, score_mode=mode))
        other = copy.copy(self)
        other.prompt = built_in.get(prompt)
        other.sender = None if self.sender is None else self.sender.with_prompt(other.prompt)
        for server in self.pool.servers:
            if (known := self.known.get(str(server.address))) is not None and other.prompt.hash not in known.ids:
                ids = loop.wait(server_labels.resolve(server, known.facts.served.model, other.prompt))
                known.ids[other.prompt.hash] = ids
        return other

    def probe(self) -> list[dict[str, Any]]:
        """Return the facts of each server, with its largest image and the blocks of its prefix cache."""
        found = []
        for server in self.pool.servers:
            if (known := self.known.get(str(server.address))) is not None:
                more = loop.wait(limits.more_facts(server, known.facts, self._square(known)))
                found.append({"server": str(server.address), **known.facts.record(), **more})
        return found

    def _square(self, known: ProbedServer) -> limits.SideToBody:
        """Return a function from a side in pixels to a request that shows a square of this size as the candidate."""
        ids = probing.flat_ids(known.ids[self.prompt.hash])

        def body(side: int) -> Mapping[str, Any]:
            query, candidate = (
                showing(square(64), self.prompt, "query"),
                showing(square(side), self.prompt, "candidate"),
            )
            model, dialect = known.facts.served.model, known.facts.dialect
            return pair_request(self.config, model, dialect, ids, self.prompt, (query, candidate), self.images)[1]

        return body

    def jobs(self, query: Item, candidates: Sequence[Item], fit: Sequence[int], route: bytes) -> Iterable[PairRequest]:
        """Yield one request per candidate; see RemoteScorer."""
        for index in fit:

            def make(
                server: Endpoint, pair: tuple[Item, Item] = (query, candidates[index])
            ) -> tuple[str, dict[str, Any]]:
                known = self.known[str(server.address)]
                ids = probing.flat_ids(known.ids[self.prompt.hash])
                model, dialect = known.facts.served.model, known.facts.dialect
                return pair_request(self.config, model, dialect, ids, self.prompt, pair, self.images, self.sender)

            yield PairRequest((index,), route, make)

    def read(self, job: PairRequest, reply: PairReply) -> PairScores:
        """Return the score of one pair; see RemoteScorer."""
        known = self.known[str(reply.server.address)]
        ids, dialect = known.ids[self.prompt.hash], known.facts.dialect
        answered = str(reply.body.get("model") or known.facts.answers_as)[: probing.LONGEST_NAME]
        if answered != known.facts.answers_as:
            raise ServerError(
                f"{reply.server.address.base} now answers as {answered}, not {known.facts.answers_as}; run the same "
                f"command again when {known.facts.answers_as} is back.",
                stops=True,
            )
        listed = dialect.listed(reply.body, probing.flat_ids(ids))
        argmax = token_id(chosen(reply.body)) if dialect.temperature == 0 else None
        values = [label.value for label in self.prompt.labels]
        return read(probing.keys(dialect, self.prompt, ids), values, listed, -1 if argmax is None else argmax)
