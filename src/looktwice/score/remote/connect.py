"""Connect to the servers that a scorer's name lists, and return the scorer of their kind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from looktwice.errors import ServerError, UsageError
from looktwice.score.base import Scorer
from looktwice.score.config import ScorerConfig
from looktwice.score.prompting.prompt import Prompt
from looktwice.score.remote import address, chat, chat_server, keys, loop
from looktwice.score.remote.config import DEFAULT
from looktwice.score.remote.decisions import DecisionsScorer
from looktwice.score.remote.direct import DirectFacts, DirectScorer
from looktwice.score.remote.endpoint import Endpoint
from looktwice.score.remote.pool import EndpointPool, Verify
from looktwice.score.remote.rerank import RerankScorer
from looktwice.score.remote.scorer import RemoteScorer, refuse_local_settings
from looktwice.score.remote.spending import Spending
from looktwice.score.remote.systemone import SystemOneScorer

if TYPE_CHECKING:
    from looktwice.score.remote.tokens import TokenSender

log = logging.getLogger(__name__)


DIRECT: dict[str, type[DirectScorer]] = {
    "rerank": RerankScorer,
    "decisions": DecisionsScorer,
    "systemone": SystemOneScorer,
}
P = TypeVar("P")


def load(name: str, prompt: Prompt, config: ScorerConfig) -> Scorer:
    """Return the scorer of the servers in `name`, probed with `prompt`.

    Raises UsageError for a wrong address, key or setting, ServerError if no server can be used.
    """
    refuse_local_settings(config)
    places = address.parse(name)
    key = keys.find(config.remote.key_file)
    servers = [Endpoint(place, config.remote, key) for place in places]
    kind = places[0].kind
    return _chat(servers, prompt, config) if kind == "chat" else _direct(DIRECT[kind], servers, prompt, config)


def _chat(servers: Sequence[Endpoint], prompt: Prompt, config: ScorerConfig) -> Scorer:
    known = _connected(servers, lambda server: chat_server.connect(server, prompt, config))
    chat_server.same_model(list(known.values()))

    async def verify(server: Endpoint) -> None:
        name = str(server.address)
        if name in known:
            await chat_server.verify(server, known[name], prompt, config)
        else:
            known[name] = await chat_server.connect(server, prompt, config)
            chat_server.same_model(list(known.values()))

    spending = Spending(config.remote.price, config.remote.max_cost)
    for one in known.values():
        if one.facts.prompt_tokens is not None:
            spending.per_pair = float(one.facts.prompt_tokens)
    sender = _sender(prompt, config)
    if sender is not None:
        for server in servers:
            if str(server.address) in known:
                loop.wait(chat_server.check_tokens(server, known[str(server.address)], prompt, config, sender))
    scorer = chat.ChatScorer(_pool(servers, verify, known), prompt, config, spending, known, sender)
    return _planned(scorer, config)


def _direct(kind: type[DirectScorer], servers: Sequence[Endpoint], prompt: Prompt, config: ScorerConfig) -> Scorer:
    if config.remote.tokens_from is not None:
        raise UsageError("--tokens-from needs a chat server, whose address begins with http; leave it out.")
    known: dict[str, DirectFacts] = {}

    async def verify(server: Endpoint) -> None:
        name = str(server.address)
        if name in known:
            await scorer.verify(server, known[name])
        else:
            known[name] = await scorer.connect(server)

    spending = Spending(config.remote.price, config.remote.max_cost)
    scorer = kind(EndpointPool(servers, verify), prompt, config, spending, known)
    known |= _connected(servers, scorer.connect)
    scorer.pool = _pool(servers, verify, known)
    return _planned(scorer, config)


def _planned(scorer: RemoteScorer, config: ScorerConfig) -> Scorer:
    if config.remote.pairs is not None:
        scorer.spending.plan(config.remote.pairs)
    return scorer


def _pool(servers: Sequence[Endpoint], verify: Verify, known: Mapping[str, object]) -> EndpointPool:
    pool = EndpointPool(servers, verify)
    pool.checked(server for server in servers if str(server.address) in known)
    return pool


def _connected(servers: Sequence[Endpoint], connect: Callable[[Endpoint], Awaitable[P]]) -> dict[str, P]:
    """Return what a probe found, by address, of the servers that answer.

    Raises the error of a refusal, or of the first server if none answers.
    """

    async def all_of_them() -> list[P | BaseException]:
        return await asyncio.gather(*map(connect, servers), return_exceptions=True)

    results = list(zip(servers, loop.wait(all_of_them()), strict=True))
    found = {str(server.address): one for server, one in results if not isinstance(one, BaseException)}
    for server, one in results:
        if isinstance(one, BaseException):
            if not found or not (isinstance(one, ServerError) and server.away):
                raise one
            log.warning("%s The others go on without it.", one)
    return found


def _sender(prompt: Prompt, config: ScorerConfig) -> TokenSender | None:
    """Return what sends the visual tokens of the local model that the settings name, if they name one."""
    if config.remote.tokens_from is None:
        return None
    from looktwice.score.load import load_scorer
    from looktwice.score.local.engine import Engine
    from looktwice.score.remote.tokens import TokenSender

    local = replace(config, remote=DEFAULT, path="fast")
    engine = load_scorer(config.remote.tokens_from, prompt=prompt, config=local)
    assert isinstance(engine, Engine)  # the path "fast" insists on it, and other modes were refused
    return TokenSender(engine)
