"""How a scorer is loaded: one record, checked in one place. Loads neither torch nor NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from looktwice.errors import UnknownName, UsageError
from looktwice.score.local.retrace import Retrace
from looktwice.score.readout import modes

ScorePath = Literal["auto", "fast", "reference"]
PRIORS = ("off", "candidate", "query")


@dataclass(frozen=True, slots=True)
class ScorerConfig:
    """Settings of a scorer beside its model and prompt.

    `device`, `dtype`: where and in what the model computes; `revision`: of the checkpoint. `batch_size` limits the rows
    of a batch (None: as memory allows). `path` "auto" takes the fast path if the model's family has one and says so in
    the log if it has not; "fast" insists. `resolution`: the longer side images are scaled to (families with native
    resolution); `max_tiles` is for families that cut images into tiles. `as_released` applies the checkpoint's
    repetition penalty, as the code of 2604.13268 does. `cache_bytes`: visual tokens kept in memory; query prefixes may
    take a quarter of it on top. `score_mode`: what is read or written (`score.readout.modes`); `retrace`: show images
    once more (`score.local.retrace`); `prior`: candidate or query, whose absence is divided out (`score.local.prior`).

    Raises UsageError for values that are wrong or do not go together, UnknownName for names.
    """

    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    path: ScorePath = "auto"
    resolution: int | None = None
    max_tiles: int | None = None
    revision: str | None = None
    as_released: bool = False
    cache_bytes: int = 1 << 30
    score_mode: str = modes.P_LABEL
    retrace: str | Retrace | None = None
    prior: str = "off"

    def __post_init__(self) -> None:
        if self.path not in get_args(ScorePath):
            raise UsageError(f"The path is auto, fast or reference, not {self.path!r}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError("The batch size must be at least 1.")
        if self.cache_bytes < 0:
            raise UsageError("cache_bytes must not be negative; 0 keeps no visual tokens in memory.")
        modes.check(self.score_mode)
        Retrace.parse(self.retrace)
        if self.prior not in PRIORS:
            raise UnknownName("side for the prior", self.prior, PRIORS)
        if self.prior != "off" and self.score_mode != modes.P_LABEL:
            raise UsageError(
                f"A prior can be divided out of label probabilities only, not in the mode {self.score_mode}."
            )

    @classmethod
    def of(cls, config: ScorerConfig | None = None, **settings: Any) -> ScorerConfig:
        """Return `config` (default: all defaults) with these settings in place of its own.

        Raises UnknownName for a setting that does not exist.
        """
        known = [field.name for field in fields(cls)]
        if unknown := settings.keys() - set(known):
            raise UnknownName("scorer setting", min(unknown), known)
        return replace(config or cls(), **settings)

    def changed(self) -> Mapping[str, Any]:
        """Return the settings that differ from their defaults, as they were given."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value not in (default, None, "off")}
