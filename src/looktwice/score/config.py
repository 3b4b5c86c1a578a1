"""Hold a scorer's settings in one record, checked in one place. Loads neither torch nor NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from looktwice.errors import UnknownName, UsageError
from looktwice.score.local.retrace import Retrace
from looktwice.score.readout import modes
from looktwice.score.remote.config import DEFAULT, RemoteConfig

ScorePath = Literal["auto", "fast", "reference"]
PRIORS = ("off", "candidate", "query")


@dataclass(frozen=True, slots=True)
class ScorerConfig:
    """Settings of a scorer beside its model and prompt.

    `device`, `dtype`: of the model's computation; `revision`: of the checkpoint. `batch_size` limits a batch's rows
    (None: as memory allows). `path` "auto" takes the fast path if the family has one and logs a warning if not; "fast"
    insists. `resolution`: the longer side images are scaled to (families with native resolution). `max_tiles`:
    for families that cut images into tiles. `as_released` applies the checkpoint's repetition penalty, as the code of
    2604.13268 does. `cache_bytes`: visual tokens kept in memory; query prefixes may take a quarter of it on top.
    `score_mode`: how p is read (`score.readout.modes`). `retrace`: show images once more (`score.local.retrace`).
    `prior`: candidate or query, whose empty form's answer is divided out (`score.local.prior`). `remote`: settings of
    a model on a server.

    Raises UsageError for values that are wrong or do not go together, UnknownName for unknown names.
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
    remote: RemoteConfig = DEFAULT

    def __post_init__(self) -> None:
        if self.path not in get_args(ScorePath):
            raise UnknownName("path", self.path, get_args(ScorePath))
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError("batch_size must be at least 1; leave it out to fill the memory.")
        if self.cache_bytes < 0:
            raise UsageError("cache_bytes must not be negative; 0 keeps no visual tokens in memory.")
        modes.check(self.score_mode)
        Retrace.parse(self.retrace)
        if self.prior not in PRIORS:
            raise UnknownName("side for the prior", self.prior, PRIORS)
        if self.prior != "off" and self.score_mode != modes.P_LABEL:
            raise UsageError(
                f"A prior needs the mode {modes.P_LABEL}, not {self.score_mode}; leave out the prior (--prior) or "
                "the mode (--score-mode)."
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
