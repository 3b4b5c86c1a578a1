"""Map a model's p to P(relevant): fitted on labelled pairs, kept with what made them.

A calibration holds for the encoder, MLLM, prompt, mode, retrace and codec that made it; `check` refuses others.
Platt: P(relevant) = σ(a · logit(p) + b), with Platt's smoothed targets (Advances in Large Margin Classifiers, 1999).
Isotonic: the non-decreasing step function nearest to the labels. scikit-learn fits both.
This module knows numbers and labels only.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from looktwice.checked import demand, read_json
from looktwice.errors import Mismatch, UnknownName, UsageError
from looktwice.files import write_whole
from looktwice.rank.curves import apply_curve, fit_curve, logistic, sigmoid
from looktwice.rank.precision import linked, thresholds

FORMAT = 1
METHODS = ("platt", "isotonic")
AUTO = "auto"
PRECISIONS = (0.5, 0.8, 0.9, 0.95, 0.99)
BINS, FOLDS, QUANTILES = 10, 5, 200
_KINDS = {
    "source": dict,
    "method": str,
    "curve": [[float]],
    "gap": [float],
    "relevant": [float],
    "thresholds": dict,
    "quality": dict,
}
_SOURCE = ("mllm", "revision", "preprocessing", "prompt", "prompt_hash", "mode", "retrace", "prior")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled pair: its query's id, p, how far its coarse score is below its shortlist's best, and its label.

    `item` is the candidate's id; queries that share a relevant item are held out together. "" links nothing.
    """

    query: str
    p: float
    gap: float
    relevant: bool
    item: str = ""


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration.

    `curve` holds (a, b) for Platt, or steps (p, P(relevant)) for isotonic. `gap` holds (a, b) of σ(a · gap + b).
    `relevant` holds p of relevant pairs, ascending. `thresholds` maps a precision that can be promised to the least p
    to show (see `rank.precision`). `quality` holds ECE and reliability points, the latter of held-out pairs.
    """

    source: Mapping[str, Any]
    method: str
    curve: tuple[tuple[float, float], ...]
    gap: tuple[float, float]
    relevant: tuple[float, ...]
    thresholds: Mapping[str, float]
    quality: Mapping[str, Any]

    def probability(self, p: float) -> float:
        """Return P(relevant) of a pair with this p."""
        return apply_curve(self.method, self.curve, p)

    def relevance(self, gap: float) -> float:
        """Return P(relevant) of an unscored candidate whose coarse score is `gap` below the best."""
        return sigmoid(self.gap[0] * gap + self.gap[1])

    def survival(self, p: float) -> float:
        """Return P(score above p) of a relevant pair, smoothed by half a pair so that it is never 0 or 1."""
        above = len(self.relevant) - bisect.bisect_right(self.relevant, p)
        return (above + 0.5) / (len(self.relevant) + 1)

    def threshold(self, precision: float) -> float:
        """Return the least p to show for this precision. Raises UsageError if the fit does not reach it."""
        found = self.thresholds.get(f"{precision:g}")
        if found is None:
            raise UsageError(
                f"This calibration cannot promise a precision of {precision:g}; choose one of "
                f"{', '.join(self.thresholds) or '(it promises none)'}, or calibrate with more labelled queries."
            )
        return found

    def check(self, source: Mapping[str, Any]) -> None:
        """Raise Mismatch if `source` differs from the settings of this calibration."""
        if differ := difference(self.source, source):
            raise Mismatch(f"This calibration was made with {differ}; use the same settings, or calibrate again.")

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON, atomically."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"
        write_whole(Path(path), text.encode())

    @classmethod
    def load(cls, path: str | Path | Calibration) -> Calibration:
        """Read a calibration. Raises UsageError if the file is not one."""
        if isinstance(path, Calibration):
            return path
        try:
            body = read_json(Path(path).read_text(encoding="utf-8"))
            demand(body, {"format": int, **_KINDS}, "it")
            if body.pop("format") != FORMAT:
                raise ValueError("another format")
            curve = tuple((float(a), float(b)) for a, b in body.pop("curve"))
            relevant = tuple(map(float, body.pop("relevant")))
            a, b = map(float, body.pop("gap"))
            return cls(curve=curve, relevant=relevant, gap=(a, b), **body)._checked()
        except (OSError, ValueError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error  # not the path a second time
            raise UsageError(
                f"Cannot read the calibration {path} ({reason}); create one with `looktwice calibrate`."
            ) from error

    def _checked(self) -> Calibration:
        """Return this calibration. Raises ValueError for numbers that `fit` cannot make."""
        if self.method not in METHODS:
            raise ValueError(f"its method is {self.method!r}; known: {', '.join(METHODS)}")
        if not self.curve or (self.method == "platt" and len(self.curve) != 1):
            need = "exactly 1" if self.method == "platt" else "at least 1"
            raise ValueError(f"its curve has {len(self.curve)} points; {self.method} needs {need}")
        steps = self.curve if self.method == "isotonic" else ()
        if list(steps) != sorted(steps) or not all(0 <= x <= 1 for step in steps for x in step):
            raise ValueError("its curve is not sorted, or leaves 0 to 1")
        if list(self.relevant) != sorted(self.relevant) or not all(0 <= p <= 1 for p in self.relevant):
            raise ValueError("its p of relevant pairs are not sorted, or leave 0 to 1")
        for precision, least in self.thresholds.items():
            demand(least, float, f"its threshold for {precision}")
        return self


def difference(made: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in which setting two sources differ first; "" if they are the same.

    >>> difference({"mode": "p-label"}, {"mode": "written"})
    "mode 'p-label', but this run has 'written'"
    """
    wrong = next((key for key in (*made, *now) if made.get(key) != now.get(key)), None)
    return "" if wrong is None else f"{wrong} {made.get(wrong)!r}, but this run has {now.get(wrong)!r}"


