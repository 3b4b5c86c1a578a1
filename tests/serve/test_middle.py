"""Where a table stores tokens, a middle look comes between, and an explanation is made from them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import GALLERY, Running, running
from test_serve_search import events
from typer.testing import CliRunner

from looktwice import Retriever
from looktwice.cli.main import app
from looktwice.encode.patch_tower import PatchTower
from looktwice.errors import UsageError
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.serve import Settings
from looktwice.serve.routes import search
from looktwice.serve.tables import ServedTable, Tables
from looktwice.store import Table, reader
from looktwice.token_index import tower

Named = Callable[[str], str]


@pytest.fixture(scope="module")
def tokens(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "coded.lt"
    shutil.copytree(drawings, path)
    done = CliRunner().invoke(app, ["add-tokens", str(path), "--mllm", "tiny-vl", "--codec", "int8"])
    assert done.exit_code == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def server(tokens: Path) -> Iterator[Running]:
    with running(Settings(tables=(tokens,))) as made:
        yield made


def test_a_table_with_two_codecs_needs_one_named_before_it_is_served(tokens: Path, tmp_path: Path) -> None:
    shutil.copytree(tokens, tmp_path / "two.lt")
    done = CliRunner().invoke(app, ["add-tokens", str(tmp_path / "two.lt"), "--codec", "none"])
    assert done.exit_code == 0, done.stderr
    settings = Settings(tables=(tmp_path / "two.lt",))
    with pytest.raises(UsageError, match="choose one with --codec: int8, none"), running(settings):
        pass
    with running(settings.model_copy(update={"codec": "int8"})) as made:
        assert made.client.get("/readyz").status_code == 200


def test_a_codebook_is_read_once(drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(drawings, tmp_path / "t.lt")
    done = CliRunner().invoke(app, ["add-tokens", str(tmp_path / "t.lt"), "--codec", "opq8"])
    assert done.exit_code == 0, done.stderr
    (entry,) = Table.open(tmp_path / "t.lt").manifest.tokens
    read: list[str] = []
    monkeypatch.setattr(reader.tokens, "read_codebook", counting(reader.tokens.read_codebook, read))
    with running(Settings(tables=(tmp_path / "t.lt",), maxsim=20)) as made:
        assert read == [entry["codebook_sha256"]]
        for query in ({"item": "scene-001.jpg"}, {"text": "a ball"}):
            assert made.post("/v1/search", {"query": query, "k": 2}).status_code == 200
    assert read.count(entry["codebook_sha256"]) == 1


def counting(read_codebook: Callable[..., bytes], read: list[str]) -> Callable[..., bytes]:
    """Return a reader of codebooks that notes which ones it reads."""

    def counted(place: Any, sha256: str) -> bytes:
        read.append(sha256)
        return read_codebook(place, sha256)

    return counted


def test_three_stages_are_told_one_after_the_other(server: Running, tokens: Path, image_of: Named) -> None:
    body = {"query": {"image": image_of("scene-003.jpg")}, "k": 5, "shortlist": 10, "maxsim": 40}
    with server.client.stream("POST", "/v1/search", json={**body, "stream": True}) as response:
        told = events(response)
    names = [name for name, _ in told]
    assert names[:2] == ["first", "middle"] and set(names[2:-1]) == {"scores"} and names[-1] == "end"
    middle = told[1][1]
    assert len(middle["scores"]) == len(middle["order"]) == 40
    by_score = sorted(middle["scores"], key=lambda row: -row["maxsim"])
    assert [row["id"] for row in by_score[:5]] == middle["order"][:5]
    scored = [row["id"] for name, data in told if name == "scores" for row in data["scores"]]
    assert set(scored) == set(middle["order"][:10])
    expected = Retriever(tokens, scorer="tiny-vl", maxsim=40, shortlist=10).search(
        GALLERY / "images" / "scene-003.jpg", k=5
    )
    hits = told[-1][1]["hits"]
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected.hits]
    assert [hit["maxsim"] for hit in hits] == pytest.approx([hit.maxsim for hit in expected.hits], abs=1e-3)
    assert hits[0]["maxsim_rank"] is not None
    assert told[-1][1]["manifest"]["middle_look"][0]["codec"] == "int8"


def test_a_request_may_zoom(server: Running, tokens: Path, image_of: Named) -> None:
    body = {"query": {"image": image_of("scene-003.jpg")}, "k": 5, "maxsim": 40, "rerank": False}
    plain, closer = (server.post("/v1/search", {**body, **own}).json() for own in ({}, {"zoom": True}))
    made = Retriever(tokens, scorer="tiny-vl", maxsim=40, zoom=True)
    expected = made.search(GALLERY / "images" / "scene-003.jpg", k=5, rerank=False)
    scores = [[hit["maxsim"] for hit in found["hits"]] for found in (plain, closer)]
    assert scores[0] != scores[1] == pytest.approx([hit.maxsim for hit in expected.hits], abs=1e-3)
    assert "zoom" not in plain["manifest"]["middle_look"][0] and closer["manifest"]["middle_look"][0]["zoom"]


def test_a_request_may_show_the_crop_that_matched_best(tokens: Path, tmp_path: Path, image_of: Named) -> None:
    path = tmp_path / "crops.lt"
    shutil.copytree(tokens, path)
    body = {"query": {"image": image_of("scene-003.jpg")}, "k": 5, "shortlist": 5, "maxsim": 40, "shown": "both"}
    with running(Settings(tables=(path,), maxsim=0)) as made:
        refused = made.post("/v1/search", body)
        assert refused.status_code == 400 and "--crops" in refused.json()["error"]["message"]
        done = CliRunner().invoke(app, ["add-tokens", str(path), "--mllm", "tiny-vl", "--codec", "int8", "--crops"])
        assert done.exit_code == 0, done.stderr
    with running(Settings(tables=(path,), maxsim=40, shown="both")) as made:
        found = made.post("/v1/search", {name: body[name] for name in ("query", "k", "shortlist")}).json()
    how = {"maxsim": 40, "shortlist": 5, "shown": "both"}
    expected = Retriever(path, scorer="tiny-vl", **how).search(GALLERY / "images" / "scene-003.jpg", k=5)
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in expected.hits]
    assert [hit["p"] for hit in found["hits"]] == pytest.approx([hit.p for hit in expected.hits], abs=2e-3)
    shown = found["manifest"]["candidates"]["middle_look"]["crops shown"]
    assert shown == expected.manifest["candidates"]["middle_look"]["crops shown"] > 0


def test_a_middle_look_has_a_limit_and_a_cost(
    server: Running, tokens: Path, image_of: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MATCHES", 20)
    body = {"query": {"image": image_of("scene-003.jpg")}, "maxsim": 10_001, "rerank": False}
    answer = server.post("/v1/search", body)
    assert answer.status_code == 422
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("too_many", "maxsim")
    with running(Settings(tables=(tokens,), maxsim=0, max_maxsim=100, max_queued_pairs=12)) as made:
        assert made.post("/v1/search", {**body, "maxsim": 101}).status_code == 422
        assert made.post("/v1/search", {**body, "maxsim": 100}).status_code == 200
        assert made.post("/v1/search", {**body, "maxsim": 100, "like": ["scene-001.jpg"] * 5}).status_code == 200
        dear = [{"like": ["scene-001.jpg"] * 6}, {"rerank": True, "shortlist": 6, "shown": "both"}]
        for more in dear:  # 7 · 40 / 20 pairs; 6 · 2 and 40 / 20
            answer = made.post("/v1/search", {**body, "maxsim": 100, **more})
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_pairs")


def test_others_may_come_between_the_examples_of_a_middle_look(server: Running) -> None:
    before = server.service.queue._turns
    body = {"like": ["scene-001.jpg", "scene-002.jpg", "scene-003.jpg"], "maxsim": 40, "rerank": False}
    assert server.post("/v1/search", body).status_code == 200
    assert server.service.queue._turns - before == 3


def test_a_tower_is_loaded_once_and_where_the_server_says(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tower.lt"
    shutil.copytree(drawings, path)
    done = CliRunner().invoke(app, ["add-tokens", str(path), "--tower", "own", "--codec", "int8"])
    assert done.exit_code == 0, done.stderr
    loaded: list[Any] = []
    load = tower.load_encoder
    monkeypatch.setattr(tower, "load_encoder", lambda name, **how: (loaded.append((name, how)), load(name, **how))[1])
    settings = Settings(tables=(path,), device="cpu", dtype="bfloat16")
    served = Tables(settings, MllmReranker("tiny-vl"), lambda encoder: encoder).get(None)
    before = made_by(served)
    Table.open(path).delete(["scene-001.jpg"])
    served.touch()
    assert len(served.reader()) == 39 and made_by(served) is before
    ((name, how),) = loaded
    assert (name, how["device"], how["dtype"]) == ("tiny-clip", "cpu", "bfloat16")


def made_by(served: ServedTable) -> PatchTower:
    """Return what makes the query's tokens for the newest version."""
    middle = served.newest().middle
    assert middle is not None and middle.tower is not None
    return middle.tower.maker()


