"""Options that mean the same thing in every verb: one spelling, one help text, one default."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.sources import Urls

TablePath = Annotated[Path, typer.Argument(metavar="TABLE", help="The folder of the table, such as photos.lt.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout: one object, or one per line for lists.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16. auto takes what the device is fast in.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads [default: idle cores].", show_default=False)]
Encoder = Annotated[str, typer.Option(help="The encoder: a name (see `looktwice models`), a folder, a hub id.")]
Mllm = Annotated[str, typer.Option(help="The MLLM of the second look: a name, a folder, a hub id.")]
Prompt = Annotated[
    str,
    typer.Option(help="The question: a name (see `looktwice models`) or a .toml or .json file; auto fits the pair."),
]
FusionRule = Annotated[
    str,
    typer.Option("--fusion", help="0.5 is λ in λ·coarse + (1−λ)·p; p-only; rrf (reciprocal ranks)."),
]
Shortlist = Annotated[int, typer.Option(help="How many candidates get the second look.")]
K = Annotated[int, typer.Option("-k", "--k", help="How many hits to show.")]
Where = Annotated[str | None, typer.Option(help='Only items that pass this SQL filter, such as "year > 2020".')]
BatchSize = Annotated[int | None, typer.Option(help="Pairs scored at once [default: what fits].", show_default=False)]
Queries = Annotated[
    Path | None,
    typer.Option(help='Many queries: JSON Lines of {"id", "image", "text"}; paths relative to the file.'),
]
RunFile = Annotated[
    Path | None,
    typer.Option("--run", help="Write whole rankings as a TREC run, and what it was made with beside it as .json."),
]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", help="Write one HTML file that shows both orders, of the first 200 queries."),
]
Codec = Annotated[
    str, typer.Option(help="Stored visual tokens to use: auto (where there are any), pictures (never), or a codec.")
]
MissingTokens = Annotated[
    str, typer.Option(help="A candidate without stored tokens: error, encode (look at its picture) or skip.")
]
Asymmetric = Annotated[
    bool, typer.Option("--asymmetric", help="Leave the query's visual tokens uncompressed where candidates' are not.")
]
AsReleased = Annotated[
    bool,
    typer.Option("--as-released", help="Apply the checkpoint's repetition penalty first, as MLLM-ILR's code does."),
]
ScoreCache = Annotated[
    Path | None,
    typer.Option(
        help="Remember scores in this file, for this run if it is interrupted and for later ones. Such a score is of "
        "the picture as it was indexed, which is not read again."
    ),
]
Resolution = Annotated[
    int | None,
    typer.Option(help="Longer side in pixels (Qwen-VL and others with native resolution).", show_default=False),
]
MaxTiles = Annotated[int | None, typer.Option(help="Tiles per picture (SmolVLM, InternVL, LLaVA).", show_default=False)]
ScoreMode = Annotated[str, typer.Option(help="What is read of the answer: see `looktwice models score-mode`.")]
Retrace = Annotated[
    str, typer.Option(help="Show pictures once more while the model answers: see `looktwice models retrace`.")
]
Ties = Annotated[
    str,
    typer.Option(help="Order of candidates that share a score: default, coarse, paper, repaired, released-code."),
]
Direction = Annotated[
    str, typer.Option(help="What is shown of queries and candidates: auto, or such as text-to-image, both-to-both.")
]
Budget = Annotated[
    str,
    typer.Option(
        help="all; auto:0.01: stop when the rest matters with less than that chance (--calibration); "
        "cascade:pool2+pq8@20: all from these stored tokens, the best 20 once more."
    ),
]
Calibration = Annotated[Path | None, typer.Option(help="What `looktwice calibrate` made for these models.")]
Sure = Annotated[
    float | None, typer.Option(help="Only hits that are right with this precision, such as 0.95 (--calibration).")
]
Explain = Annotated[bool, typer.Option("--explain", help="Under each hit: what its score is made of.")]
Prior = Annotated[
    str,
    typer.Option(
        help="Divide out what the model says without the candidate, or without the query: off, candidate, query."
    ),
]

AllowUrls = Annotated[
    bool, typer.Option("--allow-urls", help="Fetch URLs that a table or a .jsonl list names, from public addresses.")
]
AllowPrivateUrls = Annotated[
    bool, typer.Option("--allow-private-urls", help="Also from this machine and its network, or by a proxy.")
]


def urls(allowed: bool, private: bool) -> Urls:
    """Which URLs --allow-urls and --allow-private-urls let us fetch."""
    return "private" if private else "public" if allowed else "refused"


def refuse_unused(ctx: typer.Context, unused: Collection[str], where: str) -> None:
    """Refuse options that were given and would be passed over in silence."""
    for option in ctx.command.params:
        source = ctx.get_parameter_source(str(option.name))
        if option.name in unused and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{option.opts[0]} does nothing {where}; leave it out.")
