"""A fusion that `looktwice tune` chose on labelled queries, kept with what made it.

It holds for the encoder, MLLM, prompt, mode and codec that it was chosen with; `check` refuses others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from looktwice.checked import demand, read_json
from looktwice.errors import LooktwiceError, Mismatch, UsageError
from looktwice.files import write_whole
from looktwice.rank.calibration import difference
from looktwice.rank.fusion_rule import Fusion

FORMAT = 1


@dataclass(frozen=True)
class Tuned:
    """A chosen fusion.

    `source` are the settings of both looks, as `rank.calibration.source_of` gives them. `prompt` is the prompt by the
    name it was asked for; "auto" fits each pair. `gain` holds what was measured on queries that chose nothing.
    """

    source: Mapping[str, Any]
    prompt: str
    fusion: str
    gain: Mapping[str, Any]

    def check(self, source: Mapping[str, Any]) -> None:
        """Raise Mismatch if `source` differs from the settings that this was tuned with."""
        if differ := difference(self.source, source):
            raise Mismatch(
                f"The tuned fusion was chosen with {differ}; use the same settings, or run `looktwice tune` again."
            )

    def save(self, path: str | Path) -> None:
        """Write it as JSON, atomically."""
        write_whole(Path(path), (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Tuned:
        """Read a file of `looktwice tune`. Raises UsageError if it is not one."""
        try:
            body = read_json(Path(path).read_text(encoding="utf-8"))
            demand(body, {"format": int, "source": dict, "prompt": str, "fusion": str, "gain": dict}, "it")
            if body.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            Fusion.parse(body["fusion"])
            return cls(**body)
        except (OSError, ValueError, TypeError, LooktwiceError) as error:
            reason = error.strerror if isinstance(error, OSError) else error  # not the path a second time
            why = f"Cannot read the tuned fusion {path} ({reason}); create one with `looktwice tune`."
            raise UsageError(why) from error
