"""Read labels of answers, for `looktwice tune`: the page's marks, or labels in TREC format.

Marks name some hits right and some wrong, and say nothing of the others; a ranking is measured on the marked ones
alone. In TREC labels what is not listed is not relevant.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from looktwice.errors import UsageError
from looktwice.evaluate import Qrels
from looktwice.evaluate.groups import measure_group
from looktwice.experiment.systems import scores_of
from looktwice.rank import Fusion, fuse
from looktwice.rank.calibration import Sample
from looktwice.rank.precision import linked
from looktwice.search.answer import Answer
from looktwice.types import Candidate, PairScores

QUERIES, QRELS = "queries.jsonl", "qrels.txt"
LIMIT = 1 << 30  # bytes of an archive, unpacked


@dataclass(frozen=True)
class Labelled:
    """One answered query: its shortlist in the order that the second look met it, the scores, and the labels.

    `judged` says that only candidates with a label are known to be right or wrong.
    """

    query: str
    shortlist: Sequence[Candidate]
    scores: PairScores
    grades: dict[str, int]
    judged: bool

    @classmethod
    def of(cls, answer: Answer, grades: Mapping[str, int], judged: bool) -> Labelled:
        """Return an answer with its labels."""
        hits = {hit.id: hit for hit in answer.ranking}
        shortlist = answer.shortlist if answer.middle is None else answer.middle
        why = [hits[c.id].explain or {} for c in shortlist]
        asked = [one for one in why if one["status"] != "not scored"]  # they come first
        p = [hits[c.id].p for c in shortlist[: len(asked)]]
        entropy, off_mass = ([one.get(name) for one in asked] for name in ("entropy", "off_mass"))
        scores = scores_of(p, entropy, off_mass, [one["status"] == "missing" for one in asked])
        return cls(answer.query.id, shortlist, scores, dict(grades), judged)

    def known(self, row: int) -> bool:
        """Return whether the candidate at `row` is known to be right or wrong, and scored."""
        grade = self.grades.get(self.shortlist[row].id, -1 if self.judged else 0)
        return grade >= 0 and self.scores.status[row] == "ok"

    def relevant(self, row: int) -> bool:
        """Return whether the candidate at `row` is right."""
        return self.grades.get(self.shortlist[row].id, 0) > 0

    def samples(self) -> Iterator[Sample]:
        """Yield the labelled pairs, for a calibration."""
        best = max((candidate.coarse for candidate in self.shortlist), default=0.0)
        for row in range(len(self.scores.p)):
            if self.known(row):
                one, p = self.shortlist[row], float(self.scores.p[row])
                yield Sample(self.query, p, best - one.coarse, self.relevant(row), one.id)

    def value(self, fusion: Fusion, measure: str) -> float:
        """Return the measure of this query under a fusion."""
        run = [(hit.id, hit.score) for hit in fuse(self.shortlist, self.scores, fusion)]
        if self.judged:
            run = [row for row in run if row[0] in self.grades]
        found = measure_group({self.query: run}, {self.query: self.grades}, [measure])
        return found.per_query[measure][self.query]


def groups_of(labels: Qrels) -> dict[str, str]:
    """Return the group of each query: those that share a relevant item belong together."""
    own = [(query, f"\0{query}") for query in labels]  # so that every query is named
    return linked([*own, *((query, item) for query, of in labels.items() for item, grade in of.items() if grade > 0)])


def unpacked(marks: Path, into: Path) -> tuple[Path, Path]:
    """Return the query file and the labels of the page's marks: its archive, or the folder that it was unpacked to.

    Raises UsageError for anything else.
    """
    folder = marks
    if marks.is_file():
        try:
            with zipfile.ZipFile(marks) as archive:
                if sum(part.file_size for part in archive.infolist()) > LIMIT:
                    raise UsageError(f"{marks} unpacks to more than 1 GiB; pass the folder that you unpacked it to.")
                archive.extractall(into)
        except (zipfile.BadZipFile, OSError) as error:
            raise UsageError(f"{marks} is not an archive of marks ({error}); download it from the page.") from error
        folder = into
    found = folder / QUERIES, folder / QRELS
    if not all(path.is_file() for path in found):
        raise UsageError(f"{marks} holds no {QUERIES} and {QRELS}; download the marks from the page.")
    return found
