"""A real Ray cluster of two nodes with one core each: the same ids, ledger, codes and run files as on one machine."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from colour_encoder import ColourEncoder, picture
from PIL import Image
from typer.testing import CliRunner

from looktwice.cli.main import app
from looktwice.errors import LooktwiceError, MediaError, UsageError
from looktwice.indexing import EncodedBatch, distributed, index
from looktwice.indexing.distributed import EncodingJob
from looktwice.indexing.encoding import PlannedEncoder
from looktwice.indexing.reading import Planned
from looktwice.models.cluster import Cluster
from looktwice.search.distributed import SpreadRetriever
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.retriever import Retriever
from looktwice.sources import scan
from looktwice.store import Row, Table, ann, batched
from looktwice.testing import BrightnessScorer, make_images
from looktwice.types import EncoderInfo, Item, PairScores

PLAIN = ("--device", "cpu", "--dtype", "float32", "--threads", "1")
CLIENT_PORT = 23999

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Start two nodes, and end them."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    outside = {"ray_client_server_port": CLIENT_PORT} if find_spec("grpc") else {}
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 2**27, **outside})
    nodes.add_node(num_cpus=1, object_store_memory=2**27)
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()


def client() -> str:
    """The address of the cluster for Ray's client."""
    pytest.importorskip("grpc", reason="pip install 'looktwice[ray]'")
    return f"ray://127.0.0.1:{CLIENT_PORT}"


class Squares:
    """Work of a worker: squares, slowly; a negative number is an error, and "die" ends the process once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> object:
        def work(shard: int) -> tuple[int, int]:
            if shard < 0:
                raise MediaError("missing", f"no number {shard}")
            time.sleep(0.05)
            return shard * shard, os.getpid()

        return work


def workers() -> list[psutil.Process]:
    """The processes of our workers on this machine."""
    return [one for one in psutil.process_iter(["name", "cmdline"]) if "_Worker" in " ".join(one.info["cmdline"] or [])]


def test_results_come_in_order_from_both_workers(address: str, tmp_path: Path) -> None:
    cluster = Cluster(address)
    assert cluster.workers == 2
    found = list(cluster.map(Squares(tmp_path), iter(range(40))))
    assert [square for square, _ in found] == [number * number for number in range(40)]
    assert len({pid for _, pid in found}) == 2


def tell_variable() -> Callable[[str], str | None]:
    return os.environ.get


def test_keys_reach_the_workers_but_no_log(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a-key-of-nothing")
    assert list(Cluster(address).map(tell_variable, ["AZURE_STORAGE_ACCOUNT_KEY"])) == ["a-key-of-nothing"]
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    assert not [log for log in logs.rglob("*") if log.is_file() and b"a-key-of-nothing" in log.read_bytes()]


def test_a_killed_worker_loses_nothing(address: str, tmp_path: Path) -> None:
    done, killed = [], []
    for square, pid in Cluster(address).map(Squares(tmp_path), iter(range(60))):
        done.append(square)
        if len(done) in (5, 30):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    assert done == [number * number for number in range(60)] and len(killed) == 2


def test_an_error_of_the_work_is_our_own(address: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="missing: no number -1") as caught:
        list(Cluster(address).map(Squares(tmp_path), [1, -1]))
    assert caught.value.reason == "missing"


def test_a_part_that_kills_every_worker_is_a_sentence(address: str, tmp_path: Path) -> None:
    class Deadly:
        def __call__(self) -> object:
            return lambda shard: os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(LooktwiceError, match="Workers were lost 3 times at the same part"):
        list(Cluster(address).map(Deadly(), [1]))


def test_no_cluster_is_a_sentence() -> None:
    import ray

    ray.shutdown()
    with pytest.raises(UsageError, match=r"No Ray cluster answers at|cannot be used"):
        Cluster("127.0.0.1:1")


OUT_OF_MEMORY = """
from ray.cluster_utils import Cluster as Nodes
from looktwice.errors import UsageError
from looktwice.models.cluster import Cluster
nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 2**27})
try:
    list(Cluster(nodes.address).map(lambda: abs, [1]))
except UsageError as error:
    print(error)
