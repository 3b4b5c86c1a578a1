"""A real S3 server for tests, in a thread of this process; other processes reach it through `environment`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from looktwice import buckets

SECRET = "wJalrXUtnFEMI"


@dataclass(frozen=True)
class BucketServer:
    """The address of a server, and one of its buckets."""

    url: str
    bucket: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def settings(self) -> dict[str, str]:
        return {"aws_endpoint": self.url, "aws_region": "us-east-1", "allow_http": "true"}

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which another process finds the server."""
        keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
        own = {f"AWS_{name.removeprefix('aws_').upper()}": value for name, value in self.settings.items()}
        return {**os.environ, **keys, **own}


@pytest.fixture(scope="session", name="s3_server")
def server_fixture() -> Iterator[str]:
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture(name="s3")
def bucket_fixture(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> BucketServer:
    """A new, empty bucket that this process is configured for."""
    import boto3

    made = BucketServer(s3_server, f"bucket-{uuid4().hex[:8]}")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1").create_bucket(Bucket=made.bucket)
    monkeypatch.setenv(buckets.SETTINGS, "{}")
    buckets._store.cache_clear()  # each test's server is the same, but not its credentials
    return made
