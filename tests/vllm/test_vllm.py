"""A second look on a real vLLM gives the local scores: from images, from stored tokens, through a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from fakes import INSTALLED
from PIL import Image
from scipy.stats import kendalltau
from vllm_server import VllmServer, environment

from looktwice import Item, Retriever, Scorer, load_scorer
from looktwice.errors import Mismatch, UsageError
from looktwice.evaluate.scenes import ScenesSize, build
from looktwice.experiment import Plan, run_benchmark
from looktwice.score.remote.config import RemoteConfig
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.types import PairScores

GALLERY = INSTALLED / "looktwice" / "assets" / "tiny" / "gallery"
LOCAL = {"device": "cpu", "dtype": "float32"}
CLOSE = 1e-3  # nats
pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    folder = environment()
    assert folder is not None, "run it by make test-vllm, which builds the environment"
    server = VllmServer(folder, tmp_path_factory.mktemp("vllm") / "log", more_options=("--enable-prompt-embeds",))
    try:
        server.wait()
        yield server
    finally:
        server.kill()


def image(path: Path) -> Item:
    import hashlib

    return Item(path.name, Image.open(path).convert("RGB"), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Item, list[Item]]]:
    """Ten queries with twenty scenes each."""
    scenes = [image(path) for path in sorted((GALLERY / "images").glob("*.jpg"))]
    queries = [image(path) for path in islice(sorted((GALLERY / "queries").glob("*.jpg")), 10)]
    return [(query, scenes[20 * i : 20 * i + 20]) for i, query in enumerate(queries)]


def remote(vllm: VllmServer, prompt: str = "object", tokens_from: str | None = None, **more: Any) -> Scorer:
    return load_scorer(
        f"{vllm.url}#tiny-vl", prompt=prompt, remote=RemoteConfig(tokens_from=tokens_from, **more), **LOCAL
    )


def far(one: PairScores, other: PairScores) -> float:
    """The largest difference of a label's log-probability over the whole vocabulary."""
    return float(np.abs(_logps(one) - _logps(other)).max())


def _logps(scores: PairScores) -> Any:
    """Label log-probabilities, from logits with any offset and the off-mass."""
    z = scores.label_logits.astype(np.float64)
    total = np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) + z.max(1, keepdims=True)
    return z - total + np.log1p(-scores.off_mass.astype(np.float64))[:, None]


@pytest.mark.parametrize("prompt", ["object", "object_yesno"])
def test_two_hundred_pairs_have_the_local_scores_and_order(
    vllm: VllmServer, pairs: list[tuple[Item, list[Item]]], prompt: str
) -> None:
    ours, theirs = load_scorer("tiny-vl", prompt=prompt, **LOCAL), remote(vllm, prompt)
    for (query, scenes), there in zip(pairs, theirs.score_many(pairs), strict=True):
        here = ours.score(query, scenes)
        assert there.status == ("ok",) * len(scenes)
        assert far(here, there) <= CLOSE
        np.testing.assert_allclose(there.p, here.p, atol=1e-5)
        assert kendalltau(here.p.round(6), there.p.round(6)).statistic == pytest.approx(1, abs=1e-9)
        assert (here.argmax_id == there.argmax_id).all()


@pytest.mark.parametrize("codec", ["none", "pq8"])
def test_stored_tokens_give_the_scores_of_images_or_of_the_same_codec_here(
    vllm: VllmServer, tokens_table: Path, codec: str
) -> None:
    query = GALLERY / "queries" / "p00.jpg"
    answers = {}
    for where, scorer in (("here", load_scorer("tiny-vl", **LOCAL)), ("there", remote(vllm, tokens_from="tiny-vl"))):
        answers[where] = Retriever(tokens_table, scorer=scorer, codec=codec, shortlist=40).search(query, k=40)
    here, there = ({hit.id: hit for hit in answers[w].hits} for w in ("here", "there"))
    assert [hit.id for hit in answers["here"].hits] == [hit.id for hit in answers["there"].hits]
    for name, hit in here.items():
        assert np.abs(np.log(hit.p / there[name].p)) <= CLOSE  # type: ignore[operator]
    look = answers["there"].manifest["second_look"][0]
    assert look["sent_as"] == "prompt_embeds" and answers["there"].manifest["candidates_from"][0]["codec"] == codec
    if codec == "none":
        pixels = Retriever(tokens_table, scorer=remote(vllm), codec="images", shortlist=40).search(query, k=40)
        for hit in pixels.hits:
            assert np.abs(np.log(hit.p / there[hit.id].p)) <= CLOSE  # type: ignore[operator]


