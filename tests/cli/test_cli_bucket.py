"""The photographer's commands on a bucket, and what they say when the bucket is at fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bucket_server import SECRET, BucketServer, bucket_fixture, server_fixture  # noqa: F401
from conftest import Looktwice
from PIL import Image

from looktwice.buckets import SETTINGS, Bucket

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


@pytest.fixture
def photos(s3: BucketServer, tmp_path: Path) -> str:
    """Three pictures and a broken one below a prefix."""
    bucket = Bucket("s3", s3.bucket)
    for name, colour in COLOURS.items():
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{name}.png")
        bucket.write(f"photos/{name}.png", (tmp_path / f"{name}.png").read_bytes())
    bucket.write("photos/bad.jpg", b"")
    return f"{s3.uri}/photos"


def test_the_photographers_commands(looktwice: Looktwice, s3: BucketServer, photos: str, tmp_path: Path) -> None:
    place = f"{s3.uri}/t.lt"
    made = looktwice("index", place, photos)
    assert made.code == 3 and f"{place}: 3 added, 1 failed" in made.out and "1 empty" in made.err
    again = looktwice("index", place, photos, "--json").records[0]
    assert (again["unchanged"], again["failed"], again["items"]) == (3, 1, 3)
    assert looktwice("add-tokens", place, "--codec", "int8", "--json").records[0]["encoded"] == 3
    found = looktwice("search", place, tmp_path / "red.png", "-k", "2", "--json")
    assert found.code == 0 and found.records[0]["id"] == "red.png" and found.records[0]["p"] is not None
    facts = looktwice("info", place, "--json").records[0]
    assert (facts["items"], facts["tokens"], facts["path"], facts["failed"]) == (3, 3, place, 1)
    assert facts["roots"] == [f"{photos}/"]
    assert looktwice("ledger", place, "--json").records[0]["uri"] == f"{photos}/bad.jpg"
    assert looktwice("delete", place, "blue.png", "--json").records[0]["items"] == 2
    assert looktwice("compact", place, "--purge").code == 0
    assert looktwice("export", place, "out.parquet", "--json").records[0]["items"] == 2
    assert looktwice("index", place, photos, "--json").records[0]["deleted"] == 1


def test_a_search_of_two_places(looktwice: Looktwice, s3: BucketServer, photos: str, tmp_path: Path) -> None:
    looktwice("index", f"{s3.uri}/a.lt", f"{photos}/red.png")
    looktwice("index", "b.lt", tmp_path / "green.png")
    done = looktwice(
        "search", f"{s3.uri}/a.lt", "--table", "b.lt", tmp_path / "red.png", "--no-rerank", "--json", "-k", "2"
    )
    assert [hit["id"] for hit in done.records] == ["a.lt/red.png", "b.lt/green.png"]


def test_settings_of_the_command_line_are_used_and_never_kept(
    looktwice: Looktwice, s3: BucketServer, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    own = {"aws_endpoint": s3.url, "aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": SECRET}
    given = [word for name, value in own.items() for word in ("--storage", f"{name}={value}")]
    assert looktwice("index", f"{s3.uri}/t.lt", photos, *given).code == 3
    bucket = Bucket("s3", s3.bucket)
    monkeypatch.setenv(SETTINGS, json.dumps(own))
    for found in bucket.walk("t.lt"):
        assert SECRET.encode() not in bucket.read(found.name)


def test_a_profile_is_used(
    looktwice: Looktwice, s3: BucketServer, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the provider's own tools read it."""
    (tmp_path / "keys").write_text(f"[mine]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    made = looktwice("index", f"{s3.uri}/t.lt", photos, "--limit", "2", "--json")
    assert made.code == 3 and made.records[0]["items"] == 1, made.err
    assert looktwice("index", f"{s3.uri}/t.lt", photos, "--limit", "2", "--prune").code == 2


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"uri": "s3://no-such-bucket/t.lt"}, "the bucket does not exist; check the name"),
        ({"AWS_ENDPOINT": "http://127.0.0.1:9"}, "it does not answer; check the endpoint"),
        ({"setting": "nonsense=1"}, "a --storage setting is not known"),
        ({"setting": "aws_region"}, "--storage aws_region needs KEY=VALUE"),
    ],
    ids=["bucket", "endpoint", "setting", "value"],
)
def test_a_bucket_at_fault_is_one_sentence(
    looktwice: Looktwice,
    s3: BucketServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: dict[str, str],
    said: str,
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    place = broken.get("uri", f"{s3.uri}/t.lt")
    if "AWS_ENDPOINT" in broken:
        monkeypatch.setenv("AWS_ENDPOINT", broken["AWS_ENDPOINT"])
    extra = ["--storage", broken["setting"]] if "setting" in broken else []
    for command in (["index", place, tmp_path / "a.png"], ["info", place]):
        done = looktwice(*command, *extra)
        assert done.code == 2 and said in done.err, done.err
        assert len(done.err.strip().splitlines()) == 1 and SECRET not in done.err and "AKID" not in done.err
