"""Probe a chat server, watch that it stays the same, and make the bodies of its requests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from looktwice.errors import Mismatch, ServerError, UsageError
from looktwice.score.config import ScorerConfig
from looktwice.score.prompting.prompt import Piece, Prompt
from looktwice.score.readout.probability import LabelIds
from looktwice.score.remote import labels as server_labels
from looktwice.score.remote import probe as probing
from looktwice.score.remote.dialect import Dialect, chosen, token_id
from looktwice.score.remote.endpoint import Endpoint
from looktwice.score.remote.images import ImageEncoder, image_part
from looktwice.score.remote.samples import sample_pair
from looktwice.score.remote.wording import clean
from looktwice.types import Item

if TYPE_CHECKING:
    from torch import Tensor

    from looktwice.score.remote.tokens import TokenSender

ROUTE = "/chat/completions"
COMPLETIONS = "/completions"


@dataclass
class ProbedServer:
    """What was found out about a server: its facts, and the label ids of each prompt, by its hash."""

    facts: probing.Facts
    ids: dict[str, LabelIds | None] = field(default_factory=dict)


def chat_content(
    pieces: Sequence[Piece],
    items: Mapping[str, Item],
    images: ImageEncoder,
    with_id: bool,
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
    messages = [{"role": "user", "content": list(content)}]
    return {"model": model, "messages": messages, **dialect.fields(ids), **_salt(config)}


def pair_request(
    config: ScorerConfig,
    model: str,
    dialect: Dialect,
    ids: Sequence[int],
    prompt: Prompt,
    pair: tuple[Item, Item],
    images: ImageEncoder,
    sender: TokenSender | None = None,
) -> tuple[str, dict[str, Any]]:
    """Return path and body of the request for one pair; a `sender` shows it as visual tokens."""
    if sender is not None and not sender.grid:
        return COMPLETIONS, line_body(config, model, dialect, ids, sender.line(*pair))
    pieces, items = prompt.lay_out(*pair, clean), dict(zip(("query", "candidate"), pair, strict=True))
    if sender is not None:
        return ROUTE, chat_body(config, model, dialect, ids, sender.content(pieces, items))
    content = chat_content(pieces, items, images, config.remote.image_ids)
    return ROUTE, chat_body(config, model, dialect, ids, content)


def line_body(config: ScorerConfig, model: str, dialect: Dialect, ids: Sequence[int], line: Tensor) -> dict[str, Any]:
    """Return the body of a request that holds a whole prompt as embeddings."""
    from looktwice.score.remote.tokens import saved

    fields = {"max_tokens": 1, "temperature": dialect.temperature, "logprobs": 1}
    named = {"logprob_token_ids": list(ids), "return_tokens_as_token_ids": True}
    return {"model": model, "prompt_embeds": saved(line), **fields, **named, **_salt(config)}


def _salt(config: ScorerConfig) -> dict[str, str]:
    return {"cache_salt": config.remote.cache_salt} if config.remote.cache_salt else {}


async def connect(server: Endpoint, prompt: Prompt, config: ScorerConfig) -> ProbedServer:
    """Probe one server with a prompt. Raises ServerError if p cannot be read from it."""
    about = await probing.served(server)
    ids = await server_labels.resolve(server, about.model, prompt)
    post, body = _sender(server), _sample_bodies(about.model, prompt, ids, config)
    facts, answer = await probing.probe(about, prompt, ids, body, post)
    await _refuse_thought(server, facts, answer)
    return ProbedServer(facts, {prompt.hash: ids})


async def check_tokens(
    server: Endpoint, known: ProbedServer, prompt: Prompt, config: ScorerConfig, sender: TokenSender
) -> None:
    """Raise UsageError if a server does not answer for visual tokens as it does for the images that they come from."""
    ids, facts = known.ids[prompt.hash], known.facts
    if not facts.dialect.named:
        raise UsageError(
            f"{server.address.base} does not run vLLM, and only vLLM takes visual tokens; leave out --tokens-from."
        )
    body = _sample_bodies(facts.served.model, prompt, ids, config, sender)
    try:
        reply = await _sender(server)(body(facts.dialect, (0, 0)))
    except ServerError as error:
        if error.status not in (400, 404, 422):
            raise
        raise UsageError(
            f"{server.address.base} takes no visual tokens ({error}); start vLLM with {sender.switch}, or leave out "
            "--tokens-from."
        ) from None
    if probing.far(facts.canary, facts.dialect.listed(reply, probing.flat_ids(ids)).logps):
        raise Mismatch(
            f"{server.address.base} answers otherwise for tokens of {sender.tokens_info().mllm} than for the same "
            "images, so it serves another model; name that one."
        )


async def verify(server: Endpoint, known: ProbedServer, prompt: Prompt, config: ScorerConfig) -> None:
    """Raise ServerError, which stops, if a server runs another model than the one that was probed."""
    about = await probing.served(server)
    ids, facts = known.ids[prompt.hash], known.facts
    body = _sample_bodies(about.model, prompt, ids, config)
    reply = await _sender(server)(body(facts.dialect, (0, 0)))
    if probing.changed(facts, about, facts.dialect.listed(reply, probing.flat_ids(ids))):
        raise probing.moved(server)


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
    async def post(request: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
        path, body = request
        return await server.ask("POST", server.address.base + path, json.dumps(body).encode())

    return post


def _sample_bodies(
    model: str, prompt: Prompt, ids: LabelIds | None, config: ScorerConfig, sender: TokenSender | None = None
) -> probing.MakeBody:
    encoder = ImageEncoder(config.resolution)

    def body(dialect: Dialect, pair: tuple[int, int]) -> tuple[str, Mapping[str, Any]]:
        flat = probing.flat_ids(ids)
        return pair_request(config, model, dialect, flat, prompt, sample_pair(prompt, pair), encoder, sender)

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
