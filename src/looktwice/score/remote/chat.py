"""Score pairs by the chat route of a server: the same prompt as here, and the log-probabilities of its labels."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from looktwice.errors import Mismatch, ServerError
from looktwice.score.config import ScorerConfig
from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Piece, Prompt
from looktwice.score.readout.probability import LabelIds
from looktwice.score.remote import labels as server_labels
from looktwice.score.remote import limits, loop
from looktwice.score.remote import probe as probing
from looktwice.score.remote.dialect import Dialect, chosen, token_id
from looktwice.score.remote.endpoint import Endpoint
from looktwice.score.remote.images import ImageEncoder, image_part
from looktwice.score.remote.pool import EndpointPool, PairReply, PairRequest
from looktwice.score.remote.reading import read
from looktwice.score.remote.samples import samples, showing, square
from looktwice.score.remote.scorer import RemoteScorer, clean, refuse_local_settings
from looktwice.score.remote.spending import Spending
from looktwice.types import Item, PairScores

ROUTE = "/chat/completions"


@dataclass
class ProbedServer:
    """What was found out about a server: its facts, and the label ids of each prompt, by its hash."""

    facts: probing.Facts
    ids: dict[str, LabelIds | None] = field(default_factory=dict)


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
    ) -> None:
        super().__init__(pool, prompt, config, spending)
        self.known = known

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
            "shared": "query" if self.prompt.shares_query else "nothing: this prompt shows the candidate first",
            "server": [facts.record() for facts in self._facts],
        }

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> ChatScorer:
        """Return a scorer of the same servers with another prompt."""
        if mode is not None:
            refuse_local_settings(replace(self.config, score_mode=mode))
        other = copy.copy(self)
        other.prompt = built_in.get(prompt)
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
            pieces = self.prompt.lay_out(query, candidate, clean)
            content = self.content(pieces, {"query": query, "candidate": candidate})
            return self.body(known.facts.served.model, known.facts.dialect, ids, content)

        return body

    def jobs(self, query: Item, candidates: Sequence[Item], fit: Sequence[int], route: bytes) -> Iterable[PairRequest]:
        """Yield one request per candidate; see RemoteScorer."""
        for index in fit:

            def make(server: Endpoint, candidate: Item = candidates[index]) -> tuple[str, dict[str, Any]]:
                known = self.known[str(server.address)]
                ids = probing.flat_ids(known.ids[self.prompt.hash])
                pieces = self.prompt.lay_out(query, candidate, clean)
                content = self.content(pieces, {"query": query, "candidate": candidate})
                return ROUTE, self.body(known.facts.served.model, known.facts.dialect, ids, content)

            yield PairRequest((index,), route, make)

    def content(self, pieces: Sequence[Piece], items: Mapping[str, Item]) -> list[dict[str, Any]]:
        """Return a laid-out pair as the parts of a message, in the same order."""
        return chat_content(pieces, items, self.images, self.config.remote.image_ids)

    def body(
        self, model: str, dialect: Dialect, ids: Sequence[int], content: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return the body of a request."""
        return chat_body(self.config, model, dialect, ids, content)

    def read(self, job: PairRequest, reply: PairReply) -> PairScores:
        """Return the score of one pair; see RemoteScorer."""
        known = self.known[str(reply.server.address)]
        ids, dialect = known.ids[self.prompt.hash], known.facts.dialect
        answered = str(reply.body.get("model") or known.facts.answers_as)
        if answered != known.facts.answers_as:
            raise ServerError(
                f"{reply.server.address.base} now answers as {answered}, not {known.facts.answers_as}; run the same "
                "command again when it is back.",
                stops=True,
            )
        listed = dialect.listed(reply.body, probing.flat_ids(ids))
        argmax = token_id(chosen(reply.body)) if dialect.temperature == 0 else None
        values = [label.value for label in self.prompt.labels]
        return read(probing.keys(dialect, self.prompt, ids), values, listed, -1 if argmax is None else argmax)


