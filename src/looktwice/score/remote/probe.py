"""Try a chat server before anything depends on it: what it can be asked, and whether its answers mean something."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from looktwice.errors import ServerError, UnknownName, UsageError
from looktwice.score.prompting.prompt import Prompt
from looktwice.score.readout.probability import LabelIds
from looktwice.score.remote.dialect import MOST_NAMED, Dialect, chosen, dialects, top_entries
from looktwice.score.remote.endpoint import Endpoint
from looktwice.score.remote.reading import ListedLogprobs, read
from looktwice.score.remote.replies import tokens_read
from looktwice.types import SCORED

log = logging.getLogger(__name__)

SAME = 0.05
"""Nats by which a log-probability may differ from one request to the next: servers batch in half precision."""

CHANGED = 0.5  # nats: another model differs by more
LONGEST_NAME = 500  # of a model, in characters

SamplePair: TypeAlias = tuple[int, int]  # of the two samples
MakeBody: TypeAlias = Callable[[Dialect, SamplePair], tuple[str, Mapping[str, Any]]]  # path and body
Post: TypeAlias = Callable[[tuple[str, Mapping[str, Any]]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a server says of itself: the model that it was asked for, its engine, and a hash of what it lists."""

    model: str
    engine: str
    revision: str
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a probe found.

    `order_kept`: swapped items give other answers. `self_above`: an item fits itself better than another one.
    `canary`: the log-probabilities that the pair of an item with itself gets. `answers_as`: the model named in answers.
    """

    served: ServedModel
    dialect: Dialect
    canary: Mapping[Any, float]
    order_kept: bool
    self_above: bool
    prompt_tokens: int | None
    answers_as: str

    @property
    def reading(self) -> str:
        """Return what p is read from, for manifests."""
        return "named ids" if self.dialect.named else f"top {self.dialect.top}"

    def record(self) -> dict[str, Any]:
        """Return the facts for a manifest."""
        return {
            "model": self.served.model,
            "engine": self.served.engine,
            "context": self.served.context,
            "reading": self.reading,
            "temperature": self.dialect.temperature,
            "order_kept": self.order_kept,
            "self_pair_first": self.self_above,
            "prompt_tokens": self.prompt_tokens,
        }


async def served(server: Endpoint) -> ServedModel:
    """Return what the server says of itself. Raises UnknownName, with the models there, for a model that is not."""
    address = server.address
    listing = await server.get(f"{address.base}/models") or {}
    version = await server.get(f"{address.root}/version") or {}
    rows = listing.get("data")
    known = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    models = {row["id"]: row for row in known if isinstance(row.get("id"), str) and 0 < len(row["id"]) <= LONGEST_NAME}
    name = _model(address.model, list(models), address.base)
    row = models.get(name, {})
    own = {key: row.get(key) for key in ("id", "root", "parent", "owned_by", "max_model_len")} if row else {"id": name}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()[:12]
    meta = row.get("meta")  # of llama.cpp
    context = row.get("max_model_len", meta.get("n_ctx") if isinstance(meta, Mapping) else None)
    owner = str(row.get("owned_by") or "unknown")[:LONGEST_NAME]
    engine = f"{owner} {version['version'][:LONGEST_NAME]}" if isinstance(version.get("version"), str) else owner
    return ServedModel(name, engine, digest, context if isinstance(context, int) else None)


def _model(wanted: str | None, there: Sequence[str], base: str) -> str:
    if wanted is None:
        if len(there) != 1:
            listed = ", ".join(there[:20]) or "it lists none"
            raise UsageError(f"{base} needs the name of a model ({listed}); write it as {base}#MODEL.")
        return there[0]
    if there and wanted not in there:
        raise UnknownName(f"model of {base}", wanted, there)
    return wanted


async def probe(
    about: ServedModel, prompt: Prompt, ids: LabelIds | None, body: MakeBody, post: Post
) -> tuple[Facts, dict[str, Any]]:
    """Return what the server can do, and an answer of it. Raises ServerError if p cannot be read from its answers."""
    flat = flat_ids(ids)
    dialect, first = await _dialect(flat, body, post)
    _refuse_thinking(first)
    canary = dialect.listed(first, flat)
    warm = replace(dialect, temperature=1.0)
    if _differ(canary.logps, warm.listed(await post(body(warm, (0, 0))), flat).logps) > SAME:
        dialect, canary = warm, warm.listed(await post(body(warm, (0, 0))), flat)
    apart, swapped = [dialect.listed(await post(body(dialect, pair)), flat) for pair in ((0, 1), (1, 0))]
    found = Facts(
        about,
        dialect,
        canary.logps,
        order_kept=_differ(apart.logps, swapped.logps) > 1e-4,
        self_above=_p(canary, dialect, prompt, ids) >= _p(apart, dialect, prompt, ids),
        prompt_tokens=tokens_read(first),
        answers_as=str(first.get("model") or about.model)[:LONGEST_NAME],
    )
    _check_name(found)
    _warn(found)
    return found, first


def flat_ids(ids: LabelIds | None) -> list[int]:
    """Return the ids of all labels in one list."""
    return [i for variants in ids.ids for i in variants] if ids else []


def keys(dialect: Dialect, prompt: Prompt, ids: LabelIds | None) -> Sequence[Sequence[Any]]:
    """Return the names by which a server lists each label's spellings: ids, or texts."""
    return ids.ids if dialect.named and ids else [label.variants for label in prompt.labels]


