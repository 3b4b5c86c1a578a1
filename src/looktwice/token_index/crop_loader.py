"""Load the stored tokens of one crop of each candidate, in place of those of the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from looktwice.score import TokenMaker
from looktwice.sources.loader import CandidateRef, ImageLoader, LoadError
from looktwice.token_index.crops import CroppedTokens, tokens_of_view
from looktwice.token_index.reader import TokenLoader
from looktwice.types import Item

if TYPE_CHECKING:
    from looktwice.store import TableReader


def crop_ref(ref: CandidateRef, crop: int) -> CandidateRef:
    """Return the place of a crop. Its hash is its own, so that a cached score is never that of the whole image."""
    return replace(ref, sha256=f"{ref.sha256}/{crop}")


class CropLoader(TokenLoader):
    """Reads the crops that `crop_ref` names. The query is shown as `whole` shows it, and one without tokens is missing.

    Raises what `open_set` raises for the set with crops.
    """

    def __init__(self, table: TableReader, maker: TokenMaker, codec: str | None, whole: ImageLoader) -> None:
        super().__init__(table, CroppedTokens(maker), codec, policy="skip")
        self._whole = whole

    def query(self, item: Item) -> Item:
        """Return the query as it is shown beside whole images."""
        return self._whole.query(item)

    def attach(self, entries: Sequence[Item | CandidateRef | LoadError]) -> list[Item | CandidateRef | LoadError]:
        """Replace each entry by an item with the tokens of its crop."""
        hashes = [entry.sha256 or "" if isinstance(entry, CandidateRef) else "" for entry in entries]
        images = [
            replace(entry, sha256=known.rpartition("/")[0]) if isinstance(entry, CandidateRef) else entry
            for entry, known in zip(entries, hashes, strict=True)
        ]
        return [
            replace(one, sha256=known, tokens=tokens_of_view(one.tokens, int(known.rpartition("/")[2])))
            if isinstance(one, Item) and one.tokens is not None
            else one
            for one, known in zip(super().attach(images), hashes, strict=True)
        ]
