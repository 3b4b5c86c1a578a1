"""Stores that are not safe to write to are refused, and a bucket that fails in mid-run leaves a table that opens."""

from __future__ import annotations

import numpy as np
import pytest
from bucket_proxy import Proxy
from bucket_server import BucketServer
from store_helpers import ENCODER, random_rows, row

from looktwice.buckets import why
from looktwice.errors import BucketError, Damaged, LooktwiceError, StoreError, UsageError
from looktwice.store import Table, bucket


def test_a_store_without_conditional_puts_is_refused_for_writing(cloud: BucketServer, proxy: Proxy) -> None:
    if cloud.scheme == "az":
        pytest.skip("Azure's signature covers the condition, so no proxy can drop it")
    place = f"{cloud.uri}/t.lt"
    Table.create(place, ENCODER).add([row("a")])
    proxy.drops.add(cloud.condition)
    bucket._tested.clear()
    table = Table.open(place)
    for write in (lambda: table.add([row("b")]), lambda: Table.create(f"{cloud.uri}/new.lt", ENCODER)):
        with pytest.raises(UsageError, match="ignores If-None-Match, so two writers would overwrite"):
            write()
    assert len(Table.open(place)) == 1 and table.search(np.ones(8), 1)[0].id == "a", "reading is safe"
    assert not list(cloud.store.walk("new.lt")), "the probe is removed"
    proxy.drops.clear()
    table.add([row("b")])
    assert len(Table.open(place)) == 2


@pytest.mark.parametrize("writes", [0, 2, 5])
def test_a_bucket_that_turns_read_only_keeps_what_was_committed(cloud: BucketServer, proxy: Proxy, writes: int) -> None:
    place = f"{cloud.uri}/t.lt"
    table = Table.create(place, ENCODER)
    table.add(random_rows(10))
    proxy.writes_left = writes
    with pytest.raises(StoreError, match=r"adding items failed in (s3|az|gs)://.*: access is denied; check") as caught:
        for start in range(10, 100, 10):
            table.add(random_rows(10, start=start))
    assert caught.value.exit_code == 2 and "AKID" not in str(caught.value)
    proxy.writes_left = None
    again = Table.open(place)
    assert len(again) % 10 == 0 and len(again) >= 10
    again.add(random_rows(100))
    assert len(Table.open(place)) == 100


def test_a_data_file_that_vanishes_is_said(cloud: BucketServer) -> None:
    table = Table.create(f"{cloud.uri}/t.lt", ENCODER)
    table.add(random_rows(10))
    store = cloud.store
    store.delete([found.name for found in store.walk("t.lt/items.lance/data")])
    with pytest.raises(Damaged, match="files of the table are missing"):
        Table.open(f"{cloud.uri}/t.lt").search(np.ones(8), 3)


def test_listings_that_lag_delay_commits_and_lose_none(cloud: BucketServer, proxy: Proxy) -> None:
    place = f"{cloud.uri}/t.lt"
    table = Table.create(place, ENCODER)
    proxy.lag = 0.5
    Table.open(place)
    table.add(random_rows(10))
    table.add(random_rows(20, start=10))
    Table.open(place).add(random_rows(10, start=30))
    assert proxy.listings
    proxy.lag = 0
    ids = sorted(found["id"] for found in Table.open(place).rows(["id"]))
    assert ids == [f"{number:05}" for number in range(40)]


def test_wrong_keys_are_a_sentence(cloud: BucketServer, proxy: Proxy) -> None:
    proxy.writes_left = 0
    with pytest.raises(LooktwiceError, match="access is denied") as caught:
        Table.create(f"{cloud.uri}/t.lt", ENCODER)
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
        ("Server failed to authenticate the request. Request date header too old", "this machine's clock is wrong"),
        ("400 Bad Request: invalid_grant: Token must be a short-lived token", "the credentials are not valid"),
        ("invalid_grant: must be in a reasonable timeframe. Check your iat", "this machine's clock is wrong"),
        ("403 AuthenticationFailed: Server failed to authenticate the request.", "the credentials are not valid"),
        ("GCP credential error: Unable to decode service account file", "the credentials are not valid"),
        ("Error reading pem file: no items found", "the credentials are not valid"),
        ("Unable to open service account file from /x.json", "no credentials were found"),
        ("Account must be specified", "no credentials were found"),
        ("404 <Code>ContainerNotFound</Code>", "the bucket does not exist"),
        ("status code: 429 Too Many Requests", "the store asks for fewer requests"),
        ("no reason\n\nDebug source:\n retry_timeout: 180s, connect_timeout", "it gave no usable answer"),
        ("something else", "it gave no usable answer"),
    ],
)
def test_what_stores_answer_is_said_without_quoting_it(answer: str, said: str) -> None:
    sentence = why(OSError(answer))
    assert said in sentence and "AKID" not in sentence and sentence.endswith(".")
