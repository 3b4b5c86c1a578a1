"""Measure all stages on damaged images, and the gain and cost of three remedies that need no training.

One side at a time is damaged: the queries, or all candidates. Every condition is measured on the same sample of image
queries. A finished condition is kept on disk, so that an interrupted run can continue. Vectors stay in memory and are
compared exactly.

With a middle look, only queries are damaged, as the stored tokens are those of undamaged candidates, and no remedy is
measured.

The remedies (`mend`): `views` averages vectors and p over the query, its mirror image and its middle. `both orders`
averages p over both orders of the pair. `contrast` shows the second look both images at full contrast.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeAlias

import numpy as np

from looktwice.checked import finite
from looktwice.encode import query_encoder
from looktwice.encode.mixing import unit
from looktwice.errors import MediaError, UsageError
from looktwice.evaluate import interval
from looktwice.evaluate.datasets import Dataset, Query
from looktwice.evaluate.groups import measure_group
from looktwice.experiment.answers import digest, prompt_hash, unusual, write_json
from looktwice.experiment.degrade import DEGRADATIONS, Picture, centre, mirrored, normalised
from looktwice.experiment.finished import content, read_finished, revision
from looktwice.experiment.plot import plot
from looktwice.experiment.systems import scores_of
from looktwice.files import write_whole
from looktwice.rank import Fusion, fuse
from looktwice.search.middle_stage import MiddleStage
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.sources import Source
from looktwice.types import Candidate, Encoder, Item, PairScores

DamagedSide: TypeAlias = Literal["query", "candidate"]
Change: TypeAlias = Callable[[Picture, Random], Picture]
BATCH = 64
OTHERS = 24  # images that clutter draws from
MENDS = ("views", "both orders", "contrast")


@dataclass(frozen=True, slots=True)
class Condition:
    """One damage at one step (0: none), on one side, perhaps with a remedy."""

    side: DamagedSide = "query"
    kind: str = "none"
    step: int = 0
    mend: str = "none"

    @property
    def key(self) -> str:
        """Return the name of the condition in files."""
        return f"{self.side}/{self.kind}/{self.step}/{self.mend}"


def conditions(sides: Sequence[DamagedSide], mends: Sequence[str] = MENDS) -> list[Condition]:
    """Return all conditions: no damage, every kind at every step, and every remedy without and with most damage."""
    found = [Condition()]
    for side in sides:
        found += [Condition(side, kind, i + 1) for kind, one in DEGRADATIONS.items() for i in range(len(one.steps))]
    ends = [one for one in found if one.step in (0, 3) and one.side == "query"]
    return found + [replace(one, mend=mend) for mend in mends for one in ends]


@dataclass
class RobustnessSetup:
    """A sample of a dataset's image queries, all of its items, an encoder and a reranker; perhaps a middle look."""

    dataset: Dataset
    encoder: Encoder
    look: MllmReranker
    shortlist: int = 20
    sample: int = 50
    fusion: str = "0.5"
    seed: int = 0
    middle: MiddleStage | None = None
    queries: list[Item] = field(init=False)
    items: list[Source] = field(init=False)
    _of: dict[str, Source] = field(init=False)
    _vectors: dict[str, Any] = field(init=False, default_factory=dict)
    _others: list[Picture] = field(init=False)

    def __post_init__(self) -> None:
        self.items = [source for source in self.dataset.items if isinstance(source, Source) and source.has_image]
        self._of = {source.id: source for source in self.items}
        self.queries = [item for item in map(_loaded, self._sampled()) if item is not None]
        if not self.queries or not self.items:
            raise UsageError(f"{self.dataset.name} lacks image queries with labels, or images; use another dataset.")
        chosen = Random(self.seed).sample(self.items, min(OTHERS, len(self.items)))
        self._others = [item.image for source in chosen if (item := _loaded(Query(source))) and item.image]

    def _sampled(self) -> list[Query]:
        labels = self.dataset.qrels
        usable = [
            q for q in self.dataset.queries if q.source.has_image and any(g > 0 for g in labels.get(q.id, {}).values())
        ]
        return Random(self.seed).sample(usable, min(self.sample, len(usable)))

    def about(self) -> dict[str, Any]:
        """Return the settings that every condition of a run must share."""
        look, info = self.look, self.encoder.info
        middle = self.middle
        return {
            "dataset": self.dataset.name,
            "queries": len(self.queries),
            "shortlist": self.shortlist,
            "fusion": self.fusion,
            "encoder": f"{info.name}@{info.revision}",
            "mllm": look.mllm if isinstance(look.mllm, str) else type(look.mllm).__name__,
            "seed": self.seed,
            "items": len(self.items),
            "asked": digest([query.id for query in self.queries]),
            "labels": digest([self.dataset.measures[0], [self.dataset.qrels[query.id] for query in self.queries]]),
            "pictures": digest([*map(content, self.queries), *map(content, self.items)]),
            "encoded_by": info.record(),
            "revision": revision(look),
            "prompt": look.prompt,
            **prompt_hash(look),
            **unusual(look),
            **({} if middle is None else {"maxsim": middle.depth, "tokens": middle.codec}),
            **({"zoom": True} if middle is not None and middle.zoom else {}),
        }

    def measure(self, condition: Condition) -> dict[str, Any]:
        """Measure all stages under one condition: means with intervals, values per query, pairs per query."""
        damage = self._damage(condition)
        queries = [_changed(q, damage, self.seed) for q in self.queries] if condition.side == "query" else self.queries
        on_items = damage if condition.side == "candidate" else None
        lists = self._coarse(queries, on_items, condition)
        runs: dict[str, dict[str, Any]] = {stage: {} for stage in self.stages}
        pairs = 0
        for query, shortlist in zip(queries, lists, strict=True):
            runs["shortlist"][query.id] = [(one.id, one.coarse) for one in shortlist[: self.dataset.depth]]
            if self.middle is not None:
                shortlist = self.middle.look(query, shortlist).candidates
                runs["middle look"][query.id] = [(hit.id, hit.score) for hit in fuse(shortlist, None)]
            scores, asked = self._second(query, shortlist[: self.shortlist], on_items, condition.mend)
            pairs += asked
            hits = fuse(shortlist, scores, Fusion.parse(self.fusion))
            runs["second look"][query.id] = [(hit.id, hit.score) for hit in hits]
        main = self.dataset.measures[0]
        qrels = {query.id: self.dataset.qrels[query.id] for query in queries}
        values = {stage: measure_group(run, qrels, [main]).per_query[main] for stage, run in runs.items()}
        return {
            "condition": condition.key,
            "measure": main,
            **{stage: interval(found.values())._asdict() for stage, found in values.items()},
            "pairs_per_query": pairs / len(queries),
            "values": [dict(found) for found in values.values()],
        }

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the names of the measured stages."""
        return ("shortlist", "second look") if self.middle is None else ("shortlist", "middle look", "second look")

    def _damage(self, condition: Condition) -> Change | None:
        if condition.step == 0:
            return None
        one = DEGRADATIONS[condition.kind]
        strength = one.steps[condition.step - 1]
        return lambda image, rng: one.apply(image, strength, rng, self._others)

    def _coarse(self, queries: Sequence[Item], damage: Change | None, condition: Condition) -> list[list[Candidate]]:
        names, vectors = self._items(damage, condition)
        views = _views(condition.mend)
        encoder = query_encoder(self.encoder)
        asked = unit(np.sum([encoder.encode([_seen(query, view) for query in queries]) for view in views], axis=0))
        depth = max(self.dataset.depth, 0 if self.middle is None else self.middle.depth)
        lists = []
        for row in np.asarray(asked) @ vectors.T:
            best = sorted(range(len(names)), key=lambda i: (-row[i], names[i]))[:depth]
            lists.append([Candidate(names[i], float(row[i])) for i in best])
        return lists

    def _items(self, damage: Change | None, condition: Condition) -> tuple[list[str], Any]:
        key = "" if damage is None else f"{condition.kind}/{condition.step}"
        if key not in self._vectors:
            kept = {name: found for name, found in self._vectors.items() if name == ""}
            self._vectors = {**kept, key: self._encoded(damage)}
        names, vectors = self._vectors[key]
        return names, vectors

    def _encoded(self, damage: Change | None) -> tuple[list[str], Any]:
        names: list[str] = []
        rows = []
        for start in range(0, len(self.items), BATCH):
            items = [item for source in self.items[start : start + BATCH] if (item := _loaded(Query(source)))]
            vectors = self.encoder.encode([_changed(item, damage, self.seed) for item in items])
            fine = [i for i in range(len(items)) if np.isfinite(vectors[i]).all()]
            names += [items[i].id for i in fine]
            rows.append(vectors[fine])
        return names, np.concatenate(rows)

    def _second(
        self, query: Item, shortlist: Sequence[Candidate], damage: Change | None, mend: str
    ) -> tuple[PairScores, int]:
        """Return the scores of the candidates, and the number of scored pairs."""
        found = [_loaded(Query(self._of[candidate.id])) for candidate in shortlist]
        there = [_changed(item, damage, self.seed) for item in found if item is not None]
        columns = self._scores(query, there, mend) if there else []
        rows = iter(np.mean(columns, axis=0).tolist() if columns else [])
        p = [finite(next(rows)) if item is not None else None for item in found]
        return scores_of(p, gone=[item is None for item in found]), len(columns) * len(there)

    def _scores(self, query: Item, candidates: list[Item], mend: str) -> list[Any]:
        score = self.look.scorer_for(query, candidates).score
        if mend == "both orders":
            return [score(query, candidates).p, [float(score(one, [query]).p[0]) for one in candidates]]
        if mend == "contrast":
            return [score(_seen(query, normalised), [_seen(one, normalised) for one in candidates]).p]
        return [score(_seen(query, view), candidates).p for view in _views(mend)]


def run_robustness(
    bench: RobustnessSetup, folder: Path, sides: Sequence[DamagedSide], done: Callable[[int, int], None]
) -> dict[str, Any]:
    """Measure every unfinished condition; write robustness.json and a plot for each kind of damage and damaged side."""
    folder.mkdir(parents=True, exist_ok=True)
    path, about = folder / "conditions.jsonl", bench.about()
    known = dict(read_finished(path, about))
    every = conditions(sides, MENDS if bench.middle is None else ())
    with open(path, "a", encoding="utf-8") as file:
        if not known and path.stat().st_size == 0:
            file.write(json.dumps(about) + "\n")
        for number, condition in enumerate(every, start=1):
            if condition.key not in known:
                known[condition.key] = bench.measure(condition)
                file.write(json.dumps(known[condition.key]) + "\n")
                file.flush()
            done(number, len(every))
    record = {"about": about, "conditions": [known[condition.key] for condition in every]}
    record["models"] = {"encoder": bench.encoder.info.name, "second_look": [dict(r) for r in bench.look.settings()]}
    write_json(folder / "robustness.json", json.loads(json.dumps(record, default=str)))
    for name, text in _curves(known, sides, bench.stages):
        write_whole(folder / name, text.encode())
    return record


def _curves(
    known: dict[str, dict[str, Any]], sides: Sequence[DamagedSide], stages: Sequence[str]
) -> Iterator[tuple[str, str]]:
    clean = known[Condition().key]
    for side in sides:
        for kind, one in DEGRADATIONS.items():
            rows = [clean, *(known[Condition(side, kind, i + 1).key] for i in range(len(one.steps)))]
            series = {name: [(float(step), row[name]["mean"]) for step, row in enumerate(rows)] for name in stages}
            title = f"{side}: {kind} ({', '.join(f'{step:g}' for step in one.steps)}; {one.unit})"
            yield f"{side}-{kind.replace(' ', '-')}.svg", plot(series, title=title, x="step", y=clean["measure"])


def _views(mend: str) -> list[Callable[[Picture], Picture] | None]:
    """Return the views of the query. Only `views` changes the encoder's input."""
    return [None, mirrored, centre] if mend == "views" else [None]


def _seen(item: Item, view: Callable[[Picture], Picture] | None) -> Item:
    if view is None or item.image is None:
        return item
    return replace(item, image=view(item.image), sha256=None)


def _changed(item: Item, damage: Change | None, seed: int) -> Item:
    """Return the item with its image damaged, the same way each time, and without the hash of the old pixels."""
    if damage is None or item.image is None:
        return item
    return replace(item, image=damage(item.image, Random(f"{seed} {item.id}")), sha256=None)


def _loaded(query: Query) -> Item | None:
    try:
        return query.load()
    except MediaError:
        return None
