"""Fetching a URL that somebody else wrote: http and https only, and from public addresses unless told otherwise.

A list of URLs comes from strangers, and the machine that reads it may reach what they cannot: its own services, those
of the local network, a cloud's metadata. So the address is checked where the connection is made, for the first URL and
for each redirect: a name is resolved once, and a second answer of its server changes nothing.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
import urllib.request
from functools import cache
from typing import Any

from looktwice.errors import MediaError

CONNECT_SECONDS = 30

FETCH_SECONDS = 120
"""A download that takes longer is given up: a server that sends a byte now and then must not hold up a run for good."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def fetch(url: str, limit: int, private: bool) -> bytes:
    """Return what lies at `url`. Raises MediaError: `download`, `forbidden-address`, `too-large` (above `limit` bytes).

    With `private` any address will do, and the environment's proxies are used; a proxy resolves names itself, so that
    without it there is none.
    """
    try:
        with _opener(private).open(url, timeout=CONNECT_SECONDS) as answer:
            data = _within_time(answer, limit)
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        raise MediaError("download", str(error)) from None
    if len(data) > limit:
        raise MediaError("too-large", f"more than {limit:,} bytes")
    return data


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, and not of this machine, its network, or no single machine's.

    >>> [is_public(a) for a in ("8.8.8.8", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1%eth0")]
    [True, False, False, False, False]
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if parsed in _NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        parsed = inner or parsed
    return parsed.is_global and not parsed.is_multicast


class _Public(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = _connect(self.host, self.port, self.timeout)


class _PublicTLS(_Public):
    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        self.sock = _certificates().wrap_socket(self.sock, server_hostname=self.host)


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


class _HTTP(urllib.request.HTTPHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(_Public, request)


class _HTTPS(urllib.request.HTTPSHandler):
    def https_open(self, request: Any) -> Any:
        return self.do_open(_PublicTLS, request)


def _opener(private: bool) -> urllib.request.OpenerDirector:
    """urllib's default opener without ftp:, file: and data:, to which a redirect could lead."""
    own: list[Any] = [_HTTP(), _HTTPS()]
    usual: list[Any] = [urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()]
    opener = urllib.request.OpenerDirector()
    for handler in (
        *(usual if private else own),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _connect(host: str, port: int, timeout: float | None) -> socket.socket:
    """Connect to the first address of `host` that answers; each is checked before anything is sent to it."""
    trouble: OSError = OSError(f"{host} has no address")
    for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        address = str(place[0])
        if not is_public(address):
            raise MediaError("forbidden-address", f"{host} ({address}) is not on the public internet")
        try:
            return socket.create_connection((address, port), timeout)
        except OSError as error:
            trouble = error
    raise trouble


def _within_time(answer: Any, limit: int) -> bytes:
    """Read at most `limit` + 1 bytes; the socket's own time limit counts anew with every byte that comes."""
    data, end = bytearray(), time.monotonic() + FETCH_SECONDS
    while len(data) <= limit and (part := answer.read1(2**20)):
        data += part
        if time.monotonic() > end:
            raise TimeoutError(f"it took longer than {FETCH_SECONDS} s")
    return bytes(data)
