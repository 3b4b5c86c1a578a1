"""Uris: reading again, downloads and which addresses are asked."""

from __future__ import annotations

import io
import json
import os
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from colour_encoder import picture
from hypothesis import given
from hypothesis import strategies as st
from sources_helpers import make, met, refuse, write_list

from looktwice.errors import MediaError
from looktwice.sources import (
    HiddenPlaces,
    Scope,
    Scopes,
    Source,
    file_uri,
    read_uri,
)
from looktwice.sources.download import _Line, is_public
from looktwice.sources.uri import range_uri


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    uri = file_uri(make(tmp_path, "a.png") / "a.png")
    from hashlib import sha256

    right = sha256(read_uri(uri)).hexdigest()
    assert read_uri(uri, sha256=right)
    (tmp_path / "a.png").write_bytes(b"other")
    with pytest.raises(MediaError, match="changed"):
        read_uri(uri, sha256=right)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "a.png",
        "/a.png",
        "file://host/a.png",
        "file:///a%00",
        "file:///a\0b",
        "file:///a#x",
        "ftp://h/a",
        "file:///\ud800",
    ]
    + [f"file:///a#offset={place}&size=1" for place in ("9" * 20, "9" * 5000, "\u0661", "-1")],
)
def test_uris_that_looktwice_does_not_write(uri: str) -> None:
    with pytest.raises(MediaError, match="bad-uri"):
        read_uri(uri)


def test_too_many_bytes(tmp_path: Path) -> None:
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(2**29 + 1)  # sparse: it takes no disk
    with pytest.raises(MediaError, match="too-large"):
        read_uri(file_uri(tmp_path / "a.png"))


class Trickle(io.FileIO):
    """A file of a network share: one read gives a few bytes at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(7)

    def readinto(self, into: memoryview) -> int:
        return super().readinto(memoryview(into)[:7])


def test_a_file_that_comes_in_pieces_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = file_uri(make(tmp_path, "a.png") / "a.png")
    whole = read_uri(uri)
    monkeypatch.setattr(
        "os.fdopen", lambda handle, _, size=-1: io.BufferedReader(Trickle(handle)) if size else Trickle(handle)
    )
    assert read_uri(uri) == whole
    assert read_uri(range_uri(uri, 5, 30)) == whole[5:35]


@pytest.fixture
def server() -> Iterator[str]:
    closing = Event()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/slow.png":
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):  # until the other side has had enough
                    while not closing.wait(0.02):
                        self.wfile.write(b"x")
                return
            if self.path == "/slow-headers.png":
                with suppress(OSError):
                    self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Note: ")
                    while not closing.wait(0.02):
                        self.wfile.write(b"x")
                return
            if self.path.startswith("/to?"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to?"))
                self.end_headers()
                return
            self.send_response(404 if self.path == "/none.png" else 200)
            if self.path == "/cut.png":
                self.send_header("Content-Length", str(len(picture("blue")) + 1000))
            self.end_headers()
            self.wfile.write(picture("blue"))

        def log_message(self, *_: object) -> None:
            pass

    running = HTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    closing.set()
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize("what", ["slow.png", "slow-headers.png"])
def test_a_server_that_never_ends_is_given_up(server: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.sources.download.FETCH_SECONDS", 0.2)
    with pytest.raises(MediaError, match="download: it took longer"):
        read_uri(f"{server}/{what}", urls="private")


def test_an_answer_that_ends_early_is_no_picture(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="download: the response ended 1,000 bytes early"):
        read_uri(f"{server}/cut.png", urls="private")
    monkeypatch.setattr("looktwice.sources.uri.MAX_BYTES", len(picture("blue")) - 1)
    with pytest.raises(MediaError, match="too-large"):
        read_uri(f"{server}/cut.png", urls="private")


def test_a_connection_made_when_the_time_is_over_is_not_used(server: str) -> None:
    with pytest.raises(TimeoutError, match="longer than"), _Line(private=True) as line:
        line._end()
        with pytest.raises(TimeoutError):
            line.dial(("127.0.0.1", int(server.rpartition(":")[2])))


def test_urls_are_refused_unless_allowed(tmp_path: Path, server: str) -> None:
    listed = write_list(tmp_path / "l.jsonl", {"id": "a", "image": f"{server}/a.png"})
    (refused,) = met(listed)
    with pytest.raises(MediaError, match="url-refused"):
        refused.read()
    (allowed,) = met(listed, urls="private")
    assert allowed.read() == picture("blue") == read_uri(allowed.uri, urls="private")
    with pytest.raises(MediaError, match="download"):
        read_uri(f"{server}/none.png", urls="private")
    with pytest.raises(MediaError, match="download"):
        read_uri("http://127.0.0.1:1/a.png", urls="private")


def test_addresses_of_this_machine_and_its_network_are_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server)  # nor does a proxy fetch them for us
    for host in (server, server.replace("127.0.0.1", "localhost"), "http://[::1]:1", "http://169.254.169.254"):
        with pytest.raises(MediaError, match="forbidden-address"):
            read_uri(f"{host}/a.png", urls="public")
    with pytest.raises(MediaError, match="forbidden-address"):
        read_uri("https://10.0.0.1/a.png", urls="public")


def test_redirects_are_checked_and_stay_with_http(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_uri(f"{server}/to?{server}/a.png", urls="private") == picture("blue")
    with pytest.raises(MediaError, match="download"):
        read_uri(f"{server}/to?ftp://127.0.0.1/a.png", urls="private")
    asked = []

    def first_only(address: str) -> bool:
        asked.append(address)
        return len(asked) == 1

    monkeypatch.setattr("looktwice.sources.download.is_public", first_only)
    with pytest.raises(MediaError, match="forbidden-address"):
        read_uri(f"{server}/to?{server}/a.png", urls="public")
    assert len(asked) == 2


def test_the_address_that_was_checked_is_the_one_asked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers with a public address first and a private one later gets nowhere."""
    port, connected = int(server.rpartition(":")[2]), []
    answers = iter(["93.184.216.34", "127.0.0.1"])
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (next(answers), port))])
    monkeypatch.setattr("socket.create_connection", lambda place, timeout: connected.append(place) or refuse())
    with pytest.raises(MediaError, match="download"):
        read_uri(f"http://rebinding.invalid:{port}/a.png", urls="public")
    assert connected == [("93.184.216.34", port)]


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::a00:1",
        "192.0.0.192",
        "192.0.0.9",
        "192.88.99.1",
        "168.63.129.16",
        "100.100.100.200",
        "198.18.0.1",
        "240.0.0.1",
        "64:ff9b:1::808:808",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0:7f00:1",
        "fec0::1",
        "3fff::1",
        "5f00::1",
        "2001::1",
        "2001:db8::1",
        "4000::1",
        "2606:4700::5efe:10.0.0.1",
        "2606:4700::200:5efe:169.254.169.254",
        "2002:c000:00c0::1",
        "2002:a83f:8110::",
        "::ffff:168.63.129.16",
        "64:ff9b::c000:c0",
    ],
)
def test_what_is_no_public_address(address: str) -> None:
    assert not is_public(address)


