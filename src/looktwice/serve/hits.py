"""Turn hits of the library into the JSON of the API, with metadata, text and preview links."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from looktwice import checked
from looktwice.sources.uri import is_object, is_url
from looktwice.store import TableReader, read_metadata
from looktwice.types import Candidate, Hit

_PLACES = ("/", "file:", "s3://", "gs://", "az://")


class HitSerializer:
    """Makes the JSON of hits. `place` returns the name of an item's table, and its id there."""

    def __init__(self, place: Callable[[str], tuple[str, str]], reader: TableReader, explain: bool = False) -> None:
        self.place, self.reader, self.explain = place, reader, explain

    def ranked(self, hits: Sequence[Hit]) -> list[dict[str, Any]]:
        """Return hits in their order."""
        rows = self._rows([hit.id for hit in hits])
        return [self._hit(hit, rows.get(hit.id, {})) for hit in hits]

    def first(self, shortlist: Sequence[Candidate]) -> list[dict[str, Any]]:
        """Return a shortlist in the order of the first look."""
        return self.ranked(
            [Hit(c.id, rank, c.coarse, c.coarse, None, False) for rank, c in enumerate(shortlist, start=1)]
        )

    def _rows(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        found = self.reader.lookup(ids, ["id", "uri", "sha256", "width", "text", "metadata"])
        return {row["id"]: {**row, "metadata": read_metadata(row["metadata"])} for row in found}

    def _hit(self, hit: Hit, row: Mapping[str, Any]) -> dict[str, Any]:
        made_of = dict(hit.explain or {})
        status = hit.status
        table, own = self.place(hit.id)
        made: dict[str, Any] = {
            "id": hit.id,
            "table": table,
            "rank": hit.rank,
            "score": hit.score,
            "coarse": hit.coarse,
            "coarse_rank": made_of.get("coarse_rank", hit.rank),
            "maxsim": hit.maxsim,
            "maxsim_rank": made_of.get("maxsim_rank"),
            "p": hit.p,
            "calibrated": made_of.get("calibrated"),
            "off_mass": made_of.get("off_mass"),
            "entropy": made_of.get("entropy"),
            "status": "unscored" if status == "not scored" else status,
            "uri_kind": uri_kind(row),
            "metadata": row.get("metadata", {}),
            "text": row.get("text"),
            "preview": preview_link(table, own, row.get("sha256")),
            "folded": list(hit.folded) or None,
        }
        if self.explain:
            made["explain"] = plain(made_of)
        return made


def preview_link(table: str, id_: str, sha256: str | None) -> str:
    """Return the address of a preview; `v` changes with the image, so that the answer can be cached indefinitely."""
    version = f"&v={sha256[:12]}" if sha256 else ""
    return f"/v1/tables/{quote(table, safe='')}/items/{quote(id_, safe='')}/preview?w=320{version}"


def uri_kind(row: Mapping[str, Any]) -> str:
    """Return how an item's bytes are kept: in a file, behind a URL, or in the table only."""
    uri = row.get("uri") or ""
    return "url" if is_url(uri) else "file" if uri.startswith("file:") or is_object(uri) else "memory"


def plain(value: Any) -> Any:
    """Return a value as JSON's own types, without places: a folder's or an object's name stands for its path."""
    return checked.plain(value, _without_place)


def _without_place(value: Any) -> str:
    return PurePath(value).name if isinstance(value, PurePath) or str(value).startswith(_PLACES) else str(value)
