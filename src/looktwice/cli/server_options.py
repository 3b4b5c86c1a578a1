"""Options of a second look on a server: `--mllm http://HOST:PORT/v1#MODEL`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from looktwice.score.remote.config import RemoteConfig

ApiKeyFile = Annotated[
    Path | None, typer.Option(help="File with the server's key [default: the variable LOOKTWICE_API_KEY].")
]
Price = Annotated[float | None, typer.Option(help="Money per million tokens that a server reads.")]


@dataclass(frozen=True)
class Servers:
    """Second look on a server (--mllm http://HOST:PORT/v1#MODEL)."""

    concurrency: Annotated[int, typer.Option(help="Most requests to a server at once.")] = 16
    timeout: Annotated[
        float, typer.Option(help="Seconds for one pair with its retries, and for a server to come back.")
    ] = 300
    api_key_file: ApiKeyFile = None
    price: Price = None
    max_cost: Annotated[
        float | None, typer.Option(help="Refuse a run that would cost more than this (needs --price).")
    ] = None
    tokens_from: Annotated[
        str | None,
        typer.Option(
            help="Send stored visual tokens of this local model in place of images; the server must run the same model."
        ),
    ] = None
    cache_salt: Annotated[
        str | None,
        typer.Option(help="Keep the server's prefix cache apart from that of callers with another salt (vLLM)."),
    ] = None
    image_ids: Annotated[
        bool, typer.Option("--image-ids", help="Send each image's hash as its uuid, by which vLLM recognises it.")
    ] = False
    proxy: Annotated[str | None, typer.Option(help="Proxy on the way to the server.")] = None

    def remote(self) -> RemoteConfig:
        """Return all of them, as the settings of servers."""
        from looktwice.score.remote.config import RemoteConfig

        return RemoteConfig(
            key_file=self.api_key_file,
            concurrency=self.concurrency,
            timeout=self.timeout,
            price=self.price,
            max_cost=self.max_cost,
            tokens_from=self.tokens_from,
            cache_salt=self.cache_salt,
            image_ids=self.image_ids,
            proxy=self.proxy,
        )