def source_of(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run that a calibration must match. Raises UsageError if prompts were mixed."""
    looks = [look for look in conditions.get("second_look") or [] if look]
    own = [{key: _setting(look.get(key)) for key in _SOURCE} for look in looks]
    if not own or any(other != own[0] for other in own):
        taken = " and ".join(sorted({str(one["prompt"]) for one in own})) or "no second look"
        raise UsageError(
            f"A calibration or a tuned fusion holds for one prompt, as p means something else under another one, but "
            f"these queries take {taken}; keep queries of one kind (images, texts or both), or name one prompt for all "
            "(--prompt mixed shows images and texts) with the ties default or coarse."
        )
    seen = conditions.get("candidates_from", [])
    codecs = {str(found.get("tokens_key", "")) for found in seen}
    unusual = {"asymmetric": True} if any(found.get("asymmetric") for found in seen) else {}
    unusual |= {"maxsim": conditions["maxsim"]} if conditions.get("maxsim") else {}
    penalty = looks[0].get("repetition_penalty", 1.0)
    unusual |= {} if penalty == 1.0 else {"repetition_penalty": penalty}
    return {"encoder": dict(conditions.get("encoder", {})), **own[0], "tokens": ",".join(sorted(codecs)), **unusual}


def _setting(value: Any) -> Any:
    """Return a setting without the counts that a run adds to it."""
    return value.get("setting") if isinstance(value, Mapping) else value


def fit(samples: Iterable[Sample], source: Mapping[str, Any], method: str = "platt") -> Calibration:
    """Fit on labelled pairs. The method "auto" takes the one of the smaller squared error on unseen queries.

    Raises UsageError for labels of one kind only, or fewer than two queries.
    """
    pairs = [s for s in samples if math.isfinite(s.p)]
    if method not in (*METHODS, AUTO):
        raise UnknownName("calibration method", method, (*METHODS, AUTO))
    if len({s.relevant for s in pairs}) < 2 or len({s.query for s in pairs}) < 2:
        raise UsageError("Calibration needs relevant and other pairs of two queries or more; give more labels.")
    relevant, groups = sorted(s.p for s in pairs if s.relevant), _groups(pairs)
    kept = [relevant[i * (len(relevant) - 1) // max(1, QUANTILES - 1)] for i in range(min(QUANTILES, len(relevant)))]
    chosen = _better(pairs, groups) if method == AUTO else method
    return Calibration(
        source=dict(source),
        method=chosen,
        curve=_curve(chosen, pairs),
        gap=logistic([s.gap for s in pairs], [s.relevant for s in pairs]),
        relevant=tuple(kept if len(relevant) > QUANTILES else relevant),
        thresholds=thresholds([(groups[s.query], s.p, s.relevant) for s in pairs], PRECISIONS),
        quality=_quality(method, pairs, groups),
    )


def ece(p: Sequence[float], relevant: Sequence[bool]) -> float:
    """Return the expected calibration error: |mean p − share relevant| over ten bins of p, weighted by their pairs."""
    return sum(n * abs(mean - share) for mean, share, n in reliability(p, relevant)) / max(1, len(p))


def reliability(p: Sequence[float], relevant: Sequence[bool]) -> list[tuple[float, float, int]]:
    """Return (mean p, share relevant, pairs) of every filled bin: the points of a reliability diagram."""
    bins: dict[int, list[int]] = {}
    for i, value in enumerate(p):
        bins.setdefault(min(BINS - 1, int(value * BINS)), []).append(i)
    return [
        (sum(p[i] for i in rows) / len(rows), sum(relevant[i] for i in rows) / len(rows), len(rows))
        for _, rows in sorted(bins.items())
    ]


def _groups(pairs: Sequence[Sample]) -> dict[str, str]:
    """Return the group of each query: those that share a relevant item belong together."""
    alone = [(s.query, f"\0{s.query}") for s in pairs]  # an item of its own, so that every query is named
    return linked([*alone, *((s.query, s.item) for s in pairs if s.relevant and s.item)])


def _quality(method: str, pairs: Sequence[Sample], groups: Mapping[str, str]) -> dict[str, Any]:
    """Measure a fit on unseen queries; a method that is chosen is chosen without them, too.

    `held_out` counts the pairs that were measured, if not all. `ece_after` is None if there are none.
    """
    after = _unseen(method, pairs, groups)
    labels, before = [s.relevant for s in pairs], [s.p for s in pairs]
    unseen, theirs = list(after.values()), [labels[i] for i in after]
    return {
        "pairs": len(pairs),
        "queries": len(groups),
        "relevant": sum(labels),
        **({} if len(after) == len(pairs) else {"held_out": len(after)}),
        "ece_before": ece(before, labels),
        "ece_after": ece(unseen, theirs) if after else None,
        "reliability_before": reliability(before, labels),
        "reliability_after": reliability(unseen, theirs),
    }


def _unseen(method: str, pairs: Sequence[Sample], groups: Mapping[str, str]) -> dict[int, float]:
    """Return P(relevant) of pairs by their position, each from a fit on the other folds of groups of queries.

    A fold is left out if the other folds have labels of one kind only: no curve can be fitted without it.
    """
    names = sorted({groups[s.query] for s in pairs})
    fold = {name: i % min(FOLDS, len(names)) for i, name in enumerate(names)}
    place = [fold[groups[s.query]] for s in pairs]
    after: dict[int, float] = {}
    for held in sorted(set(place)):
        others = [s for s, at in zip(pairs, place, strict=True) if at != held]
        if len({s.relevant for s in others}) == 2:
            chosen = _better(others, groups) if method == AUTO else method
            curve = _curve(chosen, others)
            after |= {i: apply_curve(chosen, curve, s.p) for i, s in enumerate(pairs) if place[i] == held}
    return after


def _better(pairs: Sequence[Sample], groups: Mapping[str, str]) -> str:
    """Return the method with the smaller mean squared error on folds that it was not fitted on; of equals, Platt."""

    def error(method: str) -> float:
        unseen = _unseen(method, pairs, groups)
        return sum((p - pairs[i].relevant) ** 2 for i, p in unseen.items()) / max(1, len(unseen))

    return min(METHODS, key=error)


def _curve(method: str, pairs: Sequence[Sample]) -> tuple[tuple[float, float], ...]:
    return fit_curve(method, [s.p for s in pairs], [s.relevant for s in pairs])