@pytest.fixture(scope="module")
def tokens_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "t.lt"
    looktwice("index", path, GALLERY / "images", "--mllm", "tiny-vl", "--codec", "none", "--dtype", "float32")
    looktwice("add-tokens", path, "--mllm", "tiny-vl", "--codec", "pq8", "--dtype", "float32")
    return path


def looktwice(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "looktwice", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=check,
        env={**os.environ, "PYTHONPATH": str(INSTALLED)},
    )


def test_a_benchmark_gives_the_local_table(vllm: VllmServer, tmp_path: Path) -> None:
    """The small scenes benchmark, cut to 400 pairs; the whole one was run by hand (docs/guides/own-server.md)."""
    dataset = build(tmp_path / "dataset", ScenesSize("cut", scenes=60, each=2, images=16, words=4))
    found = {}
    for where, scorer in (("here", load_scorer("tiny-vl", prompt="mixed", **LOCAL)), ("there", remote(vllm, "mixed"))):
        plan = Plan(look=MllmReranker(scorer), shortlist=20, device="cpu", dtype="float32")
        folder = tmp_path / where
        done = run_benchmark(dataset, folder, plan, indexing=MagicMock(), searching=MagicMock())
        found[where] = {row["system"]: row["measures"] for row in done.outcome.rows}
        counts = done.outcome.record["manifest"]["candidates"]
    assert counts["scored"] == 20 * 20
    assert found["here"] == found["there"]
    assert found["there"]["second look"] != found["there"]["shortlist"]


def test_pooled_tokens_and_tokens_of_another_model_are_refused(vllm: VllmServer, idefics: Path) -> None:
    from looktwice.codecs import parse_codec

    scorer = remote(vllm, tokens_from="tiny-vl")
    maker = scorer.tokens()
    assert maker is not None
    scene = image(GALLERY / "images" / "scene-000.jpg")
    pooled = parse_codec("pool2").round_trip(maker.visual_tokens([scene])[0])
    with pytest.raises(UsageError, match="Pooled tokens leave positions empty"):
        scorer.score(scene, [Item("pooled", tokens=pooled)])
    with pytest.raises((Mismatch, UsageError), match=r"another model|takes no visual tokens"):
        remote(vllm, tokens_from=str(idefics))


@pytest.fixture(scope="module")
def idefics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import build

    return build("idefics3", tmp_path_factory.mktemp("idefics"))


def test_the_beginning_of_a_long_prompt_is_read_once(vllm: VllmServer, pairs: list[tuple[Item, list[Item]]]) -> None:
    before = vllm.metric("vllm:prefix_cache_hits_total")
    query, scenes = pairs[0]
    remote(vllm, "composed-query-first", concurrency=1).score(
        Item("q", query.image, text="the same thing " * 40), scenes[:6]
    )
    assert vllm.metric("vllm:prefix_cache_hits_total") - before > 0


def test_the_identity_of_an_image_covers_what_is_sent(vllm: VllmServer, pairs: list[tuple[Item, list[Item]]]) -> None:
    """vLLM answers for the first image it saw under an id, so ids must follow from content and size."""
    query, scenes = pairs[0]
    ours = load_scorer("tiny-vl", prompt="object", **LOCAL)
    theirs = remote(vllm, image_ids=True)
    for scene in scenes[:3]:
        same_name = Item("one", scene.image)
        np.testing.assert_allclose(
            theirs.score(query, [same_name]).p, ours.score(query, [Item("x", scene.image)]).p, atol=1e-5
        )