def _p(listed: ListedLogprobs, dialect: Dialect, prompt: Prompt, ids: LabelIds | None) -> float:
    scores = read(keys(dialect, prompt, ids), [label.value for label in prompt.labels], listed, -1)
    return float(scores.p[0]) if scores.status[0] in SCORED else 0.0


def _warn(facts: Facts) -> None:
    name = facts.served.model
    if not facts.order_kept:
        log.warning("%s answers alike when the two items are swapped; check that it sees both.", name)
    if not facts.self_above:
        log.warning("%s finds two different items more alike than one with itself; check prompt and model.", name)


async def _dialect(ids: Sequence[int], body: MakeBody, post: Post) -> tuple[Dialect, dict[str, Any]]:
    """Return the most telling dialect that the server understands, with its first answer."""
    refused: ServerError | None = None
    silent = False
    for dialect in dialects(named=0 < len(ids) <= MOST_NAMED):
        try:
            reply = await post(body(dialect, (0, 0)))
        except ServerError as error:
            if error.status not in (400, 422):
                raise
            refused = refused or error
            continue
        try:
            dialect.listed(reply, ids)
        except ServerError as error:
            if error.stops:
                raise
            silent = True
            continue
        listed = dialect if dialect.named else replace(dialect, top=min(dialect.top, len(top_entries(reply))))
        return listed, reply
    if silent or refused is None:
        raise ServerError(
            "The server answers without log-probabilities, so no p can be read; serve the model with an engine that "
            "gives them, such as vLLM, or use its rerank or decisions route.",
            stops=True,
        )
    raise refused


def _refuse_thinking(reply: Mapping[str, Any]) -> None:
    choice = reply["choices"][0]
    said = choice.get("message") or {}
    thought = any(said.get(name) for name in ("reasoning", "reasoning_content")) if isinstance(said, Mapping) else False
    if thought or chosen(reply).lstrip().startswith("<think"):
        raise thinks()


def moved(server: Endpoint) -> ServerError:
    """Return the error for a server that runs another model than before."""
    return ServerError(
        f"{server.address.base} runs another model than when this run began; start the same one again, then run the "
        "same command again.",
        stops=True,
    )


def thinks() -> ServerError:
    """Return the error for a model whose next token begins a thought."""
    return ServerError(
        "This model thinks before it answers, and its template does not let that be switched off, so its next token is "
        "not the answer; serve its instruct variant.",
        stops=True,
    )


def _check_name(facts: Facts) -> None:
    asked, answered = facts.served.model, facts.answers_as
    if not (asked.lower() in answered.lower() or answered.lower() in asked.lower()):
        raise ServerError(f"{asked} was asked, but {answered} answered; name the model that should answer.", stops=True)


def _differ(a: Mapping[Any, float], b: Mapping[Any, float]) -> float:
    """Return the largest difference of the tokens that both list, infinity if the likeliest one is not among them."""
    both = [abs(a[key] - b[key]) for key in a.keys() & b.keys() if max(a[key], b[key]) > -12]
    likeliest = max(a, key=lambda key: a[key])
    return max(both, default=0.0) if likeliest in b else float("inf")


def changed(facts: Facts, about: ServedModel, now: ListedLogprobs) -> bool:
    """Return whether a server runs another model than when it was probed."""
    return about.revision != facts.served.revision or far(facts.canary, now.logps)


def far(a: Mapping[Any, float], b: Mapping[Any, float]) -> bool:
    """Return whether two answers to the same pair are further apart than one model's can be."""
    return _differ(a, b) > CHANGED
