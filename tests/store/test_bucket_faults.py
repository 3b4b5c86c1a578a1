"""Stores that are not safe to write to are refused, and a bucket that fails in mid-run leaves a table that opens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from bucket_proxy import Proxy, proxy_to
from bucket_server import BucketServer, bucket_fixture, server_fixture  # noqa: F401
from store_helpers import ENCODER, random_rows, row

from looktwice.buckets import Bucket, why
from looktwice.errors import BucketError, LooktwiceError, StoreError, UsageError
from looktwice.store import Table, bucket


@pytest.fixture
def proxy(s3: BucketServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the bucket, which this process uses from now on."""
    with proxy_to(s3.url) as made:
        monkeypatch.setenv("AWS_ENDPOINT", made.url)
        monkeypatch.setattr(bucket, "_tested", set())
        yield made


def test_a_store_without_conditional_puts_is_refused_for_writing(s3: BucketServer, proxy: Proxy) -> None:
    place = f"{s3.uri}/t.lt"
    Table.create(place, ENCODER).add([row("a")])
    proxy.drops.add("if-none-match")
    bucket._tested.clear()
    table = Table.open(place)
    for write in (lambda: table.add([row("b")]), lambda: Table.create(f"{s3.uri}/new.lt", ENCODER)):
        with pytest.raises(UsageError, match="ignores If-None-Match, so two writers would overwrite"):
            write()
    assert len(Table.open(place)) == 1 and table.search(np.ones(8), 1)[0].id == "a", "reading is safe"
    assert not list(Bucket("s3", s3.bucket).walk("new.lt")), "the probe is removed"
    proxy.drops.clear()
    table.add([row("b")])
    assert len(Table.open(place)) == 2


@pytest.mark.parametrize("writes", [0, 2, 5])
def test_a_bucket_that_turns_read_only_keeps_what_was_committed(s3: BucketServer, proxy: Proxy, writes: int) -> None:
    place = f"{s3.uri}/t.lt"
    table = Table.create(place, ENCODER)
    table.add(random_rows(10))
    proxy.writes_left = writes
    with pytest.raises(StoreError, match=r"adding items failed in s3://.*: access is denied; these") as caught:
        for start in range(10, 100, 10):
            table.add(random_rows(10, start=start))
    assert caught.value.exit_code == 2 and "AKID" not in str(caught.value)
    proxy.writes_left = None
    again = Table.open(place)
    assert len(again) % 10 == 0 and len(again) >= 10
    again.add(random_rows(100))
    assert len(Table.open(place)) == 100


def test_a_data_file_that_vanishes_is_said(s3: BucketServer) -> None:
    table = Table.create(f"{s3.uri}/t.lt", ENCODER)
    table.add(random_rows(10))
    store = Bucket("s3", s3.bucket)
    store.delete([found.name for found in store.walk("t.lt/items.lance/data")])
    with pytest.raises(StoreError, match="files of the table are missing"):
        Table.open(f"{s3.uri}/t.lt").search(np.ones(8), 3)


def test_wrong_keys_are_a_sentence(s3: BucketServer, proxy: Proxy) -> None:
    proxy.writes_left = 0
    with pytest.raises(LooktwiceError, match="access is denied") as caught:
        Table.create(f"{s3.uri}/t.lt", ENCODER)
    assert isinstance(caught.value, BucketError) and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("403 <Code>RequestTimeTooSkewed</Code>", "this machine's clock is wrong"),
        ("403 <Code>InvalidAccessKeyId</Code> AKIDEXAMPLE", "the credentials are not valid"),
        ("403 <Code>SignatureDoesNotMatch</Code>", "the credentials are not valid"),
        ("404 <Code>NoSuchBucket</Code>", "the bucket does not exist"),
        ("503 <Code>SlowDown</Code>", "the store asks for fewer requests"),
        ("501 <Code>NotImplemented</Code>", "use one with conditional writes"),
        ("operation timed out", "it does not answer"),
        ("something else", "it gave no usable answer"),
    ],
)
def test_what_stores_answer_is_said_without_quoting_it(answer: str, said: str) -> None:
    sentence = why(OSError(answer))
    assert said in sentence and "AKID" not in sentence and sentence.endswith(".")
