"""Turn the answers of a server into records of the library, and its refusals into the library's errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from looktwice.checked import demand, read_json
from looktwice.errors import LooktwiceError, ServerError, UsageError
from looktwice.types import Hit

MOST_BYTES = 2**28
"""Largest answer, decompressed."""

_REFUSED = range(400, 500)
_LATER = (408, 409, 429, 499)
_NUMBERS = ("coarse_rank", "entropy", "off_mass")
_HIT = {
    "id": str,
    "rank": int,
    "score": float,
    "coarse": float,
    "p": (float, None),
    "maxsim": (float, None),
    "status": str,
    "explain?": (dict, None),
    **{f"{name}?": (float, None) for name in _NUMBERS},
}


@contextmanager
def in_our_form() -> Iterator[None]:
    """Raise ServerError if what is done with an answer fails: it is not one of looktwice's server."""
    try:
        yield
    except LooktwiceError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError):
        why = "The answer is not one of looktwice serve; check the address."
        raise ServerError(why, status=200, code="foreign") from None


def too_long() -> ServerError:
    """Return the error for an answer of more than MOST_BYTES."""
    return ServerError(f"The server sends more than {MOST_BYTES:,} bytes; ask for less.", status=200, code="foreign")


@dataclass(frozen=True)
class RemoteAnswer:
    """The answer to one search: the library's hits, and for each of them metadata, text and link of a preview."""

    hits: list[Hit]
    rows: list[Mapping[str, Any]] = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> RemoteAnswer:
        """Return the answer in a response."""
        demand(body, {"hits": [_HIT], "manifest": dict}, "the answer")
        return cls([hit_of(row) for row in body["hits"]], body["hits"], body["manifest"])


def hit_of(row: Mapping[str, Any]) -> Hit:
    """Return one hit as the library has it."""
    explain = row.get("explain")
    if explain is None:
        status = "not scored" if row["status"] == "unscored" else row["status"]
        explain = {name: row.get(name) for name in _NUMBERS} | {"status": status}
    own = {name: row[name] for name in ("id", "rank", "score", "coarse", "p", "maxsim")}
    known: dict[str, Any] = {"text": row.get("text"), "metadata": row.get("metadata") or {}}
    known["folded"] = tuple(row.get("folded") or ())
    return Hit(**own, **known, scored=row["p"] is not None, explain=explain)


def ranked(body: Mapping[str, Any], documents: Sequence[Any] | None) -> list[dict[str, Any]]:
    """Return results of a rerank as `looktwice.Reranker.rank` does."""
    demand(body, {"results": [{"index": int, "relevance_score": (float, None)}]}, "the answer")
    rows = []
    for result in body["results"]:
        score = result["relevance_score"]
        row = {"corpus_id": result["index"], "score": float("nan") if score is None else score}
        if result.get("error"):
            row["error"] = result["error"]
        if documents is not None:
            row["document"] = documents[result["index"]]
        rows.append(row)
    return rows


def raise_for(status: int, body: bytes, retry_after: str | None = None) -> None:
    """Raise what an answer means: UsageError for a refused request, ServerError for everything else but success."""
    if status < 400:
        return
    message, code = _said(body) or (f"The server answered {status}, and not in looktwice's form.", "foreign")
    if status == 401:
        message = "The server needs an API key; pass api_key, or set LOOKTWICE_API_KEY."
    if status in _REFUSED and status not in _LATER:
        raise UsageError(message)
    raise ServerError(message, status=status, code=code, retry_after=retry_after)


def _said(body: bytes) -> tuple[str, str] | None:
    """Return message and code of an error's body; None if it is not one of looktwice's server."""
    try:
        error = read_json(body)["error"]
        demand(error, {"message": str, "code": str, "param?": (str, None)}, "it")
    except (ValueError, KeyError, TypeError):
        return None
    message, param = error["message"], error.get("param")
    named = not param or message.startswith(f"{param}: ")
    return message if named else f"{param}: {message}", error["code"]