def test_vllm_in_this_process_gives_the_local_scores(pairs: list[tuple[Item, list[Item]]]) -> None:
    folder = environment()
    assert folder is not None
    paths = [GALLERY / "queries" / "p00.jpg", *sorted((GALLERY / "images").glob("*.jpg"))[:4]]
    own = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(
        [
            folder / "bin" / "python",
            Path(__file__).with_name("in_process.py"),
            json.dumps([str(path) for path in paths]),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, **own, "PYTHONPATH": str(INSTALLED)},
        timeout=600,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith('{"p"')] or [done.stderr[-2000:]]
    found = json.loads(line)
    query, *candidates = map(image, paths)
    here = load_scorer("tiny-vl", prompt="object", **LOCAL).score(query, candidates)
    np.testing.assert_allclose(found["p"], here.p, atol=1e-5)
    assert found["settings"]["mllm"] == "vllm:tiny-vl" and found["status"] == ["ok"] * 4


def test_the_commands_of_the_guide_run(vllm: VllmServer, tmp_path: Path) -> None:
    import re
    import shlex
    import shutil

    page = (Path(__file__).parents[2] / "docs" / "guides" / "own-server.md").read_text(encoding="utf-8")
    (tmp_path / "photos").mkdir()
    for path in sorted((GALLERY / "images").glob("*.jpg"))[:40]:
        shutil.copy(path, tmp_path / "photos")
    shutil.copy(GALLERY / "queries" / "p00.jpg", tmp_path / "query.jpg")
    (tmp_path / "key.txt").write_text("any")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("looktwice ")]
    assert len(commands) >= 8
    answers = []
    for command in commands:
        _, *arguments = shlex.split(command.replace("127.0.0.1:8000", f"127.0.0.1:{vllm.port}"))
        done = subprocess.run(
            [sys.executable, "-m", "looktwice", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(INSTALLED)},
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        if arguments[0] == "search":
            answers.append(done.stdout)
    assert len(set(answers[:-1])) == 1  # the last one shows tokens through a codec


def test_a_run_goes_on_when_the_server_is_killed_and_started_again(tmp_path: Path) -> None:
    folder = environment()
    assert folder is not None
    table, queries = tmp_path / "t.lt", tmp_path / "q.jsonl"
    looktwice("index", table, GALLERY / "images")
    names = sorted((GALLERY / "queries").glob("*.jpg"))[:6]
    queries.write_text("".join(json.dumps({"id": path.stem, "image": str(path)}) + "\n" for path in names))
    server = VllmServer(folder, tmp_path / "log")
    again = None
    try:
        server.wait()
        common = ("search", table, "--queries", queries, "--mllm", f"{server.url}#tiny-vl", "--shortlist", 60)
        looktwice(*common, "--run", tmp_path / "whole.trec")
        command = [sys.executable, "-m", "looktwice", *map(str, common), "--run", str(tmp_path / "cut.trec")]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(INSTALLED)})
        _scores_in(tmp_path / "cut.trec.scores", 100)
        server.kill()
        time.sleep(2)
        assert running.poll() is None
        again = VllmServer(folder, tmp_path / "log", port=server.port)
        again.wait()
        assert running.wait(180) == 0, running.stderr.read() if running.stderr else ""
    finally:
        for one in (server, again):
            if one is not None and one.process.poll() is None:
                one.kill()
    assert _ranking(tmp_path / "cut.trec") == _ranking(tmp_path / "whole.trec")


def _scores_in(path: Path, least: int) -> None:
    import sqlite3

    end = time.monotonic() + 120
    while time.monotonic() < end:
        if path.exists():
            try:
                with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
                    if db.execute("SELECT count(*) FROM scores").fetchone()[0] >= least:
                        return
            except sqlite3.Error:
                pass
        time.sleep(0.02)
    raise AssertionError("the run did not begin")


def _ranking(path: Path) -> list[Any]:
    rows = [line.split() for line in path.read_text().splitlines()]
    return [(row[0], row[2], row[3], round(float(row[4]), 4)) for row in rows]
