"""`looktwice serve`: answer searches over HTTP, with a page."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options, tuned
from looktwice.cli.console import note, say
from looktwice.cli.groups import grouped
from looktwice.cli.presets import Preset, note_drawings
from looktwice.cli.unused import refuse_unused

if TYPE_CHECKING:
    from looktwice.serve import Settings


SECOND = {"mllm", "prompt", "fusion", "shown", "resolution", "max_tiles", "score_cache", "calibration", "tuned"}
"""Parameters that only the second look uses."""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("serve", short_help="Serve tables over HTTP, with a page.")(serve)


@dataclass(frozen=True)
class SearchDefaults:
    """Looks, unless a request chooses other ones."""

    mllm: options.Mllm = "tiny-vl"
    no_rerank: Annotated[bool, typer.Option("--no-rerank", help="Load no MLLM; serve first looks only.")] = False
    prompt: options.Prompt = "auto"
    fusion: options.Fusion = "auto"
    shortlist: options.Shortlist = 100
    maxsim: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Candidates of a middle look, if a request names none [default: as `looktwice maxsim --keep` noted].",
            show_default=False,
        ),
    ] = None
    zoom: options.Zoom = None
    shown: options.Shown = "whole"
    codec: options.Codec = "auto"
    resolution: options.Resolution = None
    max_tiles: options.MaxTiles = None
    preset: Preset = None
    score_cache: options.ScoreCache = None
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration file that `looktwice calibrate` made for these models.")
    ] = None
    tuned: options.Tuned = None

    @property
    def chosen(self) -> dict[str, Any]:
        """Return all of them, as settings of a server."""
        _, prompt = tuned.read(self.tuned, self.fusion, self.prompt)
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("no_rerank", "preset")}
        return {**own, "mllm": None if self.no_rerank else self.mllm, "prompt": prompt or self.prompt}


@dataclass(frozen=True)
class AccessOptions:
    """Access; all of it is closed by default."""

    host: Annotated[str, typer.Option(help="Address to listen on; one that others reach needs a key.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8765
    api_key_file: Annotated[
        Path | None, typer.Option(help="File of API keys, one a line; then every request needs one.")
    ] = None
    allow_write: Annotated[bool, typer.Option("--allow-write", help="Let requests add, replace and delete items.")] = (
        False
    )
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch images at public URLs that requests and tables name.")
    ] = False
    tracing: Annotated[
        bool, typer.Option("--tracing", help="Trace requests with OpenTelemetry; OTEL_TRACES_EXPORTER says where to.")
    ] = False
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Site whose pages may call, such as https://shop.example. Repeatable."),
    ] = None

    @property
    def chosen(self) -> dict[str, Any]:
        """Return all of them, as settings of a server."""
        from looktwice.serve.settings import read_keys

        keys = read_keys(self.api_key_file) if self.api_key_file is not None else ()
        flags = {"allow_write": self.allow_write, "allow_urls": self.allow_urls, "tracing": self.tracing}
        return {"host": self.host, "port": self.port, "api_keys": keys, "cors": tuple(self.cors or ()), **flags}


@dataclass(frozen=True)
class LimitOptions:
    """Limits."""

    max_queued_pairs: Annotated[int, typer.Option(min=1, help="Pairs that may wait; more are refused (429).")] = 5000
    max_body: Annotated[str, typer.Option(help="Largest request, such as 20MB.")] = "20MB"

    @property
    def chosen(self) -> dict[str, Any]:
        """Return all of them, as settings of a server."""
        return {"max_queued_pairs": self.max_queued_pairs, "max_body": bytes_of(self.max_body)}


@grouped
def serve(
    ctx: typer.Context,
    tables: Annotated[list[Path] | None, typer.Argument(metavar="TABLE", help="Folders of the tables.")] = None,
    *,
    looks: SearchDefaults,
    doors: AccessOptions,
    limits: LimitOptions,
    workers: Annotated[int, typer.Option(min=1, help="Processes that take first looks; needs --no-rerank.")] = 1,
    compute: options.Compute,
) -> None:
    """Serve tables over HTTP: an API that rerank clients know, and a page to search with.

    Everything that opens a door is off: other machines, writing, fetching URLs, other sites' pages.

    Examples:

      looktwice serve photos.lt

      looktwice serve photos.lt --preset laptop

      looktwice serve photos.lt --mllm qwen3-vl-2b --host 0.0.0.0 --api-key-file keys.txt
    """
    from looktwice.serve.settings import Settings

    if looks.no_rerank:
        refuse_unused(ctx, SECOND, "with --no-rerank")
    compute.set_threads()
    settings = Settings(
        tables=tuple(tables or ()),
        **looks.chosen,
        **doors.chosen,
        **limits.chosen,
        **compute.placement,
    )
    note_drawings(None if looks.no_rerank else looks.mllm)
    if not tables:
        note("No table was named, so there is nothing to search; /v1/rerank, /v1/score and /v1/decisions work.")
    run_server(settings, workers)


def run_server(settings: Settings, workers: int = 1) -> None:
    """Serve until interrupted, and print the address when the server is ready."""
    from looktwice.serve.run import log_to_stderr
    from looktwice.serve.run import serve as run

    stop = log_to_stderr()
    try:
        if workers > 1:
            from looktwice.serve.workers import serve_many

            serve_many(settings, workers, _announce)
        else:
            run(settings, _announce)
    finally:
        stop()


def _announce(address: str) -> None:
    say(f"Serving at {address}")
    sys.stdout.flush()


def bytes_of(text: str) -> int:
    """Return a size in bytes. Raises UsageError.

    >>> bytes_of("20MB"), bytes_of("512k")
    (20000000, 512000)
    """
    from looktwice.errors import UsageError

    number = text.strip().upper().removesuffix("B")
    scale = {"K": 10**3, "M": 10**6, "G": 10**9}.get(number[-1:], 1)
    try:
        return int(float(number.rstrip("KMG")) * scale)
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is not a size; write one such as 20MB.") from None
