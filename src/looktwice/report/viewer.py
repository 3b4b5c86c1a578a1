"""Prepare answers for a report: thumbnails of the candidates that it draws, and labels and measures if known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from looktwice.evaluate import Qrels
from looktwice.evaluate.groups import measure_group
from looktwice.report import QueryView, paired
from looktwice.report.match_drawing import data_url, match_svg
from looktwice.search.answer import Answer
from looktwice.search.duplicates import DuplicateGroup
from looktwice.search.match_map import matches_of
from looktwice.search.middle_stage import MiddleStage
from looktwice.sources import images
from looktwice.sources.loader import CandidateRef, ImageLoader, Resolver
from looktwice.types import Candidate, Hit, Item

COLUMNS = 10
SIDE = 144  # pixels of a thumbnail
MATCHED = 3  # hits whose matches are drawn


class Viewer:
    """A maker of one QueryView per answer, which keeps thumbnails for later queries.

    With `middle`, it draws what the middle look matched in the first hits.
    """

    def __init__(
        self,
        find: Resolver,
        qrels: Qrels | None = None,
        measures: Sequence[str] = (),
        middle: MiddleStage | None = None,
    ) -> None:
        self._find = find
        self._middle = middle
        self._qrels = qrels
        self._measures = measures
        self._loader = ImageLoader(cache_bytes=0)
        self.thumbnails: dict[str, bytes] = {}
        self.texts: dict[str, str | None] = {}

    def view(self, answer: Answer) -> QueryView:
        """Return the view of one answer."""
        labels = None if self._qrels is None else self._qrels.get(answer.query.id, {})
        relevant = None if labels is None else {name for name, grade in labels.items() if grade > 0}
        self._fetch(answer, relevant or set())
        image = answer.query.image
        return QueryView(
            id=answer.query.id,
            results=paired(
                answer.shortlist,
                answer.ranking,
                thumbnails=self.thumbnails,
                texts=self.texts,
                relevant=relevant,
            ),
            thumbnail=None if image is None else images.thumbnail(image, SIDE),
            text=answer.query.text,
            before=self._measured(answer.query.id, [c.id for c in answer.shortlist], relevant),
            after=self._measured(answer.query.id, [hit.id for hit in answer.ranking], relevant),
            relevant=None if relevant is None else len(relevant),
            matches=self._matches(answer),
        )

    def _matches(self, answer: Answer) -> list[tuple[str, str]]:
        """Return (id, SVG) of the first hits with a thumbnail."""
        image = answer.query.image
        if self._middle is None or answer.middle is None or image is None:
            return []
        shown = [hit.id for hit in answer.ranking[:MATCHED] if hit.maxsim is not None and hit.id in self.thumbnails]
        asked = data_url(images.thumbnail(image, SIDE))
        found = matches_of(self._middle, answer.query, shown)
        return [(id_, match_svg(asked, data_url(self.thumbnails[id_]), rows, id_)) for id_, rows in found.items()]

    def _fetch(self, answer: Answer, relevant: set[str]) -> None:
        shown = [c.id for c in answer.shortlist[:COLUMNS]] + [hit.id for hit in answer.ranking[: 2 * COLUMNS]]
        self.fetch(shown + [c.id for c in answer.shortlist if c.id in relevant])

    def fetch(self, shown: Sequence[str]) -> None:
        """Read the texts and thumbnails of items that are not known yet."""
        new = [name for name in dict.fromkeys(shown) if name not in self.texts]
        entries = self._find(new)
        self.texts |= {entry.id: entry.text if isinstance(entry, CandidateRef) else None for entry in entries}
        for found in (item for chunk in self._loader.load(entries) for item in chunk):
            if isinstance(found, Item) and found.image is not None:
                self.thumbnails[found.id] = images.thumbnail(found.image, SIDE)

    def _measured(self, query: str, ranking: Sequence[str], relevant: set[str] | None) -> Mapping[str, float]:
        if not relevant or not self._measures or self._qrels is None:
            return {}
        run = {query: [(name, -float(rank)) for rank, name in enumerate(ranking)]}
        result = measure_group(run, {query: self._qrels[query]}, self._measures)
        return {str(name): result[str(name)] for name in self._measures}


def group_views(find: Resolver, groups: Sequence[DuplicateGroup]) -> list[QueryView]:
    """Return one view per group of near-duplicates: the item that is kept as the query, the others as its results."""
    viewer = Viewer(find)
    views = []
    for number, group in enumerate(groups, start=1):
        viewer.fetch([group.keep, *(one.id for one in group.duplicates)])
        shortlist = [Candidate(one.id, one.coarse) for one in group.duplicates]
        hits = [
            Hit(one.id, rank, one.coarse, one.coarse, one.p, one.p is not None)
            for rank, one in enumerate(group.duplicates, start=1)
        ]
        results = paired(shortlist, hits, thumbnails=viewer.thumbnails, texts=viewer.texts)
        picture, text = viewer.thumbnails.get(group.keep), viewer.texts.get(group.keep)
        views.append(QueryView(id=f"{number}: {group.keep}", results=results, thumbnail=picture, text=text))
    return views
