"""Options that mean the same thing in every verb: one spelling, one help text, one default.

Options that go together are a dataclass; `groups.grouped` gives a verb all of them as one parameter. Options that stand
alone are annotated types.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.search.mllm_reranker import MllmReranker
    from looktwice.sources import Urls

DEFAULT_ENCODER = "tiny-clip"

TablePath = Annotated[Path, typer.Argument(metavar="TABLE", help="The folder of the table, such as photos.lt.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout: one object, or one per line for lists.")]
Encoder = Annotated[str, typer.Option(help="The encoder: a name (see `looktwice models`), a folder, a hub id.")]
Mllm = Annotated[str, typer.Option(help="The MLLM of the second look: a name, a folder, a hub id.")]
Prompt = Annotated[
    str,
    typer.Option(help="The question: a name (see `looktwice models`) or a .toml or .json file; auto fits the pair."),
]
Fusion = Annotated[
    str,
    typer.Option("--fusion", help="0.5 is λ in λ·coarse + (1−λ)·p; p-only; rrf (reciprocal ranks)."),
]
Ties = Annotated[
    str,
    typer.Option(help="Order of candidates that share a score: default, coarse, paper, repaired, released-code."),
]
Direction = Annotated[
    str, typer.Option(help="What is shown of queries and candidates: auto, or such as text-to-image, both-to-both.")
]
Shortlist = Annotated[int, typer.Option(help="How many candidates get the second look.")]
K = Annotated[int, typer.Option("-k", "--k", help="How many hits to show.")]
Where = Annotated[str | None, typer.Option(help='Only items that pass this SQL filter, such as "year > 2020".')]
NoRerank = Annotated[bool, typer.Option("--no-rerank", help="The shortlist only, no second look.")]
QueryFile = Annotated[
    Path,
    typer.Option("--queries", help='JSON Lines of {"id", "image", "text"}; paths relative to the file.'),
]
Codec = Annotated[
    str, typer.Option(help="Stored visual tokens to use: auto (where there are any), pictures (never), or a codec.")
]
TokenCodec = Annotated[str, typer.Option("--codec", help="How tokens are kept: see `looktwice models codec`.")]
Asymmetric = Annotated[
    bool, typer.Option("--asymmetric", help="Leave the query's visual tokens uncompressed where candidates' are not.")
]
Resolution = Annotated[
    int | None,
    typer.Option(help="Longer side in pixels (Qwen-VL and others with native resolution).", show_default=False),
]
MaxTiles = Annotated[int | None, typer.Option(help="Tiles per image (SmolVLM, InternVL, LLaVA).", show_default=False)]
MaxFailures = Annotated[int | None, typer.Option(min=0, help="Stop when more items than this fail.")]
ScoreCache = Annotated[
    Path | None,
    typer.Option(
        help="Remember scores in this file, for this run if it is interrupted and for later ones. Such a score is of "
        "the image as it was indexed, which is not read again."
    ),
]


@dataclass(frozen=True)
class Compute:
    """Where models run."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto"
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16, float16. auto takes what the device is fast in.")
    ] = "auto"
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads [default: idle cores].", show_default=False)
    ] = None

    def set_threads(self) -> None:
        """Set the number of CPU threads of torch and FAISS."""
        from looktwice.models.device import set_threads

        set_threads(self.threads)

    @property
    def placement(self) -> dict[str, Any]:
        """Return device and dtype, as arguments of whatever loads a model."""
        return {"device": self.device, "dtype": self.dtype}


@dataclass(frozen=True)
class UrlOptions:
    """Which URLs may be fetched."""

    allow_urls: Annotated[
        bool,
        typer.Option("--allow-urls", help="Fetch URLs that a table or a .jsonl list names, from public addresses."),
    ] = False
    allow_private_urls: Annotated[
        bool, typer.Option("--allow-private-urls", help="Also from this machine and its network, or by a proxy.")
    ] = False

    @property
    def allowed(self) -> Urls:
        """Return the policy that both flags make."""
        return "private" if self.allow_private_urls else "public" if self.allow_urls else "refused"


@dataclass(frozen=True)
class ImageLimits:
    """How large an image the MLLM is shown."""

    resolution: Resolution = None
    max_tiles: MaxTiles = None

    @property
    def sizes(self) -> dict[str, Any]:
        """Return both, as arguments of `load_scorer`."""
        return {"resolution": self.resolution, "max_tiles": self.max_tiles}


