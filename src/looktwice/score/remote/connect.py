"""Connect to the servers that a scorer's name lists, and return the scorer of their kind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from looktwice.errors import LooktwiceError, ServerError
from looktwice.score.base import Scorer
from looktwice.score.config import ScorerConfig
from looktwice.score.prompting.prompt import Prompt
from looktwice.score.remote import address, chat, keys, loop
from looktwice.score.remote.endpoint import Endpoint
from looktwice.score.remote.pool import EndpointPool
from looktwice.score.remote.scorer import refuse_local_settings
from looktwice.score.remote.spending import Spending

log = logging.getLogger(__name__)


def load(name: str, prompt: Prompt, config: ScorerConfig) -> Scorer:
    """Return the scorer of the servers in `name`, probed with `prompt`.

    Raises UsageError for a wrong address, key or setting, ServerError if no server can be used.
    """
    refuse_local_settings(config)
    places = address.parse(name)
    key = keys.find(config.remote.key_file)
    servers = [Endpoint(place, config.remote, key) for place in places]
    return _chat(servers, prompt, config)


def _chat(servers: Sequence[Endpoint], prompt: Prompt, config: ScorerConfig) -> Scorer:
    found = loop.wait(_connected(servers, prompt, config))
    known = {str(server.address): one for server, one in found}
    chat.same_model([one for _, one in found])

    async def verify(server: Endpoint) -> None:
        name = str(server.address)
        if name in known:
            await chat.verify(server, known[name], prompt, config)
        else:
            known[name] = await chat.connect(server, prompt, config)
            chat.same_model(list(known.values()))

    spending = Spending(config.remote.price, config.remote.max_cost)
    for _, one in found:
        if one.facts.prompt_tokens is not None:
            spending.per_request = float(one.facts.prompt_tokens)
    pool = EndpointPool(servers, verify)
    pool.checked(server for server, _ in found)
    return chat.ChatScorer(pool, prompt, config, spending, known)


async def _connected(
    servers: Sequence[Endpoint], prompt: Prompt, config: ScorerConfig
) -> list[tuple[Endpoint, chat.ProbedServer]]:
    """Return the servers that answer, with what a probe found. Raises the error of a refusal, or if none answers."""
    results = await asyncio.gather(*(chat.connect(s, prompt, config) for s in servers), return_exceptions=True)
    found = [(s, one) for s, one in zip(servers, results, strict=True) if isinstance(one, chat.ProbedServer)]
    for server, one in zip(servers, results, strict=True):
        if isinstance(one, BaseException):
            if not found or not (isinstance(one, ServerError) and server.away):
                raise one
            log.warning("%s The others go on without it.", one if isinstance(one, LooktwiceError) else "")
    return found
