"""The settings of a ranking: fusion, ties, modalities, budget and calibration, checked together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looktwice.errors import UnknownName, UsageError
from looktwice.rank import Fusion, Ties, Tuned
from looktwice.rank.budget import Budget
from looktwice.rank.calibration import Calibration
from looktwice.search.modalities import Direction

AUTO = "auto"
WHOLE, BOTH = "whole", "both"
TWO, THREE = "0.5", "coarse=0,maxsim=0.75,odds=0.25"
"""Default fusions without and with a middle look; the second was chosen on scenes that no figure reports."""


@dataclass(frozen=True)
class RankingConfig:
    """The settings of a ranking.

    `maxsim` is the number of the first look's best that the middle look re-orders by their stored tokens (0: none);
    `maxsim_codec` names those tokens: a codec, or patches:NAME for those of an encoder's tower. `zoom` compares the
    query zoomed to its rare tokens, too. `shown` "both" shows a candidate's best crop, too.
    Hits below `min_precision` are not shown. `min_precision` and a `budget` that stops early need a `calibration` for
    the same encoder, model, prompt and codec. `tuned` is where the fusion comes from, if `looktwice tune` chose it.
    """

    fusion: Fusion
    ties: Ties
    direction: Direction
    budget: Budget
    calibration: Calibration | None
    min_precision: float | None
    maxsim: int = 0
    maxsim_codec: str = "auto"
    shown: str = WHOLE
    tuned: Tuned | None = None
    zoom: bool = False

    @classmethod
    def of(
        cls,
        fusion: Fusion | Tuned | str | float = AUTO,
        ties: Ties | str = "default",
        direction: Direction | str = "auto",
        budget: Budget | str = "all",
        calibration: Calibration | str | Path | None = None,
        min_precision: float | None = None,
        maxsim: int = 0,
        maxsim_codec: str = "auto",
        shown: str = WHOLE,
        zoom: bool = False,
    ) -> RankingConfig:
        """Parse settings from their names; `fusion` "auto" depends on whether there is a middle look.
        A `fusion` that `looktwice tune` chose holds for the models that it was chosen with.

        Raises UsageError for settings that contradict one another.
        """
        known = None if calibration is None else Calibration.load(calibration)
        tuned = fusion if isinstance(fusion, Tuned) else None
        if isinstance(fusion, Tuned):
            fusion = fusion.fusion
        if fusion == AUTO:
            fusion = THREE if maxsim else TWO
        parsed = Fusion.parse(fusion), Ties.parse(ties), Direction.parse(direction), Budget.parse(budget)
        return cls(*parsed, known, min_precision, maxsim, maxsim_codec, shown, tuned, zoom)

    def __post_init__(self) -> None:
        if self.shown not in (WHOLE, BOTH):
            raise UnknownName("choice for --shown", self.shown, (WHOLE, BOTH))
        if self.maxsim < 0:
            raise UsageError(f"maxsim (--maxsim) must be at least 1 (or 0 for no middle look), not {self.maxsim}.")
        if self.fusion.uses_maxsim and not self.maxsim:
            raise UsageError(
                f"The fusion {self.fusion} weighs a middle look; add maxsim (--maxsim 1000), or leave maxsim= out of "
                "it."
            )
        stops_early = self.budget.epsilon is not None
        if self.calibration is None and (stops_early or self.min_precision is not None):
            raise UsageError(
                "min_precision (--min-precision), or a budget that stops early (--budget auto), needs a calibration; "
                "create one with `looktwice calibrate` and pass it as calibration (--calibration)."
            )
        if self.budget.first_pass is not None and self.calibration is not None:
            raise UsageError(
                "A calibration holds for one codec, but a cascade uses two; leave out the calibration or the cascade."
            )
        if stops_early and self.fusion.method != "linear":
            raise UsageError(
                f"A budget that stops early cannot be used with the fusion {self.fusion}; use p-only or a weight."
            )
        self.least_p  # noqa: B018  # raises now for a precision that the calibration does not reach

    @property
    def least_p(self) -> float | None:
        """Return the least p of a shown hit, or None if all are shown. Raises UsageError as `threshold` does."""
        if self.min_precision is None or self.calibration is None:
            return None
        return self.calibration.threshold(self.min_precision)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the ranking for a run's manifest."""
        own: dict[str, Any] = {"fusion": str(self.fusion), "ties": str(self.ties), "budget": str(self.budget)}
        if self.maxsim:
            own["maxsim"] = self.maxsim
        if self.shown != WHOLE:
            own["shown"] = self.shown
        if self.tuned is not None:
            own["tuned"] = dict(self.tuned.gain)
        if self.calibration is None:
            return own
        made = {"method": self.calibration.method, **self.calibration.quality}
        return {**own, "calibration": made, "sure": self.min_precision, "least_p": self.least_p}