@dataclass(frozen=True)
class Rerank:
    """The MLLM of the second look, what it is asked and how its answer is read."""

    mllm: Mllm = "tiny-vl"
    prompt: Prompt = "auto"
    score_mode: Annotated[str, typer.Option(help="What is read of the answer: see `looktwice models score-mode`.")] = (
        "p-label"
    )
    retrace: Annotated[
        str, typer.Option(help="Show images once more while the model answers: see `looktwice models retrace`.")
    ] = "off"
    prior: Annotated[
        str,
        typer.Option(
            help="Divide out what the model says without the candidate, or without the query: off, candidate, query."
        ),
    ] = "off"
    repetition_penalty: Annotated[
        bool,
        typer.Option(
            "--repetition-penalty", help="Apply the checkpoint's repetition penalty first, as MLLM-ILR's code does."
        ),
    ] = False
    batch_size: Annotated[
        int | None, typer.Option(help="Pairs scored at once [default: what fits].", show_default=False)
    ] = None
    resolution: Resolution = None
    max_tiles: MaxTiles = None

    def load(self, compute: Compute, *, cache: Path | None = None, prompt: str | None = None) -> MllmReranker:
        """Return the second look; its weights load when the first pair is scored."""
        from looktwice.score import ScorerConfig
        from looktwice.search.mllm_reranker import MllmReranker

        config = ScorerConfig(
            as_released=self.repetition_penalty,
            batch_size=self.batch_size,
            resolution=self.resolution,
            max_tiles=self.max_tiles,
            score_mode=self.score_mode,
            retrace=self.retrace,
            prior=self.prior,
            **compute.placement,
        )
        return MllmReranker(self.mllm, prompt=prompt or self.prompt, cache=cache, config=config)


@dataclass(frozen=True)
class StoredTokens:
    """Which stored visual tokens the second look sees."""

    codec: Codec = "auto"
    missing_tokens: Annotated[
        str, typer.Option(help="A candidate without stored tokens: error, encode (look at its image) or skip.")
    ] = "error"
    asymmetric: Asymmetric = False

    @property
    def choice(self) -> dict[str, Any]:
        """Return all of them, as arguments of Retriever."""
        return {"codec": self.codec, "missing_tokens": self.missing_tokens, "asymmetric": self.asymmetric}


@dataclass(frozen=True)
class Ranking:
    """How both looks become one order."""

    fusion: Fusion = "0.5"
    ties: Ties = "default"
    direction: Direction = "auto"

    @property
    def rules(self) -> dict[str, Any]:
        """Return all of them, as arguments of Retriever."""
        return {"fusion": self.fusion, "ties": self.ties, "direction": self.direction}


@dataclass(frozen=True)
class Stopping:
    """How much of a shortlist gets the second look, and which hits are shown."""

    budget: Annotated[
        str,
        typer.Option(
            help="all; auto:0.01: stop when the rest matters with less than that chance (--calibration); "
            "cascade:pool2+pq8@20: all from these stored tokens, the best 20 once more."
        ),
    ] = "all"
    calibration: Annotated[Path | None, typer.Option(help="What `looktwice calibrate` made for these models.")] = None
    min_precision: Annotated[
        float | None, typer.Option(help="Only hits that are right with this precision, such as 0.95 (--calibration).")
    ] = None

    @property
    def rules(self) -> dict[str, Any]:
        """Return all of them, as arguments of Retriever."""
        return {"budget": self.budget, "calibration": self.calibration, "min_precision": self.min_precision}


@dataclass(frozen=True)
class Output:
    """Where answers go, and what is said of each hit."""

    run: Annotated[
        Path | None,
        typer.Option("--run", help="Write whole rankings as a TREC run, and what it was made with beside it as .json."),
    ] = None
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Write one HTML file that shows both orders, of the first 200 queries."),
    ] = None
    explain: Annotated[bool, typer.Option("--explain", help="Under each hit: what its score is made of.")] = False
    json: Json = False


def refuse_unused(ctx: typer.Context, unused: Collection[str], where: str) -> None:
    """Refuse options that were given and would be passed over in silence."""
    for option in ctx.command.params:
        source = ctx.get_parameter_source(str(option.name))
        if option.name in unused and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{option.opts[0]} does nothing {where}; leave it out.")
