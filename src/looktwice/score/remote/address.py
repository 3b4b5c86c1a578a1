"""Read the addresses of servers from a scorer's name: kind, base URL and model. Loads no library."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from looktwice.errors import UsageError

ServerKind: TypeAlias = Literal["chat", "decisions", "systemone", "rerank"]
KINDS: tuple[ServerKind, ...] = get_args(ServerKind)
_BARE = re.compile(r"^(?:[\w-]+\+)?(?:\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}(?:[/#].*)?$|^localhost(?:[/#].*)?$")


@dataclass(frozen=True, slots=True)
class Address:
    """One server. `base` is the URL before `/chat/completions` and its like; `model` None takes the only one there."""

    kind: ServerKind
    base: str
    model: str | None

    @property
    def root(self) -> str:
        """Return the URL without the version, below which vLLM has `/tokenize`, `/version` and `/metrics`."""
        return re.sub(r"/v\d+$", "", self.base)

    @property
    def private(self) -> bool:
        """Return whether the host is this machine or an address of a private network."""
        host = urlsplit(self.base).hostname or ""
        try:
            return ipaddress.ip_address(host).is_private
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    def __str__(self) -> str:
        kind = "" if self.kind == "chat" else f"{self.kind}+"
        return f"{kind}{self.base}" + (f"#{self.model}" if self.model else "")


def parse(name: str) -> tuple[Address, ...]:
    """Read one address, or several with commas between them.

    Raises UsageError for an address without a host, with a key or password in it, or of another kind than the others.

    >>> [str(a) for a in parse("http://a:8000/v1/#m,http://b:8000/v1#m")]
    ['http://a:8000/v1#m', 'http://b:8000/v1#m']
    """
    found = tuple(_one(part.strip()) for part in re.split(r",(?=(?:\w+\+)?https?://)", name.strip()))
    if len({address.kind for address in found}) > 1:
        raise UsageError("The servers of one --mllm must be of one kind; name addresses that begin alike.")
    if len(set(found)) < len(found):
        raise UsageError("--mllm names one server twice; leave one out.")
    return found


def lacks_scheme(name: str) -> bool:
    """Return whether a name looks like an address without http:// before it.

    >>> lacks_scheme("localhost:8000/v1#m"), lacks_scheme("org/model")
    (True, False)
    """
    return bool(_BARE.match(name))


def _one(text: str) -> Address:
    scheme, _, rest = text.partition("://")
    prefix, _, plain = scheme.rpartition("+")
    try:
        parts = urlsplit(f"{plain}://{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    kind = prefix or "chat"
    if plain not in ("http", "https") or not host or kind not in KINDS:
        raise UsageError(f"{_shown(text)!r} is not the address of a server; write it as http://HOST:PORT/v1#MODEL.")
    if parts.username is not None or parts.password is not None or parts.query:
        raise UsageError(
            f"The address of {host} holds a password or a query; put the key into LOOKTWICE_API_KEY or --api-key-file."
        )
    where = f"[{host}]" if ":" in host else host
    base = f"{plain}://{where}" + (f":{port}" if port else "") + parts.path.rstrip("/")
    return Address(kind, base, parts.fragment or None)


def _shown(text: str) -> str:
    """Return an address without what may be a secret."""
    return re.sub(r"//[^/@#]*@", "//…@", text).partition("?")[0]