"""


def test_too_little_memory_on_a_worker_is_a_sentence() -> None:
    """Ray ends every worker of a machine that has less memory left than it is told to keep."""
    environment = {**os.environ, "RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    argv = [sys.executable, "-c", OUT_OF_MEMORY]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.stdout == "A worker ran out of memory when it started; use workers with more memory.\n", done.stderr


def state(table: Table) -> tuple[object, ...]:
    """All of a table but vectors and times."""
    columns = ["id", "uri", "root", "sha256", "width", "height", "text", "metadata"]
    rows = sorted((tuple(row.values()) for row in table.rows(columns)), key=str)
    ledger = [(entry.uri, entry.stage, entry.reason, entry.detail, entry.item_id) for entry in table.ledger]
    return rows, ledger, table.manifest.roots, table.previewed(table.hashes())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_images(tmp_path_factory.mktemp("photos") / "one")
    (folder / "bad.png").write_bytes(b"x")
    (folder / "copy.png").write_bytes((folder / "red-0.png").read_bytes())
    (folder.parent / "two").mkdir()
    (folder.parent / "two" / "red-0.png").write_bytes((folder / "blue-1.png").read_bytes())
    return folder.parent


def run(*arguments: str) -> list[dict[str, Any]]:
    """Run a command line with the bundled models; return its records."""
    done = CliRunner().invoke(app, [*arguments, *PLAIN])
    assert done.exit_code in (0, 3), done.output
    assert "(raylet)" not in done.stdout, "Ray's own messages are no answer"
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_index_tokens_and_search_as_on_one_machine(address: str, photos: Path, tmp_path: Path) -> None:
    queries = tmp_path / "q.jsonl"
    asked = [{"id": name, "image": str(photos / "one" / f"{name}.png")} for name in ("red-1", "grey-0", "blue-2")]
    queries.write_text("".join(json.dumps(query) + "\n" for query in asked))
    outcomes = []
    for name, ray in (("here", []), ("there", ["--ray", address])):
        place = str(tmp_path / f"{name}.lt")
        indexing = ["index", place, str(photos / "one"), str(photos / "two"), "--json", *ray]
        made, again = run(*indexing)[0], run(*indexing)[0]
        tokens = run("add-tokens", place, "--codec", "int8", "--json", *ray)[0]
        files = [tmp_path / f"{name}-{kind}.trec" for kind in ("first", "second", "rerank")]
        first, second, third = map(str, files)
        run("search", place, "--queries", str(queries), "--run", first, "--no-rerank", *ray)
        run("search", place, "--queries", str(queries), "--run", second, "--shortlist", "8", *ray)
        run("rerank", first, place, "--queries", str(queries), "--run", third, "--shortlist", "6", *ray)
        table = Table.open(place)
        (key,) = [entry["tokens_key"] for entry in table.manifest.tokens]
        ids = sorted(table.hashes())
        counts = [made[count] for count in ("added", "failed", "reasons", "items", "ignored")]
        more = (counts, again["unchanged"], again["added"], tokens["encoded"], table.read_codes(ids, key))
        outcomes.append((state(table), more, [file.read_bytes() for file in files], table.vectors(ids)))
    (*here, left), (*there, right) = outcomes
    assert here == there and here[2][1]
    np.testing.assert_allclose(left, right, atol=1e-3)


def patches(folder: Path, count: int) -> Path:
    """Write different images of 4 × 4 squares, and one that is none."""
    folder.mkdir()
    for number, colours in enumerate(np.random.default_rng(0).integers(0, 255, (count, 4, 4, 3), np.uint8)):
        Image.fromarray(colours).resize((48, 48), Image.Resampling.NEAREST).save(folder / f"{number:05}.png")
    (folder / "bad.png").write_bytes(b"x")
    return folder


@contextmanager
def one_killed(after: float) -> Iterator[None]:
    """Kill a worker some seconds after it began to work. Fails if none worked so long."""
    killed: list[int] = []

    def kill() -> None:
        while not (busy := [one for one in workers() if "_Worker.run" in " ".join(one.cmdline())]):
            time.sleep(0.02)
        time.sleep(after)
        busy[0].kill()
        killed.append(busy[0].pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    yield
    thread.join(5)
    assert killed


def test_with_a_worker_killed_in_each_step_all_is_as_on_one_machine(address: str, tmp_path: Path) -> None:
    count = int(os.environ.get("RAY_IMAGES", "600"))  # 20000 takes half an hour
    folder, queries = patches(tmp_path / "images", count), tmp_path / "q.jsonl"
    names, depth = [f"{number:05}.png" for number in range(max(15, count // 100))], max(12, count // 200)
    queries.write_text("".join(json.dumps({"id": name, "image": str(folder / name)}) + "\n" for name in names))
    here, there = str(tmp_path / "here.lt"), str(tmp_path / "there.lt")
    for place, ray in ((here, []), (there, ["--ray", address])):
        search = ["search", place, "--queries", str(queries), "--shortlist", str(depth)]
        search += ["--run", f"{place}.trec"]
        for line in (["index", place, str(folder)], ["add-tokens", place, "--codec", "int8"], search):
            begun = time.monotonic()
            with one_killed(after=count / 1000) if ray else nullcontext():
                run(*line, *ray)
            print(f"{count} images, {line[0]} {' '.join(ray)}: {time.monotonic() - begun:.0f} s", flush=True)
    left, right = Table.open(here), Table.open(there)
    assert state(left) == state(right) and len(left) == count
    ids = sorted(left.hashes())
    np.testing.assert_array_equal(left.vectors(ids), right.vectors(ids))
    (key,) = [entry["tokens_key"] for entry in left.manifest.tokens]
    for some in batched(ids, 1000):
        assert left.read_codes(some, key) == right.read_codes(some, key)
    assert Path(f"{here}.trec").read_bytes() == Path(f"{there}.trec").read_bytes()


class SlowJob(EncodingJob):
    """The job of indexing, with an encoder of the tests."""

    def __call__(self) -> Callable[[list[Planned]], list[EncodedBatch]]:
        work = PlannedEncoder(ColourEncoder(), Table.open(self.table).snapshot(), 8, 1, 0)

        def encode(shard: list[Planned]) -> list[EncodedBatch]:
            time.sleep(0.2)
            return list(work.batches(shard))

        return encode


def test_a_worker_killed_while_indexing(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "SHARD", 8)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(120):
        (folder / f"{number:03}.png").write_bytes(picture(f"rgb({number}, {255 - number}, {number % 7 * 30})"))
    encoder = ColourEncoder()
    here, there = (Table.create(tmp_path / f"{name}.lt", encoder.info) for name in ("here", "there"))
    index(here, scan([folder]), encoder)
    job = SlowJob.of(there, encoder.info)
    with one_killed(after=0.5):
        report = index(there, scan([folder]), encoder, encode=job.on(Cluster(address)))
    assert (report.added, report.failed) == (120, 0)
    assert state(here) == state(there)
    ids = sorted(here.hashes())
    np.testing.assert_array_equal(here.vectors(ids), there.vectors(ids))


def scores_in(path: Path) -> tuple[int, int]:
    """How many scores a file holds, and of how many pairs."""
    with closing(sqlite3.connect(path)) as db:
        if not db.execute("SELECT * FROM sqlite_master").fetchall():
            return 0, 0  # it has just been created
        rows = db.execute("SELECT scope, query, candidate FROM scores").fetchall()
    return len(rows), len(set(rows))


@pytest.mark.parametrize("from_outside", [False, True], ids=["inside", "outside"])
def test_a_killed_driver_goes_on_where_it_was(address: str, photos: Path, tmp_path: Path, from_outside: bool) -> None:
    table, queries, kept = tmp_path / "t.lt", tmp_path / "q.jsonl", tmp_path / "there.trec.scores"
    run("index", str(table), str(photos / "one"))
    asked = [{"id": path.stem, "image": str(path)} for path in sorted((photos / "one").glob("*-*.png"))]
    queries.write_text("".join(json.dumps(query) + "\n" for query in asked))
    line = ["search", str(table), "--queries", str(queries), "--shortlist", "8", "--batch-size", "1", "--device", "cpu"]
    line += ["--dtype", "float32", "--threads", "1", "--run"]
    first = CliRunner().invoke(app, [*line, str(tmp_path / "here.trec")])
    address = client() if from_outside else address
    again = [*line, str(tmp_path / "there.trec"), "--ray", address]
    driver = subprocess.Popen([sys.executable, "-m", "looktwice", *again], stderr=subprocess.DEVNULL)
    while not kept.exists() or scores_in(kept)[0] < 10:
        assert driver.poll() is None
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    before, pairs = scores_in(kept)
    assert 10 <= before == pairs < 8 * len(asked)
    done = CliRunner().invoke(app, again)
    assert first.exit_code == done.exit_code == 0, done.output
    assert (tmp_path / "here.trec").read_bytes() == (tmp_path / "there.trec").read_bytes()
    counted = json.loads((tmp_path / "there.trec.json").read_text())["candidates"]
    assert counted["requested"] == 8 * len(asked) and counted["remembered"] >= before
    assert not kept.exists(), "the run file is written"


class SlowScorer(BrightnessScorer):
    """Takes a tenth of a second a query."""

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        time.sleep(0.1)
        return super().score(query, candidates)


def test_every_pair_is_kept_once_though_a_worker_is_killed(address: str, tmp_path: Path) -> None:
    folder = make_images(tmp_path / "images")
    run("index", str(tmp_path / "t.lt"), str(folder))
    queries = [Item(path.stem, image=Image.open(path)) for path in sorted(folder.iterdir())]
    look = MllmReranker(SlowScorer(), cache=tmp_path / "scores")
    spread = SpreadRetriever(Cluster(address), [tmp_path / "t.lt"], None, look, shortlist=6, device="cpu")
    answers = spread.search_many(queries)
    found = [next(answers)]
    workers()[0].kill()
    found += answers
    expected = list(Retriever(tmp_path / "t.lt", scorer=SlowScorer(), shortlist=6, device="cpu").search_many(queries))
    assert [answer.ranking for answer in found] == [answer.ranking for answer in expected]
    assert scores_in(tmp_path / "scores") == (6 * len(queries),) * 2


def test_a_benchmark_is_evaluated_as_on_one_machine(address: str, photos: Path, tmp_path: Path) -> None:
    ids = sorted(path.stem for path in (photos / "one").glob("*-*.png"))[:6]
    queries, qrels = tmp_path / "q.jsonl", tmp_path / "qrels.txt"
    queries.write_text("".join(json.dumps({"id": n, "image": str(photos / "one" / f"{n}.png")}) + "\n" for n in ids))
    qrels.write_text("".join(f"{name} 0 {name}.png 1\n" for name in ids))
    run("index", str(tmp_path / "t.lt"), str(photos / "one"))
    line = ["eval", "run", "table", "--table", str(tmp_path / "t.lt"), "--queries", str(queries), "--qrels", str(qrels)]
    line += ["--shortlist", "5", "--json", "--out"]
    here, there = (
        run(*line, str(tmp_path / name), *ray)[0] for name, ray in (("here", []), ("there", ["--ray", address]))
    )
    measured = [[(system["system"], system["measures"]) for system in done["systems"]] for done in (here, there)]
    assert measured[0] == measured[1] and len(measured[0]) == 2
    for name in ("shortlist.trec", "second-look.trec"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_workers_build_the_index(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lance", reason="pip install 'looktwice[ray]'")
    monkeypatch.setattr(ann, "EXACT_ROWS", 1000)
    table = Table.create(tmp_path / "t.lt", EncoderInfo("toy", "1", "none", 32))
    for part in range(3):
        vectors = np.random.default_rng(part).normal(size=(1500, 32)).astype(np.float32)
        names = [f"{part}-{number:04}.png" for number in range(1500)]
        table.add(
            [Row(name, f"file:///{name}", "0" * 64, 4, 4, None, {}, v) for name, v in zip(names, vectors, strict=True)]
        )
    info = table.build_index(Cluster(address).map)
    (index,) = [one for one in table._items.list_indices() if one.columns == ["vector"]]
    assert (info.kind, index.num_segments, index.num_indexed_rows) == ("ivf_rq", 3, 4500) and info.recall >= 0.99


def outside(*line: str) -> subprocess.Popen[str]:
    """Start a command line in a process of its own, which uses the cluster by Ray's client."""
    argv = [sys.executable, "-m", "looktwice", *line, "--ray", client(), *PLAIN]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)


def test_the_verbs_run_from_outside_the_cluster(address: str, photos: Path, tmp_path: Path) -> None:
    queries, place, scores = tmp_path / "q.jsonl", str(tmp_path / "t.lt"), tmp_path / "scores"
    queries.write_text(json.dumps({"id": "red-1", "image": str(photos / "one" / "red-1.png")}) + "\n")
    asked = ["--queries", str(queries), "--shortlist", "5"]
    first, here, there, again = (str(tmp_path / f"{name}.trec") for name in ("first", "here", "there", "again"))
    lines = [
        ["index", place, str(photos / "one")],
        ["search", place, *asked, "--run", first, "--score-cache", str(scores)],
        ["rerank", first, place, *asked, "--run", there],
    ]
    for line, code in zip(lines, (3, 0, 0), strict=True):
        done = outside(*line)
        error = done.communicate(timeout=180)[1]
        assert done.returncode == code, error
    run("search", place, *asked, "--run", here)
    assert Path(first).read_bytes() == Path(here).read_bytes() and scores_in(scores) == (
        4,
        4,
    )  # copy.png has the bytes of another
    run("rerank", first, place, *asked, "--run", again)
    assert Path(there).read_bytes() == Path(again).read_bytes()
