"""The photographer's commands on a bucket, and what they say when the bucket is at fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bucket_proxy import Answer, Proxy
from bucket_server import ACCOUNT_KEY, SECRET, BucketServer, only
from conftest import Looktwice
from PIL import Image

from looktwice.buckets import SETTINGS

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


@pytest.fixture
def photos(cloud: BucketServer, tmp_path: Path) -> str:
    """Three pictures and a broken one below a prefix."""
    bucket = cloud.store
    for name, colour in COLOURS.items():
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{name}.png")
        bucket.write(f"photos/{name}.png", (tmp_path / f"{name}.png").read_bytes())
    bucket.write("photos/bad.jpg", b"")
    return f"{cloud.uri}/photos"


def test_the_photographers_commands(looktwice: Looktwice, cloud: BucketServer, photos: str, tmp_path: Path) -> None:
    place = f"{cloud.uri}/t.lt"
    made = looktwice("index", place, photos)
    assert made.code == 3 and f"{place}: 3 added, 1 failed" in made.out
    assert f"1 empty; list them with: looktwice ledger {place}" in made.err
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


def test_a_search_of_two_places(looktwice: Looktwice, cloud: BucketServer, photos: str, tmp_path: Path) -> None:
    looktwice("index", f"{cloud.uri}/a.lt", f"{photos}/red.png")
    looktwice("index", "b.lt", tmp_path / "green.png")
    done = looktwice(
        "search", f"{cloud.uri}/a.lt", "--table", "b.lt", tmp_path / "red.png", "--no-rerank", "--json", "-k", "2"
    )
    assert [hit["id"] for hit in done.records] == ["a.lt/red.png", "b.lt/green.png"]


def test_settings_of_the_command_line_are_used_and_never_kept(
    looktwice: Looktwice, cloud: BucketServer, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {name.lower(): value for name, value in cloud.variables().items()}
    for name in own:
        monkeypatch.delenv(name.upper())
    monkeypatch.setenv(SETTINGS, "{}")
    given = [word for name, value in own.items() for word in ("--storage", f"{name}={value}")]
    assert looktwice("index", f"{cloud.uri}/t.lt", photos, *given).code == 3
    bucket = cloud.store
    cloud.use(monkeypatch)
    for found in bucket.walk("t.lt"):
        data = bucket.read(found.name)
        assert not any(secret.encode() in data for secret in (SECRET, ACCOUNT_KEY, "gcs_base_url"))


@only(argvalues=["s3"])
def test_a_profile_is_used(
    looktwice: Looktwice, cloud: BucketServer, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the provider's own tools read it."""
    (tmp_path / "keys").write_text(f"[mine]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    made = looktwice("index", f"{cloud.uri}/t.lt", photos, "--limit", "2", "--json")
    assert made.code == 3 and made.records[0]["items"] == 1, made.err
    assert looktwice("index", f"{cloud.uri}/t.lt", photos, "--limit", "2", "--prune").code == 2


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"bucket": "no-such-bucket"}, "the bucket does not exist; check the name"),
        ({"url": "http://127.0.0.1:9"}, "it does not answer; check the endpoint"),
        ({"setting": "nonsense=1"}, "a --storage setting is not known"),
        ({"setting": "aws_region"}, "--storage aws_region needs KEY=VALUE"),
    ],
    ids=["bucket", "endpoint", "setting", "value"],
)
def test_a_bucket_at_fault_is_one_sentence(
    looktwice: Looktwice,
    cloud: BucketServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: dict[str, str],
    said: str,
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    place = f"{cloud.scheme}://{broken.get('bucket', cloud.bucket)}/t.lt"
    cloud.use(monkeypatch, broken.get("url"))
    extra = ["--storage", broken["setting"]] if "setting" in broken else []
    for command in (["index", place, tmp_path / "a.png"], ["info", place]):
        done = looktwice(*command, *extra)
        assert done.code == 2 and said in done.err, done.err
        assert len(done.err.strip().splitlines()) == 1 and SECRET not in done.err and "AKID" not in done.err


@only(argvalues=[pytest.param("az", marks=pytest.mark.clouds)])
@pytest.mark.parametrize("key", ["d3Jvbmc=", "no base64"])
def test_a_wrong_key_is_one_sentence(
    looktwice: Looktwice, cloud: BucketServer, photos: str, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Of the servers here, Azurite alone checks keys."""
    cloud.use(monkeypatch, AZURE_STORAGE_ACCOUNT_KEY=key)
    place = f"{cloud.uri}/t.lt"
    for command in (["index", place, photos], ["index", "here.lt", photos], ["info", place]):
        done = looktwice(*command)
        assert done.code == 2 and re.search("the credentials are not valid|check the credentials", done.err), done.err
        assert len(done.err.strip().splitlines()) == 1 and key not in done.err


def test_watching_a_bucket_is_refused(looktwice: Looktwice) -> None:
    done = looktwice("index", "t.lt", "s3://photos/2024", "--watch")
    assert done.code == 2 and "--watch follows folders of this machine only, not s3://photos/2024" in done.err


def test_a_plan_names_the_bucket(looktwice: Looktwice, cloud: BucketServer, photos: str) -> None:
    done = looktwice("index", f"{cloud.uri}/t.lt", photos, "--dry-run", "--json")
    assert done.records[0]["table"] == f"{cloud.uri}/t.lt"


DENIED = ("AccessDenied", "access is denied; check the credentials")
SKEWED = ("RequestTimeTooSkewed", "this machine's clock is wrong; set it")


@pytest.mark.parametrize(("writes", "code", "said"), [(4, *SKEWED), (12, *DENIED)], ids=["clock", "read-only"])
def test_a_bucket_that_turns_on_us_in_mid_run_keeps_a_table_that_opens(
    looktwice: Looktwice, cloud: BucketServer, photos: str, proxy: Proxy, writes: int, code: str, said: str
) -> None:
    """The first write that is refused makes the table, or commits the items."""
    place = f"{cloud.uri}/t.lt"
    proxy.refusal = Answer(403, [], f"<Error><Code>{code}</Code></Error>".encode())
    proxy.writes_left = writes
    done = looktwice("index", place, photos)
    (error,) = [line for line in done.err.splitlines() if line.startswith("Error")]
    assert done.code == 2 and said in error and done.err.endswith(f"{error}\n")
    proxy.writes_left = None
    assert looktwice("index", place, photos, "--json").records[0]["items"] == 3
    assert looktwice("info", place).code == 0


def test_a_data_file_that_vanishes_is_one_sentence(
    looktwice: Looktwice, cloud: BucketServer, photos: str, tmp_path: Path
) -> None:
    place = f"{cloud.uri}/t.lt"
    looktwice("index", place, photos)
    cloud.store.delete([found.name for found in cloud.store.walk("t.lt/items.lance/data")])
    for command in (["search", place, tmp_path / "red.png", "--no-rerank"], ["info", place]):
        done = looktwice(*command)
        assert done.code == 2 and "files of the table are missing; restore them from a copy" in done.err
        assert len(done.err.splitlines()) == 1
