"""Options that several verbs share: one spelling, one help text, one default.

Options that go together are a dataclass; `groups.grouped` gives a verb all of them as one parameter. Options that stand
alone are annotated types.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli.outputs import Json as Json
from looktwice.cli.outputs import Output as Output
from looktwice.cli.presets import Preset
from looktwice.cli.ranking_options import Direction as Direction
from looktwice.cli.ranking_options import Fusion as Fusion
from looktwice.cli.ranking_options import Middle as Middle
from looktwice.cli.ranking_options import Ranking as Ranking
from looktwice.cli.ranking_options import Shown as Shown
from looktwice.cli.ranking_options import Stopping as Stopping
from looktwice.cli.ranking_options import Ties as Ties
from looktwice.cli.ranking_options import Tuned as Tuned
from looktwice.cli.ranking_options import Zoom as Zoom
from looktwice.cli.server_options import Servers

if TYPE_CHECKING:
    from looktwice.search.mllm_reranker import MllmReranker
    from looktwice.sources import Urls

DEFAULT_ENCODER, DEFAULT_CODEC = "tiny-clip", "opq8"

TablePath = Annotated[
    Path, typer.Argument(metavar="TABLE", help="The table: a folder such as photos.lt, or s3://BUCKET/photos.lt.")
]
Encoder = Annotated[str, typer.Option(help="Encoder: a name (see `looktwice models`), a folder or a hub id.")]
Mllm = Annotated[
    str, typer.Option(help="MLLM of the second look: a name, a folder, a hub id, or http://HOST:PORT/v1#MODEL.")
]
Prompt = Annotated[
    str,
    typer.Option(help="Prompt: a name (see `looktwice models`) or a .toml or .json file; auto fits the pair."),
]
Shortlist = Annotated[int, typer.Option(help="Number of candidates that get the second look.")]
K = Annotated[int, typer.Option("-k", "--k", help="Number of hits to show.")]
MinCosine = Annotated[
    float, typer.Option(help="Cosine from which two items are near-duplicates; it depends on the encoder.")
]
Where = Annotated[
    str | None,
    typer.Option(help='Only items that pass this filter: SQL such as "year > 2020", or JSON: {"year": {">": 2020}}.'),
]
NoRerank = Annotated[bool, typer.Option("--no-rerank", help="Return the shortlist without a second look.")]
QueryFile = Annotated[
    Path,
    typer.Option("--queries", help='JSON Lines of {"id", "image", "text"}; paths relative to the file.'),
]
Codec = Annotated[
    str,
    typer.Option(
        help="Stored visual tokens to use: auto (any that exist), images (none, read the images), or a codec."
    ),
]
TokenCodec = Annotated[str, typer.Option("--codec", help="Codec that stores the tokens: see `looktwice models codec`.")]
Asymmetric = Annotated[
    bool,
    typer.Option("--asymmetric", help="Keep the query's visual tokens uncompressed while candidates' are compressed."),
]
Resolution = Annotated[
    int | None,
    typer.Option(help="Longest image side in pixels (Qwen-VL and others with native resolution).", show_default=False),
]
MaxTiles = Annotated[
    int | None, typer.Option(help="Most tiles per image (SmolVLM, InternVL, LLaVA).", show_default=False)
]
MaxFailures = Annotated[int | None, typer.Option(min=0, help="Stop when more items than this fail.")]
ScoreCache = Annotated[
    Path | None,
    typer.Option(
        help="Keep scores in this file, to continue an interrupted run and to reuse them in later ones. A cached score "
        "is that of the image as it was indexed; the image is not read again."
    ),
]


@dataclass(frozen=True)
class Compute:
    """Device, dtype and threads."""

    device: Annotated[str, typer.Option(help="Device of the models: auto, cpu, cuda, cuda:1, mps.")] = "auto"
    dtype: Annotated[
        str, typer.Option(help="dtype of the models: auto (the fastest of the device), float32, bfloat16, float16.")
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
        """Return device and dtype, as arguments of the loaders."""
        return {"device": self.device, "dtype": self.dtype}


@dataclass(frozen=True)
class UrlOptions:
    """URLs that may be fetched."""

    allow_urls: Annotated[
        bool,
        typer.Option("--allow-urls", help="Fetch URLs that a table or a .jsonl list names, from public addresses."),
    ] = False
    allow_private_urls: Annotated[
        bool, typer.Option("--allow-private-urls", help="Also fetch from this machine and its network, or by a proxy.")
    ] = False

    @property
    def allowed(self) -> Urls:
        """Return the policy that both flags select."""
        return "private" if self.allow_private_urls else "public" if self.allow_urls else "refused"


@dataclass(frozen=True)
class ImageLimits:
    """Size of the images that the MLLM sees."""

    resolution: Resolution = None
    max_tiles: MaxTiles = None

    @property
    def sizes(self) -> dict[str, Any]:
        """Return both, as arguments of `load_scorer`."""
        return {"resolution": self.resolution, "max_tiles": self.max_tiles}


@dataclass(frozen=True)
class Rerank(Servers):
    """Second look: the MLLM, its prompt and how its answer is read."""

    mllm: Mllm = "tiny-vl"
    prompt: Prompt = "auto"
    score_mode: Annotated[
        str, typer.Option(help="How a score is read from the answer: see `looktwice models score-mode`.")
    ] = "p-label"
    retrace: Annotated[
        str, typer.Option(help="Show the images again while the model answers: see `looktwice models retrace`.")
    ] = "off"
    prior: Annotated[
        str,
        typer.Option(
            help="Correct p for the model's answer without the candidate, or without the query: off, candidate, query."
        ),
    ] = "off"
    repetition_penalty: Annotated[
        bool,
        typer.Option(
            "--repetition-penalty", help="Apply the checkpoint's repetition penalty first, as MLLM-ILR's code does."
        ),
    ] = False
    batch_size: Annotated[
        int | None, typer.Option(help="Pairs scored at once [default: as many as fit into memory].", show_default=False)
    ] = None
    resolution: Resolution = None
    max_tiles: MaxTiles = None
    preset: Preset = None

    def load(self, compute: Compute, *, cache: Path | None = None, prompt: str | None = None) -> MllmReranker:
        """Return the reranker; its weights load when the first pair is scored."""
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
            remote=self.remote(),
            **compute.placement,
        )
        return MllmReranker(self.mllm, prompt=prompt or self.prompt, cache=cache, config=config)

    def other(self, name: str, prompt: str, compute: Compute) -> MllmReranker:
        """Return another reranker, with this prompt, the servers' settings, and defaults for the rest."""
        from looktwice.search.mllm_reranker import MllmReranker

        return MllmReranker(name, prompt=prompt, remote=self.remote(), **compute.placement)


@dataclass(frozen=True)
class StoredTokens:
    """Stored visual tokens in the second look."""

    codec: Codec = "auto"
    missing_tokens: Annotated[
        str, typer.Option(help="For a candidate without stored tokens: error, encode (read its image) or skip.")
    ] = "error"
    asymmetric: Asymmetric = False

    @property
    def choice(self) -> dict[str, Any]:
        """Return all of them, as arguments of Retriever."""
        return {"codec": self.codec, "missing_tokens": self.missing_tokens, "asymmetric": self.asymmetric}
