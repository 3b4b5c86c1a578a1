"""Fetch a URL that somebody else wrote: http and https only, and by default from public addresses only.

A list of URLs comes from strangers, and the machine that reads it may reach what they cannot: its own services, those
of the local network, a cloud's metadata. So the address is checked where the connection is made, for the first URL and
for each redirect: a name is resolved once, and a second answer of its server changes nothing.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import urllib.request
from contextlib import suppress
from functools import cache, partial
from typing import Any, Self

from looktwice.errors import MediaError

CONNECT_SECONDS = 30

FETCH_SECONDS = 120
"""Time limit of one download: a server that sends a byte now and then must not hold up a run for ever."""

RESOLVE_SECONDS = 30

# IANA's registries of special addresses, kept here as Python's own list differs from version to version. In
# 192.0.0.0/24 and at 168.63.129.16 clouds serve metadata; 192.88.99.0/24 were relays to anywhere.
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            *("2001::/23", "2001:db8::/32", "3fff::/20"),
        ),
    )
)
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that was ever given out to the public
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def fetch(url: str, limit: int, private: bool) -> bytes:
    """Return the bytes at `url`. Raises MediaError: `download`, `forbidden-address`, `too-large` (above `limit` bytes).

    With `private` any address is allowed and the environment's proxies are used. Without it no proxy is used, because
    a proxy resolves names itself, unchecked.
    """
    try:
        with _Line(private) as line, _opener(line).open(url, timeout=CONNECT_SECONDS) as answer:
            data: bytes = answer.read(limit + 1)
            missing = answer.length  # of what the headers promised: reading some of it is no error of http.client's
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        raise MediaError("download", str(error)) from None
    if len(data) > limit:
        raise MediaError("too-large", f"more than {limit:,} bytes")
    if missing:
        raise MediaError("download", f"the response ended {missing:,} bytes early")
    return data


def is_public(address: str) -> bool:
    """Return whether an IP address is on the public internet: not this machine, not its network, not multicast.

    >>> [is_public(a) for a in ("8.8.8.8", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1%eth0")]
    [True, False, False, False, False]
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped or parsed in _NAT64:
            return is_public(_last_four(parsed))
        if parsed.sixtofour is not None:
            return is_public(str(parsed.sixtofour))
        if parsed not in _UNICAST or (_is_isatap(parsed) and not is_public(_last_four(parsed))):
            return False
    return not any(parsed in block for block in _SPECIAL)


def _last_four(address: ipaddress.IPv6Address) -> str:
    """Return the IPv4 address in the last four bytes."""
    return str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))


def _is_isatap(address: ipaddress.IPv6Address) -> bool:
    """Return whether a tunnel forwards packets for this address to the IPv4 address in its last four bytes."""
    return int(address) >> 32 & 0xFFFFFFFF in _ISATAP


class _Line:
    """The connections of one download, shut down when its time is up.

    A socket's own time limit starts again with every byte, and headers may come byte by byte, too.
    """

    def __init__(self, private: bool) -> None:
        self.private, self._sockets, self._late = private, list[socket.socket](), False
        self._timer = threading.Timer(FETCH_SECONDS, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        for held in self._sockets:
            held.close()
        if self._late:
            raise TimeoutError(f"it took longer than {FETCH_SECONDS} s")

    def _end(self) -> None:
        self._late = True
        for held in self._sockets:
            with suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)

    def dial(self, place: tuple[str, int], timeout: float | None = None, _source: Any = None) -> socket.socket:
        """Connect in place of `socket.create_connection`."""
        made = _connect(*place, timeout, self.private)
        self._sockets.append(made.dup())  # TLS takes the socket itself away
        if self._late:  # the time ended while connecting
            made.close()
            raise TimeoutError
        return made


class _Handler(urllib.request.AbstractHTTPHandler):
    """A handler of http: and https: over the connections of one download."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def http_open(self, request: Any) -> Any:
        return self.do_open(partial(self._connection, http.client.HTTPConnection), request)

    def https_open(self, request: Any) -> Any:
        return self.do_open(partial(self._connection, http.client.HTTPSConnection), request, context=_certificates())

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def _connection(self, kind: type[http.client.HTTPConnection], host: str, **options: Any) -> Any:
        connection = kind(host, **options)
        connection._create_connection = self._line.dial  # type: ignore[attr-defined]  # the seam below tunnels and TLS
        return connection


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


def _opener(line: _Line) -> urllib.request.OpenerDirector:
    """Return urllib's default opener without ftp:, file: and data:, to which a redirect could lead."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        *([urllib.request.ProxyHandler()] if line.private else []),
        _Handler(line),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _connect(host: str, port: int, timeout: float | None, private: bool) -> socket.socket:
    """Connect to the first address of `host` that answers; each is checked before anything is sent to it."""
    trouble: OSError = OSError(f"{host} has no address")
    for address in _resolve(host, port):
        if not private and not is_public(address):
            where = f"{host} ({address}) is not on the public internet"
            raise MediaError("forbidden-address", f"{where}; pass --allow-private-urls to fetch it")
        try:
            return socket.create_connection((address, port), timeout)
        except OSError as error:
            trouble = error
    raise trouble


def _resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name. The system's resolver has no time limit, so its thread is abandoned if slow."""
    found: list[str] = []
    failed: list[OSError] = []

    def ask() -> None:
        try:
            found.extend(str(place[0]) for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failed.append(error if isinstance(error, OSError) else OSError(f"{host} is not a valid host name: {error}"))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(RESOLVE_SECONDS)
    if asking.is_alive():
        raise TimeoutError(f"the address of {host} was not found within {RESOLVE_SECONDS} s")
    if failed:
        raise failed[0]
    return found
