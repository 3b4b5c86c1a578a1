"""Models by their hub name, from a hub of our own on loopback: downloaded, pinned, resumed, offline, refused.

conftest.py switches the hub off for this process, so everything here runs in processes with their own environment.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub import Hub, Refusal
from safetensors.torch import save_file
from tiny_models import build

from looktwice.models.hub import XET_LIMITS
from looktwice.testing import make_images

ROOT = Path(__file__).resolve().parents[1]

# Commands of one process, one after another, as starting Python and torch takes most of the time.
COMMANDS = """
import json, sys
from looktwice.cli.main import app
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments)
    except SystemExit as end:
        for stream in (sys.stdout, sys.stderr):
            print(f"== {end.code}", file=stream, flush=True)
"""

# Without the waits between huggingface_hub's own attempts.
RESOLVE = """
import sys, time
from looktwice.models.checkpoints import resolve
from looktwice.cli.console import show_warnings
from looktwice.errors import LooktwiceError
time.sleep = lambda seconds: None
show_warnings()
for name in sys.argv[1:]:
    try:
        print(resolve(name).source)
    except LooktwiceError as error:
        print(f"{type(error).__name__} {error.exit_code}: {error}")
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny encoder, a tiny MLLM and weights that are larger than one piece of a download (10 MiB)."""
    folder = tmp_path_factory.mktemp("models")
    made = {"org/tiny-clip": build("clip", folder / "clip"), "org/tiny-vl": build("idefics3", folder / "vl")}
    made["org/large"] = folder / "large"
    made["org/large"].mkdir()
    (made["org/large"] / "config.json").write_text('{"model_type": "clip"}')
    save_file({"a": torch.zeros(6 * 2**20)}, made["org/large"] / "model.safetensors")
    (made["org/large"] / "pytorch_model.bin").write_bytes(b"pickled")
    return made


@pytest.fixture
def hub(models: dict[str, Path]) -> Iterator[Hub]:
    with Hub(models) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def environment(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), **hub.environment(home), **more}


def resolved(hub: Hub, home: Path, *names: str, **more: str) -> tuple[list[str], str]:
    """What became of each name, and stderr."""
    command = [sys.executable, "-c", RESOLVE, *names]
    done = subprocess.run(command, env=environment(hub, home, **more), capture_output=True, text=True, check=True)
    return done.stdout.splitlines(), done.stderr


def run(hub: Hub, home: Path, *commands: list[str], **more: str) -> tuple[list[str], list[str]]:
    """What each command said on stdout and on stderr; each must end with 0."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=home.parent,
        env=environment(hub, home, **more),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("== 0\n") == len(commands), done.stdout + done.stderr
    return done.stdout.split("== 0\n"), done.stderr.split("== 0\n")


def files(hub: Hub) -> list[str]:
    """The files whose bytes were sent."""
    sent = [one for one in hub.asked if one.method == "GET" and one.status < 300 and "/resolve/" in one.path]
    return sorted(one.path.rpartition("/")[2] for one in sent)


