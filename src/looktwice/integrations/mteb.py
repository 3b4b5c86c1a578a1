"""Run mteb's retrieval and reranking tasks with looktwice, coarse or with a second look.

    import mteb
    from looktwice.integrations.mteb import TwoLooks
    mteb.evaluate(TwoLooks("tiny-clip", MllmReranker("tiny-vl")), mteb.get_task("Flickr30kT2IRetrieval"))

This module implements mteb's SearchProtocol (2.26): `index` and `search`. Vectors stay in memory; images are read from
the data set again for the second look. Unscored candidates rank below scored ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.encode import query_encoder
from looktwice.errors import MissingDependency, UsageError
from looktwice.rank import Fusion, fuse
from looktwice.score.readout.probability import scatter
from looktwice.sources.images import upright
from looktwice.types import Candidate, Item

if TYPE_CHECKING:
    from looktwice.search.mllm_reranker import MllmReranker
    from looktwice.types import Encoder, FloatArray

BATCH = 64
LAST = -2.0  # below every cosine
_log = logging.getLogger(__name__)


class TwoLooks:
    """A shortlist by `encoder`, and with `look` a second look at its first `shortlist` candidates."""

    def __init__(
        self, encoder: Encoder | str, look: MllmReranker | None = None, *, fusion: str = "0.5", shortlist: int = 50
    ) -> None:
        from looktwice.encode import load_encoder

        self.encoder: Encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
        self.look = look
        self.fusion = Fusion.parse(fusion)
        self.shortlist = shortlist
        self._corpus: Any = None
        self._names: list[str] = []
        self._places: dict[str, int] = {}
        self._vectors: FloatArray = np.zeros((0, self.encoder.info.dim), np.float32)
        self._blank = np.zeros(0, bool)
        self.empty = 0

    def index(self, corpus: Any, **kwargs: Any) -> None:
        """Encode a corpus: a data set with `id`, `text` and perhaps `title`, `image`. It replaces the one before.

        Empty documents are counted in `empty` and come last for every query.
        """
        self._corpus = corpus
        self._names = [str(name) for name in corpus["id"]]
        self._places = {name: place for place, name in enumerate(self._names)}
        if len(self._places) != len(corpus):
            raise UsageError("The corpus lists a document id twice; make ids unique.")
        self._vectors, self._blank = self._encode(corpus, self.encoder)
        self.empty = int(self._blank.sum())
        if self.empty:
            first = self._names[int(self._blank.argmax())]
            _log.warning("%d of %d documents are empty and rank last, such as %r.", self.empty, len(corpus), first)

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Mapping[str, Sequence[str]] | None = None, **kwargs: Any
    ) -> dict[str, dict[str, float]]:
        """Return {query: {document: score}} of the best `top_k` in the corpus, or in a query's `top_ranked`."""
        if self._corpus is None:
            raise UsageError("The corpus is missing; call index first.")
        vectors, _ = self._encode(queries, query_encoder(self.encoder))
        found = {}
        for place, vector in enumerate(vectors):
            query = _item(queries[place])
            chosen = None if top_ranked is None else [str(name) for name in top_ranked[query.id]]
            found[query.id] = self._ranked(query, self._best(vector, chosen, top_k))
        return found

    @property
    def mteb_model_meta(self) -> Any:
        """Return the metadata that mteb writes beside its results."""
        try:
            meta = import_module("mteb.models.model_meta").ModelMeta
        except ImportError:
            raise MissingDependency("mteb", "bench", "Running mteb's tasks") from None
        looks = "coarse" if self.look is None else f"second-look-{self.shortlist}-{self.fusion}"
        name = f"looktwice/{self.encoder.info.name.replace('/', '-')}-{looks}"
        about = {"name": name, "revision": self.encoder.info.revision, "modalities": ["text", "image"]}
        return meta.create_empty(overwrites=about)

    def _encode(self, rows: Any, encoder: Encoder) -> tuple[FloatArray, Any]:
        """Return vectors [n, d], and a mask [n] of empty rows."""
        vectors, blank = np.zeros((len(rows), self.encoder.info.dim), np.float32), np.zeros(len(rows), bool)
        for start in range(0, len(rows), BATCH):
            items = [_item(rows[i]) for i in range(start, min(start + BATCH, len(rows)))]
            blank[start : start + BATCH] = [_holds_nothing(item) for item in items]
            vectors[start : start + BATCH] = np.nan_to_num(
                encoder.encode(items)
            )  # a NaN vector would break sorting; zeros match nothing
        return vectors, blank

    def _best(self, vector: FloatArray, names: Sequence[str] | None, top_k: int) -> list[Candidate]:
        """Return the best `top_k` of `names`, or of the whole corpus, without a copy of its vectors."""
        places = None if names is None else [self._places[name] for name in names]
        names = self._names if names is None else names
        scores = (self._vectors if places is None else self._vectors[places]) @ vector
        scores[self._blank if places is None else self._blank[places]] = LAST
        least = np.partition(scores, -top_k)[-top_k] if top_k < len(scores) else -np.inf
        order = sorted(np.flatnonzero(scores >= least).tolist(), key=lambda i: (-scores[i], names[i]))[:top_k]
        return [Candidate(names[i], float(scores[i])) for i in order]

    def _ranked(self, query: Item, shortlist: list[Candidate]) -> dict[str, float]:
        scores = None
        if self.look is not None and not _holds_nothing(query):
            items = [_item(self._corpus[self._places[one.id]]) for one in shortlist[: self.shortlist]]
            there = [i for i, item in enumerate(items) if not _holds_nothing(item)]
            if shown := [items[i] for i in there]:
                seen = self.look.scorer_for(query, shown).score(query, shown)
                scores = scatter(len(items), seen.label_logits.shape[1], [(there, seen)], "missing")
        return {hit.id: hit.score for hit in fuse(shortlist, scores, self.fusion)}


def _item(row: Mapping[str, Any]) -> Item:
    image = row.get("image")
    text = _joined(row.get(key) for key in ("title", "text"))
    return Item(str(row["id"]), None if image is None else upright(image), text or None)


def _holds_nothing(item: Item) -> bool:
    return item.image is None and not (item.text or "").strip()


def _joined(texts: Iterable[object]) -> str:
    return " ".join(text for text in texts if isinstance(text, str) and text)
