"""Turn the answers of a server into records of the library, and its refusals into the library's errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from looktwice.errors import ServerError, UsageError
from looktwice.types import Hit

_REFUSED = range(400, 500)
_LATER = (408, 409, 429, 499)


@dataclass(frozen=True)
class RemoteAnswer:
    """The answer to one search: the library's hits, and for each of them metadata, text and link of a preview."""

    hits: list[Hit]
    rows: list[Mapping[str, Any]] = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> RemoteAnswer:
        """Return the answer in a response."""
        return cls([hit_of(row) for row in body["hits"]], body["hits"], body["manifest"])


def hit_of(row: Mapping[str, Any]) -> Hit:
    """Return one hit as the library has it."""
    explain = row.get("explain")
    if explain is None:
        status = "not scored" if row["status"] == "unscored" else row["status"]
        explain = {name: row[name] for name in ("coarse_rank", "entropy", "off_mass")} | {"status": status}
    own = {name: row[name] for name in ("id", "rank", "score", "coarse", "p", "maxsim")}
    known: dict[str, Any] = {"text": row.get("text"), "metadata": row.get("metadata") or {}}
    return Hit(**own, **known, scored=row["p"] is not None, explain=explain)


def ranked(body: Mapping[str, Any], documents: Sequence[Any] | None) -> list[dict[str, Any]]:
    """Return results of a rerank as `looktwice.Reranker.rank` does."""
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
    try:
        error = json.loads(body)["error"]
        message, code = str(error["message"]), str(error["code"])
    except (ValueError, KeyError, TypeError):
        message, code = f"The server answered {status}, and not in looktwice's form.", "foreign"
    if param := _param(body):
        message = f"{param}: {message}"
    if status == 401:
        message = "The server needs an API key; pass api_key, or set LOOKTWICE_API_KEY."
    if status in _REFUSED and status not in _LATER:
        raise UsageError(message)
    raise ServerError(message, status=status, code=code, retry_after=retry_after)


def _param(body: bytes) -> str | None:
    try:
        found = json.loads(body)["error"]["param"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
