"""Hold the settings of a server in one record, checked in one place. Loads no model."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from looktwice.errors import UsageError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_LEAST_KEY = 16


class Settings(BaseModel):
    """The settings of a server. Everything that opens a door is off by default.

    `tables` are folders; a table's name is that of its folder without `.lt`. `mllm` None serves coarse search only.
    `maxsim` and `zoom` None: as `looktwice maxsim --keep` noted.
    `api_keys` are required on every route but the health checks; `cors` lists origins whose pages may call.
    `max_maxsim` is the deepest middle look that a request may ask for, unless `maxsim` is deeper.
    `max_queued_pairs` counts pairs that wait for the device or run on it; `max_held` the bytes of all requests' bodies,
    decoded queries and large answers. Seconds: `body_seconds` for a whole request body, `header_seconds` for its
    headers, `write_seconds` for a client to take each 64 KiB of an answer, `idle_seconds` between requests,
    `stop_seconds` for a graceful stop.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tables: tuple[Path, ...] = ()
    mllm: str | None = "tiny-vl"
    prompt: str = "auto"
    fusion: str = "auto"
    maxsim: int | None = Field(None, ge=0)
    zoom: bool | None = None
    shown: Literal["whole", "both"] = "whole"
    shortlist: int = Field(100, ge=1)
    codec: str = "auto"
    missing_tokens: str = "encode"
    calibration: Path | None = None
    tuned: Path | None = None
    score_cache: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    resolution: int | None = None
    max_tiles: int | None = None

    host: str = "127.0.0.1"
    port: int = Field(8765, ge=0, le=65535)
    api_keys: tuple[SecretStr, ...] = ()
    cors: tuple[str, ...] = ()
    allow_write: bool = False
    allow_urls: bool = False
    tracing: bool = False

    max_queued_pairs: int = Field(5000, ge=1)
    max_requests: int = Field(256, ge=1)
    max_documents: int = Field(1000, ge=1)
    max_k: int = Field(10_000, ge=1)
    max_maxsim: int = Field(10_000, ge=1)
    max_body: int = Field(20_000_000, ge=1000)
    max_image: int = Field(20_000_000, ge=1000)
    max_pixels: int = Field(50_000_000, ge=1)
    max_text: int = Field(50_000, ge=1)
    max_connections: int = Field(512, ge=2)
    max_held: int = Field(256_000_000, ge=1000)
    body_seconds: float = Field(30, gt=0)
    write_seconds: float = Field(60, gt=0)
    header_seconds: float = Field(10, gt=0)
    idle_seconds: int = Field(5, ge=1)
    stop_seconds: int = Field(30, ge=0)
    timeout_s: float = Field(600, gt=0)

    def names(self) -> dict[str, Path]:
        """Return the folder of each table by its name. Raises UsageError for two tables of one name."""
        found: dict[str, Path] = {}
        for path in self.tables:
            name = table_name(path)
            if name in found:
                raise UsageError(f"Two tables are called {name!r}; rename one of the folders.")
            found[name] = path
        return found

    def check_doors(self) -> None:
        """Raise UsageError for a host that others can reach without a key, and for a short key."""
        if not self.api_keys and not is_loopback(self.host):
            raise UsageError(
                f"--host {self.host} lets other machines in, so an API key is required; pass --api-key-file FILE."
            )
        if any(len(key.get_secret_value()) < _LEAST_KEY for key in self.api_keys):
            raise UsageError(
                f"An API key must have at least {_LEAST_KEY} characters; create one with: openssl rand -hex 24"
            )


def table_name(path: Path) -> str:
    """Return the name of a table in addresses: that of its folder without `.lt`.

    >>> table_name(Path("data/My photos.lt"))
    'My-photos'
    """
    return _NAME.sub("-", Path(path).resolve().name.removesuffix(".lt")).strip("-") or "table"


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server on `host`.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "")]
    [True, True, True, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local(settings: Settings) -> bool:
    """Return whether only people at this machine can call, who may then see paths of its files."""
    return is_loopback(settings.host) and not settings.api_keys and not settings.cors


def read_keys(path: Path) -> tuple[SecretStr, ...]:
    """Return the keys of a file, one a line; empty lines and lines that begin with # do not count."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UsageError(
            f"The file of API keys {str(path)!r} cannot be read; pass a text file with one key a line."
        ) from None
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise UsageError(f"The file {str(path)!r} has no API key; write one key a line.")
    return tuple(map(SecretStr, keys))