def chat_content(
    pieces: Sequence[Piece], items: Mapping[str, Item], images: ImageEncoder, with_id: bool
) -> list[dict[str, Any]]:
    """Return pieces as the parts of a message."""
    return [
        {"type": "text", "text": piece.text}
        if piece.text is not None
        else image_part(images.encode(items[str(piece.side)]), with_id)
        for piece in pieces
    ]


def chat_body(
    config: ScorerConfig, model: str, dialect: Dialect, ids: Sequence[int], content: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the body of a chat request."""
    salt = {"cache_salt": config.remote.cache_salt} if config.remote.cache_salt else {}
    messages = [{"role": "user", "content": list(content)}]
    return {"model": model, "messages": messages, **dialect.fields(ids), **salt}


async def connect(server: Endpoint, prompt: Prompt, config: ScorerConfig) -> ProbedServer:
    """Probe one server with a prompt. Raises ServerError if p cannot be read from it."""
    about = await probing.served(server)
    ids = await server_labels.resolve(server, about.model, prompt)
    post, body = _sender(server), _sample_bodies(about.model, prompt, ids, config)
    facts, answer = await probing.probe(about, prompt, ids, body, post)
    await _refuse_thought(server, facts, answer)
    return ProbedServer(facts, {prompt.hash: ids})


async def verify(server: Endpoint, known: ProbedServer, prompt: Prompt, config: ScorerConfig) -> None:
    """Raise ServerError, which stops, if a server runs another model than the one that was probed."""
    about = await probing.served(server)
    ids, facts = known.ids[prompt.hash], known.facts
    body = _sample_bodies(about.model, prompt, ids, config)
    reply = await _sender(server)(body(facts.dialect, (0, 0)))
    if probing.changed(facts, about, facts.dialect.listed(reply, probing.flat_ids(ids))):
        raise ServerError(
            f"{server.address.base} runs another model than when this run began; start the same one again, then run "
            "the same command again.",
            stops=True,
        )


def same_model(known: Sequence[ProbedServer]) -> None:
    """Raise Mismatch if servers that share the work run different models."""
    first = known[0].facts
    for other in known[1:]:
        if other.facts.reading == first.reading and probing.far(first.canary, other.facts.canary):
            raise Mismatch(
                f"The servers answer one and the same pair differently, so {first.served.model} on the first is not "
                f"{other.facts.served.model} on another; name servers of one model."
            )


def _sender(server: Endpoint) -> probing.Post:
    async def post(body: Mapping[str, Any]) -> dict[str, Any]:
        return await server.ask("POST", server.address.base + ROUTE, json.dumps(body).encode())

    return post


def _sample_bodies(model: str, prompt: Prompt, ids: LabelIds | None, config: ScorerConfig) -> probing.MakeBody:
    encoder = ImageEncoder(config.resolution)

    def body(dialect: Dialect, pair: tuple[int, int]) -> Mapping[str, Any]:
        query, candidate = (
            showing(samples()[i], prompt, side) for i, side in zip(pair, ("query", "candidate"), strict=True)
        )
        items = {"query": query, "candidate": candidate}
        content = chat_content(prompt.lay_out(query, candidate, clean), items, encoder, config.remote.image_ids)
        return chat_body(config, model, dialect, probing.flat_ids(ids), content)

    return body


async def _refuse_thought(server: Endpoint, facts: probing.Facts, reply: Mapping[str, Any]) -> None:
    """Raise ServerError if the token that a server names by id is the beginning of a thought."""
    token = token_id(chosen(reply))
    if token is None:
        return
    body = json.dumps({"model": facts.served.model, "tokens": [token]}).encode()
    try:
        text = str((await server.ask("POST", f"{server.address.root}/detokenize", body)).get("prompt", ""))
    except ServerError as error:
        if server.away:
            raise error
        return
    if text.lstrip().startswith("<think"):
        raise probing.thinks()
