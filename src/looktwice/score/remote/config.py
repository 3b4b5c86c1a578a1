"""Hold the settings of scorers on servers. Loads no library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from looktwice.errors import UsageError


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """Settings of a scorer on a server.

    `concurrency`: most requests at once, per server. `timeout`: seconds that one pair may take with all its retries,
    and that a server may be away. `price`: money per million tokens read; `max_cost`: money that a scorer may spend.
    `key_file`: a file that holds the key; without one, the variables LOOKTWICE_API_KEY and LOOKTWICE_API_KEY_FILE are
    read. `tokens_from`: the local model whose vision tower made the stored tokens, which are then sent in place of
    images. `cache_salt` keeps the server's prefix cache apart for one tenant. `image_ids` sends each image's hash as
    its `uuid`, by which vLLM recognises it. `proxy`: the URL of a proxy. `check_seconds`: time between two checks that
    the server still runs the same model. `pairs`: how many a run asks at most, whose cost is told at connect.
    """

    concurrency: int = 16
    timeout: float = 300.0
    price: float | None = None
    max_cost: float | None = None
    key_file: Path | None = None
    tokens_from: str | None = None
    cache_salt: str | None = None
    image_ids: bool = False
    proxy: str | None = None
    check_seconds: float = 60.0
    pairs: int | None = None

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise UsageError("The concurrency is the number of requests at once; give at least 1.")
        if self.timeout <= 0:
            raise UsageError("The timeout is a number of seconds; give one above zero.")
        if (self.price is not None and self.price < 0) or (self.max_cost is not None and self.max_cost < 0):
            raise UsageError("A price and a maximum cost must not be negative; leave them out, or give them as money.")
        if self.max_cost is not None and self.price is None:
            raise UsageError("--max-cost needs to know what tokens cost; add --price, the money per million tokens.")


DEFAULT = RemoteConfig()
