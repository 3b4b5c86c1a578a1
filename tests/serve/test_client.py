"""The client gives the library's records; `looktwice search ADDRESS` prints what a search of the folder prints."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import INSTALLED
from serving import GALLERY, Running
from typer.testing import CliRunner

from looktwice import AsyncClient, Client, Reranker, Retriever
from looktwice.cli.main import app
from looktwice.cli.remote import KNOWN
from looktwice.cli.search import search as search_verb
from looktwice.cli.serve import serve as serve_verb
from looktwice.errors import ServerError, UsageError

IMAGE = GALLERY / "images" / "scene-003.jpg"


@pytest.fixture(scope="module")
def client(server: Running) -> Client:
    return Client(server.url)


def test_search_gives_the_librarys_hits(client: Client, drawings: Path) -> None:
    found, expected = client.search(IMAGE, k=4), Retriever(drawings, scorer="tiny-vl").search(IMAGE, k=4)
    assert [(h.id, h.rank, h.scored) for h in found.hits] == [(h.id, h.rank, h.scored) for h in expected.hits]
    assert [h.p for h in found.hits] == pytest.approx([h.p for h in expected.hits], abs=2e-3)
    assert found.rows[0]["preview"].startswith("/v1/tables/photos/")
    assert found.manifest["k"] == 4


def test_rerank_score_decide_and_explain(client: Client) -> None:
    texts = ["a horse", "two boats"]
    expected = Reranker("tiny-vl").rank(IMAGE, texts)
    found = client.rerank(IMAGE, texts, return_documents=True)
    assert [row["corpus_id"] for row in found] == [row["corpus_id"] for row in expected]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], abs=2e-3)
    assert found[0]["document"] == texts[found[0]["corpus_id"]]
    assert client.score(IMAGE, texts) == pytest.approx(
        [r["score"] for r in sorted(found, key=lambda r: r["corpus_id"])]
    )
    assert set(client.decide(IMAGE, {"horse": "Is there a horse?"})) == {"horse"}
    assert client.explain(IMAGE, {"item": "scene-003.jpg"}, cells=4)["map"]["rows"] >= 1
    both = client.search({"item": "scene-003.jpg", "text": "horse"}, k=3, rerank=False)
    assert len(both.hits) == 3 and "scene-003.jpg" not in [hit.id for hit in both.hits]
    assert [table["name"] for table in client.tables()] == ["photos"]


def test_a_stream_and_its_errors(client: Client) -> None:
    names = [name for name, _ in client.search_stream(IMAGE, k=2)]
    assert names[0] == "first" and names[-1] == "end"
    with pytest.raises(UsageError, match="no item of this id"):
        list(client.search_stream({"item": "none"}))


def test_the_async_client_has_the_same_methods(server: Running) -> None:
    async def ask() -> tuple[int, list[str], int]:
        async with AsyncClient(server.url) as client:
            answers = await asyncio.gather(*(client.search(text, k=3, rerank=False) for text in ("a", "b", "c")))
            names = [name async for name, _ in client.search_stream(IMAGE, k=1, shortlist=3)]
            return len(answers), names, len(await client.rerank("a", ["b", "c"]))

    count, names, results = asyncio.run(ask())
    assert (count, results) == (3, 2) and names[-1] == "end"
    own = {name for name in vars(Client) if not name.startswith("_")}
    assert own == {name for name in vars(AsyncClient) if not name.startswith("_")}


def test_refusals_are_the_librarys_errors(client: Client) -> None:
    with pytest.raises(UsageError, match="No table has this name"):
        client.search("a", table="other")
    with pytest.raises(UsageError, match="cannot be read"):
        client.search("none.jpg")
    with pytest.raises(ServerError, match="looktwice serve") as lost:
        Client("http://127.0.0.1:9").tables()
    assert lost.value.status == 0 and lost.value.exit_code == 1


@pytest.mark.parametrize("more", [[], ["--json"], ["--explain"], ["--no-rerank"]], ids=lambda more: "".join(more))
def test_the_command_prints_what_it_prints_for_a_folder(
    server: Running, drawings: Path, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(drawings.parent)
    arguments = [str(IMAGE), "-k", "3", *more]
    here = CliRunner().invoke(app, ["search", drawings.name, *arguments])
    there = CliRunner().invoke(app, ["search", server.url, *arguments])
    assert (there.exit_code, here.exit_code) == (0, 0), there.stderr
    if more != ["--json"]:
        assert masked(there.stdout) == masked(here.stdout)
        return
    for one, other in zip(there.stdout.splitlines(), here.stdout.splitlines(), strict=True):
        remote, local = json.loads(one), json.loads(other)
        differ = ("p", "score", "explain", "uri")
        assert {k: v for k, v in remote.items() if k not in differ} == {
            k: v for k, v in local.items() if k not in differ
        }
        assert list(remote) == list(local) and remote["uri"] is None and local["uri"].startswith("file://")
        assert math.isclose(remote["p"], local["p"], abs_tol=2e-3)
        assert list(remote["explain"]) == list(local["explain"])


def masked(text: str) -> list[list[str]]:
    """Words of a table, numbers cut to two digits: blocks of another size round differently in half precision."""
    return [
        [f"{float(w):.2f}" if w.replace(".", "").isdigit() and "." in w else w for w in line.split()][:2]
        for line in text.splitlines()
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["a", "--mllm", "tiny-vl"], 2, "set it where the server is started: looktwice serve TABLE --mllm"),
        (["a", "--hubness", "bank"], 2, "--hubness cannot be sent to a server; leave it out, or search the table with"),
        (["a", "--report", "r.html"], 2, "--report cannot be sent to a server; leave it out, or search the table with"),
        (["a", "--table", "b.lt"], 2, "--table cannot be sent to a server; name one table in the address"),
        (["--queries", "q.jsonl"], 2, "--queries cannot be sent to a server; a server takes one query at a time"),
        (["a", "--api-key-file", "k"], 2, "put the server's key into the variable LOOKTWICE_API_KEY"),
        (["a", "--examples", "max"], 2, "--examples has no effect on one example"),
        (["--like", "none.jpg"], 2, "'none.jpg' is neither a file nor an item"),
        (["a", "--zoom"], 2, "--zoom has no effect without a middle look; add --maxsim 1000, or leave it out."),
        (["a", "--like", "b", "--no-rerank", "--examples", "max"], 2, "--examples has no effect without a middle look"),
        (["a", "--where", "year > 2000"], 2, "JSON only"),
        (["none.jpg"], 2, "does not exist"),
        ([], 2, "query is missing"),
        (["a", "-k", "0"], 2, "k"),
    ],
)
def test_refused_commands_exit_with_2(server: Running, arguments: list[str], code: int, says: str) -> None:
    done = CliRunner().invoke(app, ["search", server.url, *arguments])
    assert done.exit_code == code and says in done.stderr, done.stderr


@pytest.mark.parametrize(
    "more",
    [
        ["a horse", "--like", "two boats"],
        ["a horse", "--like", "scene-004.jpg", "--unlike", "a tree", "--examples", "max"],
        [str(IMAGE), "--distinct", "--min-cosine", "0.97"],
    ],
    ids=["words", "ids", "distinct"],
)
def test_examples_and_duplicates_are_those_of_a_folder(
    server: Running, drawings: Path, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(drawings.parent)
    asked = [*more, "-k", "40", "--json"]
    sent = [one for one in asked if one not in ("--min-cosine", "0.97")]
    here = CliRunner().invoke(app, ["search", drawings.name, *asked])
    there = CliRunner().invoke(app, ["search", server.url, *sent])
    assert (there.exit_code, here.exit_code) == (0, 0), there.stderr
    local, remote = ([json.loads(line) for line in done.stdout.splitlines()] for done in (here, there))
    assert [hit["coarse"] for hit in remote] == pytest.approx([hit["coarse"] for hit in local], abs=2e-3)
    assert [hit.get("folded") for hit in remote] == [hit.get("folded") for hit in local]


def test_every_option_of_serve_that_a_refusal_names_is_one(server: Running) -> None:
    search, serve = (inspect.signature(verb).parameters for verb in (search_verb, serve_verb))
    others = [name for name in search if name not in KNOWN and name not in ("ctx", "encoder", "min_cosine")]
    flags = {name for name in others if search[name].annotation is bool or isinstance(search[name].default, bool)}
    own = ("tables", "api_key_file")
    for name in others:
        option = "--table" if name == "tables" else f"--{name.replace('_', '-')}"
        value = [] if name in flags else ["laptop" if name == "preset" else "1"]
        done = CliRunner().invoke(app, ["search", server.url, "a", option, *value])
        assert done.exit_code == 2 and f"{option} cannot be sent to a server" in done.stderr, done.stderr
        assert ("looktwice serve TABLE" in done.stderr) is (name in serve and name not in own), done.stderr


def test_a_table_in_the_address_and_a_server_that_is_away(server: Running) -> None:
    assert CliRunner().invoke(app, ["search", f"{server.url}/photos", "a", "-k", "1"]).exit_code == 0
    assert CliRunner().invoke(app, ["search", f"{server.url}/other", "a"]).exit_code == 2
    assert CliRunner().invoke(app, ["search", "http://127.0.0.1:9", "a"]).exit_code == 1


def test_asking_a_server_loads_no_model(server: Running) -> None:
    code = (
        "import sys; sys.argv[1:] = ['search', sys.argv[1], sys.argv[2], '-k', '2']\n"
        "from looktwice.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'lancedb', 'numpy', 'PIL', 'pyarrow', 'fastapi', 'rich.progress'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, server.url, str(IMAGE)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(INSTALLED), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
