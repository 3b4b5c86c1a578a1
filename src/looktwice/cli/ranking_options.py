"""Options that decide the order of an answer: middle look, fusion, ties, budget. `options` hands them on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

Fusion = Annotated[
    str,
    typer.Option(
        "--fusion",
        help="How scores are combined: λ in λ·coarse + (1−λ)·p, such as 0.5; p-only; rrf (reciprocal ranks); with "
        "--maxsim also coarse=0.25,maxsim=0.25,p=0.5, or odds= in place of p= for its log-odds. auto: see `looktwice "
        "models fusion`.",
    ),
]
Ties = Annotated[
    str,
    typer.Option(help="How equal scores are ordered: default, coarse, paper, repaired, released-code."),
]
Tuned = Annotated[
    Path | None,
    typer.Option("--tuned", help="File of `looktwice tune`: its fusion and prompt, for the models it was made with."),
]
Direction = Annotated[
    str,
    typer.Option(
        help="What the model sees of query and candidate: auto (all there is), or a pair such as text-to-image."
    ),
]
Shown = Annotated[
    str,
    typer.Option(
        help="What the second look sees of a candidate: whole (the image), or both (also the stored crop that "
        "matched best; with --maxsim)."
    ),
]


Zoom = Annotated[
    bool | None,
    typer.Option(
        "--zoom/--no-zoom",
        help="With --maxsim: compare the query also zoomed to its rarest tokens, for small objects "
        "[default: no zoom, or as `looktwice maxsim --keep` noted].",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Middle:
    """Middle look, between shortlist and second look."""

    maxsim: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Re-order this many of the first look's best by their stored visual tokens first, such as 1000; "
            "0: none [default: as `looktwice maxsim --keep` noted].",
            show_default=False,
        ),
    ] = None
    maxsim_codec: Annotated[
        str,
        typer.Option(
            help="Stored visual tokens for --maxsim: auto (those of --codec, or the only ones), a codec, or "
            "patches:NAME (of `add-tokens --tower NAME`)."
        ),
    ] = "auto"
    zoom: Zoom = None
    shown: Shown = "whole"

    @property
    def rules(self) -> dict[str, Any]:
        """Return all of them, as arguments of Retriever."""
        return {name: getattr(self, name) for name in ("maxsim", "maxsim_codec", "zoom", "shown")}


@dataclass(frozen=True)
class Ranking:
    """Order of the hits."""

    fusion: Fusion = "auto"
    ties: Ties = "default"
    direction: Direction = "auto"

    @property
    def rules(self) -> dict[str, Any]:
        """Return all of them, as arguments of Retriever."""
        return {"fusion": self.fusion, "ties": self.ties, "direction": self.direction}


@dataclass(frozen=True)
class Stopping:
    """How far the second look goes, and files that were fitted on labels."""

    budget: Annotated[
        str,
        typer.Option(
            help="Candidates that get the second look: all; auto:0.01 (until the chance to miss a relevant one is "
            "below this; needs --calibration); cascade:pool2+pq8@20 (all from these stored tokens, the best 20 again)."
        ),
    ] = "all"
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration file that `looktwice calibrate` made for these models.")
    ] = None
    min_precision: Annotated[
        float | None,
        typer.Option(
            help="Show only hits with a p from which this share is relevant, such as 0.95 (needs --calibration)."
        ),
    ] = None
    tuned: Tuned = None

    @property
    def rules(self) -> dict[str, Any]:
        """Return all of them, as arguments of Retriever."""
        return {"budget": self.budget, "calibration": self.calibration, "min_precision": self.min_precision}
