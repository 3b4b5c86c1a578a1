"""`looktwice serve`: answer searches over HTTP, with a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import note, say
from looktwice.cli.groups import grouped


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("serve", short_help="Serve tables over HTTP, with a page.")(serve)


@grouped
def serve(
    tables: Annotated[
        list[Path] | None, typer.Argument(metavar="TABLE...", help="Folders of the tables.", show_default=False)
    ] = None,
    *,
    mllm: options.Mllm = "tiny-vl",
    no_rerank: Annotated[bool, typer.Option("--no-rerank", help="Load no MLLM; serve first looks only.")] = False,
    prompt: options.Prompt = "auto",
    fusion: options.Fusion = "0.5",
    shortlist: options.Shortlist = 100,
    codec: options.Codec = "auto",
    score_cache: options.ScoreCache = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this machine's needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8765,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File of API keys, one a line; then each request needs one.")
    ] = None,
    allow_write: Annotated[
        bool, typer.Option("--allow-write", help="Let requests add, replace and delete items.")
    ] = False,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch images at public URLs that requests name.")
    ] = False,
    max_queued_pairs: Annotated[int, typer.Option(min=1, help="Pairs that may wait; more are refused (429).")] = 5000,
    max_body: Annotated[str, typer.Option(help="Largest request, such as 20MB.")] = "20MB",
    cors: Annotated[
        list[str] | None,
        typer.Option(help="Origin whose pages may call, such as https://shop.example.", show_default=False),
    ] = None,
    compute: options.Compute,
) -> None:
    """Serve tables over HTTP: an API that rerank clients know, and a page to search with.

    Everything that opens a door is off: other machines, writing, fetching URLs, other sites' pages.

    Examples:

      looktwice serve photos.lt

      looktwice serve photos.lt --mllm qwen3-vl-2b --host 0.0.0.0 --api-key-file keys.txt
    """
    from looktwice.serve.run import log_to_stderr
    from looktwice.serve.run import serve as run
    from looktwice.serve.settings import Settings, read_keys

    compute.set_threads()
    log_to_stderr()
    settings = Settings(
        tables=tuple(tables or ()),
        mllm=None if no_rerank else mllm,
        prompt=prompt,
        fusion=fusion,
        shortlist=shortlist,
        codec=codec,
        score_cache=score_cache,
        host=host,
        port=port,
        api_keys=read_keys(api_key_file) if api_key_file else (),
        allow_write=allow_write,
        allow_urls=allow_urls,
        max_queued_pairs=max_queued_pairs,
        max_body=_bytes(max_body),
        cors=tuple(cors or ()),
        **compute.placement,
    )
    if not tables:
        note("No table was named, so there is nothing to search; /v1/rerank, /v1/score and /v1/decisions work.")
    run(settings, ready=lambda address: say(f"Serving at {address}"))


def _bytes(text: str) -> int:
    """Return a size in bytes.

    >>> _bytes("20MB"), _bytes("512k")
    (20000000, 512000)
    """
    from looktwice.errors import UsageError

    number = text.strip().upper().removesuffix("B")
    scale = {"K": 10**3, "M": 10**6, "G": 10**9}.get(number[-1:], 1)
    try:
        return int(float(number.rstrip("KMG")) * scale)
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is not a size; write one such as 20MB.") from None