def test_the_story_with_models_by_their_hub_names(hub: Hub, home: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "photos")
    (tmp_path / "q.jsonl").write_text('{"id": "q", "image": "photos/red-0.png"}\n')
    clip, vl = hub.commit("org/tiny-clip"), hub.commit("org/tiny-vl")
    search = ["search", "t.lt", "--queries", "q.jsonl", "--mllm", "org/tiny-vl", "-k", "3", "--json", "--run"]

    out, err = run(
        hub,
        home,
        ["index", "t.lt", "photos", "--encoder", "org/tiny-clip"],
        ["add-tokens", "t.lt", "--mllm", "org/tiny-vl", "--codec", "int8"],
        [*search, "1.trec"],
        ["info", "t.lt", "--json"],
    )
    assert "12 added" in out[0] and "Downloading" not in out[0]
    assert f"Downloading org/tiny-clip from the model hub ({hub.url})" in err[0]
    assert "org/tiny-clip: 0.3 of 0.3 MB" in err[0] and "\r" not in "".join(err)
    assert "Downloading org/tiny-vl" in err[1] and "Downloading" not in err[2] + err[3]
    of_both = [name for model in ("org/tiny-clip", "org/tiny-vl") for name in os.listdir(hub.repositories[model])]
    assert files(hub) == sorted(of_both), "each file is sent once"

    made_with = json.loads((tmp_path / "t.lt" / "manifest.json").read_text())
    assert (made_with["encoder"]["name"], made_with["encoder"]["revision"]) == ("org/tiny-clip", clip)
    assert (made_with["tokens"][0]["mllm"], made_with["tokens"][0]["revision"]) == ("org/tiny-vl", vl)
    manifest = json.loads((tmp_path / "1.trec.json").read_text())
    assert (manifest["encoder"]["name"], manifest["encoder"]["revision"]) == ("org/tiny-clip", clip)
    assert [(look["mllm"], look["revision"]) for look in manifest["second_look"]] == [("org/tiny-vl", vl)]
    facts = json.loads(out[3])
    assert (facts["encoder"]["revision"], facts["token_sets"][0]["revision"]) == (clip, vl)
    hits = [json.loads(line) for line in out[2].splitlines()]
    assert len(hits) == 3 and all(0 <= hit["p"] <= 1 for hit in hits)

    hub.stop()
    index = ["index", "t.lt", "photos", "--encoder", "org/tiny-clip"]
    for name, more in (("2", {}), ("3", {"HF_HUB_OFFLINE": "1"})):
        again, said = run(hub, home, [*search, f"{name}.trec"], index, **more)
        assert again[0] == out[2] and "12 unchanged" in again[1] and "Downloading" not in "".join(said)
        assert (tmp_path / f"{name}.trec").read_text() == (tmp_path / "1.trec").read_text()


def test_a_cut_download_goes_on_where_it_stopped(hub: Hub, home: Path) -> None:
    hub.cut = 15 * 2**20
    (snapshot,), err = resolved(hub, home, "org/large")
    sent = hub.sent("model.safetensors")
    assert [(asked.range, asked.status) for asked in sent] == [(None, 200), (f"bytes={10 * 2**20}-", 206)]
    original = hub.repositories["org/large"] / "model.safetensors"
    assert (Path(snapshot) / "model.safetensors").read_bytes() == original.read_bytes()
    assert sorted(os.listdir(snapshot)) == ["config.json", "model.safetensors"], "no pickled weights"
    assert Path(snapshot).name == hub.commit("org/large")
    assert "org/large: 25.2 of 25.2 MB" in err

    hub.asked.clear()
    assert resolved(hub, home, "org/large", f"org/large#{snapshot[-40:]}", "org/large#main")[0] == [snapshot] * 3
    assert files(hub) == []


