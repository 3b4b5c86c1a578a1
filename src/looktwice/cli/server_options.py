"""Options of a second look on a server: `--mllm http://HOST:PORT/v1#MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli.console import note

if TYPE_CHECKING:
    from looktwice.score.remote.config import RemoteConfig

Concurrency = Annotated[int, typer.Option(help="Most requests to a server at once.")]
Timeout = Annotated[
    float,
    typer.Option(help="Seconds for one pair with its retries, and for a server to come back."),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(help="File with the server's key [default: the variable LOOKTWICE_API_KEY]."),
]
Price = Annotated[float | None, typer.Option(help="Money per million tokens that a server reads.")]
MaxCost = Annotated[
    float | None,
    typer.Option(help="Refuse a run that would cost more than this (needs --price)."),
]
TokensFrom = Annotated[
    str | None,
    typer.Option(
        help="Send stored visual tokens of this local model in place of images; the server must run the same model.",
    ),
]
Proxy = Annotated[str | None, typer.Option(help="Proxy on the way to the server.")]
CacheSalt = Annotated[
    str | None,
    typer.Option(help="Keep the server's prefix cache apart from that of callers with another salt (vLLM)."),
]
ImageIds = Annotated[
    bool,
    typer.Option("--image-ids", help="Send each image's hash as its uuid, by which vLLM recognises it."),
]
NAMES = (
    *("concurrency", "timeout", "api_key_file", "price", "max_cost", "tokens_from", "cache_salt", "image_ids", "proxy"),
)


def remote_config(group: Any, mllm: str) -> RemoteConfig:
    """Return the settings of servers from a group of options that has these fields; note a price of a local model."""
    from looktwice.score.remote.config import RemoteConfig

    if group.price is not None and "://" not in mllm:
        note(f"--price has no effect on {mllm}: only tokens that a server reads are counted.")
    given = {name: getattr(group, name) for name in NAMES if name != "api_key_file"}
    return RemoteConfig(key_file=group.api_key_file, **given)