def test_what_is_a_public_address() -> None:
    plain = ("8.8.8.8", "168.63.129.17", "2606:4700::1111", "2001:4860:4860::8888", "3ffe::1", "192.0.1.1")
    wrapped = ("::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2606:4700::5efe:8.8.8.8")
    assert all(map(is_public, (*plain, *wrapped)))


def test_a_resolver_that_never_answers_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr("looktwice.sources.download.RESOLVE_SECONDS", 0.1)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: released.wait(30) and [])
    for urls in ("public", "private"):
        with pytest.raises(MediaError, match=r"download: .*the address of slow\.invalid was not found"):
            read_uri("http://slow.invalid/a.png", urls=urls)
    released.set()


def test_a_name_that_is_none_is_a_download_that_fails() -> None:
    for name in ("a" * 70, "a..b"):
        with pytest.raises(MediaError, match="download"):
            read_uri(f"http://{name}/a.png", urls="public")


@given(st.lists(st.text("ab/", max_size=4), max_size=6), st.text("ab/", max_size=6))
def test_scopes_find_as_a_plain_loop_does(prefixes: list[str], uri: str) -> None:
    found = Scopes(Scope("r", prefix) for prefix in prefixes).find("r", uri)
    plain = [prefix for prefix in prefixes if uri.startswith(prefix)]
    assert found == (Scope("r", min(plain, key=len)) if plain else None)
    assert Scopes(Scope("r", prefix) for prefix in prefixes).find("other", uri) is None


def test_many_places_out_of_sight_are_found_quickly() -> None:
    hidden = HiddenPlaces()
    for number in range(100_000):  # links that point to nothing, as an annex without its files has them
        hidden.add(f"file:///r/{number:06}.png")
    hidden.add("file:///r/sub/")
    assert hidden.covers("file:///r/", "file:///r/sub/a.png") and hidden.covers("file:///r/000001.png", "")
    assert not any(hidden.covers("file:///r/", f"file:///r/x{number}.png") for number in range(1000))


def test_a_huge_file_that_is_no_picture_is_not_read(tmp_path: Path) -> None:
    """A sparse file takes no room on the disk, and half a gigabyte of memory once it is read."""
    for head, word in ((b"", "not-an-image"), (b"\x89PNG\r\n\x1a\n", None)):
        (tmp_path / "a.png").write_bytes(head)
        os.truncate(tmp_path / "a.png", 2**25)
        if word is None:
            assert len(read_uri(file_uri(tmp_path / "a.png"))) == 2**25
            continue
        tracemalloc.start()
        with pytest.raises(MediaError, match=word):
            read_uri(file_uri(tmp_path / "a.png"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20


def test_what_a_server_says_is_kept_in_part() -> None:
    assert len(MediaError("download", "HTTP Error 404: " + "x" * 65_000).detail) == MediaError.MOST_DETAIL + 1
    assert MediaError("download", "x" * MediaError.MOST_DETAIL).detail == "x" * MediaError.MOST_DETAIL


def test_a_list_that_names_a_strangers_file_learns_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password=hunter2" * 2**21)
    (tmp_path / "list.jsonl").write_text(json.dumps({"id": "a", "image": file_uri(tmp_path / "secret")}) + "\n")
    [one] = [one for one in met(tmp_path / "list.jsonl") if isinstance(one, Source)]
    with pytest.raises(MediaError) as caught:
        one.read()
    assert caught.value.reason == "not-an-image" and caught.value.detail == "it is text, of 33,554,432 bytes"