def test_an_interrupted_command_keeps_whole_files_and_says_what_is_missing(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    hub.slow = 0.2  # 10 s for the weights
    command = [sys.executable, "-c", COMMANDS, json.dumps([["index", "t.lt", "photos", "--encoder", "org/large"]])]
    make_images(tmp_path / "photos")
    running = subprocess.Popen(
        command, cwd=tmp_path, env=environment(hub, home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    kept = "hub/models--org--large/snapshots/*/config.json"
    while not (hub.sent("safetensors") and list(home.glob(kept))) and time.monotonic() < until:
        time.sleep(0.05)
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert "== 130" in out and "Interrupted" in err and "Traceback" not in err
    assert time.monotonic() - began < 5, "it waited for the download"
    assert not (tmp_path / "t.lt").exists()

    hub.slow = 0
    partial = resolved(hub, home, "org/large", HF_HUB_OFFLINE="1")[0]
    assert partial == [
        "UsageError 2: Only a part of the model org/large is on this machine (1 missing: model.safetensors); "
        "connect to the model hub and run the same command again: files that are complete are kept."
    ]
    hub.asked.clear()
    assert resolved(hub, home, "org/large")[0][0].endswith(hub.commit("org/large"))
    assert files(hub) == ["model.safetensors"]


REFUSALS = {
    "expired": (
        Refusal(401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
        "does not know your access token; log in again",
    ),
    "forbidden": (Refusal(403), "your access token may not read it (403); allow that"),
    "gated": (
        Refusal(403, {"X-Error-Code": "GatedRepo"}),
        "needs its licence to be accepted; accept it at http://127",
    ),
    "disabled": (
        Refusal(403, {"X-Error-Message": "Access to this resource is disabled."}),
        "removed from the model hub",
    ),
    "other": (Refusal(404), "answers with status 404; check HF_ENDPOINT, which is http://127"),
    "busy": (Refusal(429, {"RateLimit": '"api";r=0;t=7'}), "limits your requests (429); wait some minutes"),
    "broken": (Refusal(503), "has an internal error (503); wait some minutes and run the same command again"),
}


def test_what_the_hub_refuses_is_one_sentence_that_says_what_to_do(hub: Hub, home: Path) -> None:
    hub.refuse = {f"org/{name}": refusal for name, (refusal, _) in REFUSALS.items()}
    for name in ("busy", "broken"):  # the same in the middle of a download
        hub.refuse[f"org/{name}-late"] = _late(REFUSALS[name][0])
        hub.repositories[f"org/{name}-late"] = hub.repositories["org/large"]
    names = [*hub.refuse, "org/nothing", "org/large#v9"]
    said, _ = resolved(hub, home, *names)
    for name, sentence in zip(names, said, strict=True):
        assert sentence.startswith("UsageError 2: The model") and sentence.endswith("."), sentence
        expected = REFUSALS.get(name.removeprefix("org/").removesuffix("-late"), (None, ""))[1]
        assert expected in sentence, f"{name}: {sentence}"
    assert said[-2].endswith(
        "hub has no org/nothing, or it is private; check the name, or log in with `hf auth login`."
    )
    assert said[-1].endswith("has no revision 'v9'; name one from its hub page.")
    hub.stop()
    ((down,), _), ((offline,), _) = (resolved(hub, home, "org/large", **more) for more in ({}, {"HF_HUB_OFFLINE": "1"}))
    assert "could not be downloaded ([Errno" in down and "connect to the model hub and run the same command" in down
    assert "HF_HUB_OFFLINE is set; unset it" in offline


def _late(refusal: Refusal) -> object:
    return lambda path: refusal if path.startswith("/cdn") else None


def test_failing_xet_storage_can_be_switched_off(hub: Hub, home: Path) -> None:
    pytest.importorskip("hf_xet")
    route = f"{hub.url}/api/models/org/large/xet-read-token/main"
    hub.extra = {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": route}
    (said,), _ = resolved(hub, home, "org/large")
    assert "from its xet storage (" in said and "; set HF_HUB_DISABLE_XET=1 and run the same command again" in said
    (snapshot,), _ = resolved(hub, home, "org/large", HF_HUB_DISABLE_XET="1")
    assert snapshot.endswith(hub.commit("org/large"))


def test_a_dead_xet_server_is_given_up_soon(hub: Hub, home: Path) -> None:
    hf_xet = pytest.importorskip("hf_xet")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in XET_LIMITS.items():
            patch.setenv(name, value)
        limits = hf_xet.XetConfig()  # it knows these names and can read these values
    longest = limits.get("client.read_timeout") + limits.get("client.retry_base_delay") * 3
    assert longest.total_seconds() * (1 + limits.get("client.retry_max_attempts")) < 90
    assert limits.get("client.connect_timeout").total_seconds() == 10
    code = (
        "import os\nfrom looktwice.models.checkpoints import resolve\nresolve('org/tiny-clip')\n"
        f"print(*[os.environ[name] for name in {list(XET_LIMITS)!r}])"
    )
    env = environment(hub, home, HF_XET_CLIENT_READ_TIMEOUT="7s")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10s", "7s", "2", "60s"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 9 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root and the right to mount")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_said_and_leaves_nothing_half(hub: Hub, small_disk: Path) -> None:
    (said,), _ = resolved(hub, small_disk, "org/large")
    assert said.startswith("UsageError 2: The disk is full, so the model org/large was not downloaded; free space in ")
    assert f"{small_disk}/hub, then run the same command again" in said
    assert shutil.disk_usage(small_disk).used < 2**20