def test_a_table_without_tokens_refuses_a_middle_look(drawings: Path) -> None:
    with running(Settings(tables=(drawings,), mllm=None)) as made:
        answer = made.post("/v1/search", {"query": {"text": "a"}, "maxsim": 10})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_tokens")


def test_an_explanation_uses_the_stored_tokens(server: Running, image_of: Named) -> None:
    query = {"image": image_of("scene-003.jpg")}
    hit = server.post("/v1/search", {"query": query, "k": 1}).json()["hits"][0]
    found = server.post("/v1/explain", {"query": query, "candidate": {"item": hit["id"]}, "cells": 16}).json()
    assert found["p"] == pytest.approx(hit["p"], abs=2e-3) and found["map"]["rows"] * found["map"]["cols"] <= 16


def test_near_duplicates_are_folded(server: Running) -> None:
    body = {"query": {"text": "a"}, "rerank": False, "k": 40, "distinct": True}
    hits = server.post("/v1/search", body).json()["hits"]
    folded = [name for hit in hits for name in hit["folded"] or ()]
    assert len(hits) + len(folded) == 40


def test_a_server_without_a_second_look_says_which_options_have_no_effect(tokens: Path) -> None:
    with running(Settings(tables=(tokens,), mllm=None)) as made:
        for option in (["--prompt", "object"], ["--fusion", "rrf"], ["--shown", "both"]):
            done = CliRunner().invoke(app, ["search", made.url, "fish", *option])
            assert done.exit_code == 2 and f"{option[0]} has no effect on a server without a second" in done.stderr
        done = CliRunner().invoke(app, ["search", made.url, "fish", "--maxsim", "10"])
        assert done.exit_code == 2 and "The server has no MLLM" in done.stderr, done.stderr
