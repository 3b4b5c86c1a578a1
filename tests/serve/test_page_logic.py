"""What the page computes itself equals what the library computes: the order of hits, ids in files, commands."""

from __future__ import annotations

import io
import json
import random
import shlex
import zipfile
from typing import Any

import numpy as np
import pytest
from browsing import Opener
from playwright.sync_api import Page
from serving import Running

from looktwice.evaluate.trec import escape
from looktwice.rank import fuse
from looktwice.rank.calibration import Sample, fit
from looktwice.search.ranking_config import THREE
from looktwice.types import Candidate, PairScores

IDS = ["a", "b", "ä", "\U0001f600", "\uff5a", "a b", "tab\there", "C:\\u0041", "z\u2028", "日本", "a\x85b", "-x"]


@pytest.fixture(scope="module")
def page(browser: Any, shop_page: Running) -> Any:
    made = browser.new_page()
    made.goto(f"{shop_page.url}/")
    yield made
    made.close()


def run(page: Page, module: str, code: str, value: Any = None) -> Any:
    return page.evaluate(f"async (value) => {{ const m = await import('/js/{module}.js'); return {code}; }}", value)


def scores(rng: random.Random, n: int) -> PairScores:
    p = [rng.choice([0.0, 1.0, 0.5, rng.random()]) for _ in range(n)]
    entropy = [rng.choice([0.1, 0.2, rng.random()]) for _ in range(n)]
    return PairScores(
        np.array(p, np.float32),
        np.zeros((n, 2), np.float32),
        np.array(entropy, np.float32),
        np.zeros(n, np.float32),
        np.zeros(n, np.int64),
        ("ok",) * n,
    )


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_the_order_is_the_librarys(page: Page, weight: float) -> None:
    rng = random.Random(int(weight * 10))
    for _ in range(20):
        names = rng.sample(IDS, 9)
        shortlist = [Candidate(name, rng.choice([0.1, 0.5, rng.uniform(-1, 1)])) for name in names]
        shortlist.sort(key=lambda candidate: -candidate.coarse)
        answer = scores(rng, 6)
        expected = fuse(shortlist, answer, weight, ties="default")
        hits = [{"id": c.id, "coarse": c.coarse, "p": None, "entropy": None} for c in shortlist]
        for i in range(6):
            hits[i] |= {"p": float(answer.p[i]), "entropy": float(answer.entropy[i])}
        rng.shuffle(hits)
        found = run(page, "fusion", f"m.ranked(value, {{weight: {weight}, odds: false}})", hits)
        assert [hit["id"] for hit in found] == [hit.id for hit in expected]
        assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-9)
        assert [hit["rank"] for hit in found] == list(range(1, 10))


def test_a_middle_look_orders_what_the_second_did_not_see(page: Page) -> None:
    rng = random.Random(1)
    for _ in range(20):
        shortlist = [Candidate(name, rng.random(), rng.random()) for name in IDS[:6]]
        shortlist.sort(key=lambda candidate: -(candidate.maxsim or 0))
        rest = sorted((Candidate(name, rng.random()) for name in IDS[6:9]), key=lambda candidate: -candidate.coarse)
        answer = scores(rng, 3)
        expected = fuse([*shortlist, *rest], answer, "coarse=0,maxsim=0.3,odds=0.7", ties="default")
        hits = [{"id": c.id, "coarse": c.coarse, "maxsim": c.maxsim, "p": None} for c in [*shortlist, *rest]]
        for i in range(6):
            hits[i] |= {"middle_place": i + 1}
        for i in range(3):
            hits[i] |= {"p": float(answer.p[i]), "entropy": float(answer.entropy[i])}
        rng.shuffle(hits)
        found = run(page, "fusion", "m.ranked(value, {weight: 0.3, odds: true})", hits)
        assert [hit["id"] for hit in found] == [hit.id for hit in expected]


def test_a_calibration_reads_between_its_points(page: Page) -> None:
    fitted = fit([Sample(str(q), p / 10, 1 - p / 10, p > 5) for q in range(30) for p in range(11)], {})
    curve = [[n / 50, fitted.probability(n / 50)] for n in range(51)]
    for p in (0.0, 0.333, 0.5, 0.971, 1.0):
        assert run(page, "fusion", f"m.calibrated(value, {p})", curve) == pytest.approx(fitted.probability(p), abs=0.02)
    thresholds = {"0.5": 0.2, "0.9": 0.7}
    assert [run(page, "fusion", f"m.promisedPrecision(value, {p})", thresholds) for p in (0.1, 0.3, 0.8)] == [
        None,
        0.5,
        0.9,
    ]


def test_a_link_keeps_the_whole_state(page: Page) -> None:
    state = {
        "view": "search",
        "table": "shop",
        "text": 'a "b" & c=d #1 ü',
        "item": "x/y z.jpg",
        "image": "UklGRg",
        "like": ["a&b", "c"],
        "unlike": ["d"],
        "weight": 0.25,
        "depth": 20,
        "least": 0.4,
        "distinct": True,
        "where": {"price": {">=": 2, "<": 9.5}, "shelf": ["left", "right"], "new": True},
        "yes": ["e"],
        "no": ["f", "g"],
        "hit": "h",
    }
    assert run(page, "state", "m.decode(m.encode(value))", state) == state
    assert run(page, "state", "m.encode(m.DEFAULTS)") == ""


def test_a_link_that_someone_edited_does_no_harm(page: Page) -> None:
    link = "weight=7&depth=x&least=&where=[1]&view=admin&distinct=maybe&__proto__=1&yes=a&yes=a"
    state = run(page, "state", "m.decode(value)", link)
    assert (state["weight"], state["depth"], state["least"]) == (None, 50, 0)
    assert (state["where"], state["view"], state["distinct"], state["yes"]) == ({}, "search", False, ["a"])


def test_ids_in_qrels_are_written_as_the_library_writes_them(page: Page) -> None:
    names = [*IDS, "\ufeffbom", "new\nline", "\\u00e9", "\x00"]
    assert run(page, "marks", "value.map(m.escapeId)", names) == [escape(name) for name in names]
    lone = page.evaluate("async () => (await import('/js/marks.js')).escapeId('a' + String.fromCharCode(0xd800))")
    assert lone == "a\\ud800"


def test_an_archive_opens_elsewhere(page: Page) -> None:
    code = """[...new Uint8Array(await m.zip(value.map(([name, text]) =>
        [name, new TextEncoder().encode(text)])).arrayBuffer())]"""
    files = [["qrels.txt", "q1 0 a 1\n"], ["bilder/ü.txt", "ä" * 1000], ["empty", ""]]
    archive = zipfile.ZipFile(io.BytesIO(bytes(run(page, "zip", code, files))))
    assert archive.testzip() is None
    assert [[info.filename, archive.read(info).decode()] for info in archive.infolist()] == files


def test_a_command_line_survives_a_shell(page: Page) -> None:
    state = {"text": "it's -- $HOME", "where": {"shelf": ["left's"], "price": {">=": 3}}, "depth": 20, "weight": 0.5}
    about = {"name": "shop", "path": "/my tables/shop.lt", "mllm": "tiny-vl"}
    line = run(page, "commands", "m.searchCommand(value[0], value[1])", [about, {**state, "item": None, "image": None}])
    words = shlex.split(line)
    assert words[:4] == ["looktwice", "search", "/my tables/shop.lt", "it's -- $HOME"]
    assert words[-1] == "shelf IN ('left''s') AND price >= 3" and words[8:12] == ["--maxsim", "0", "--fusion", "0.5"]
    state |= {"item": None, "image": None, "weight": None}
    about |= {"maxsim": 1000, "zoom": True}
    line = run(page, "commands", "m.searchCommand(value[0], value[1])", [about, state])
    assert shlex.split(line)[8:13] == ["--maxsim", "1000", "--fusion", THREE, "--zoom"]
    from looktwice.store.filters import check

    check(words[-1])


def test_event_streams_may_be_cut_anywhere(page: Page) -> None:
    whole = 'event: first\ndata: {"a":\ndata: 1}\n\n: ping\n\nevent: end\ndata: {"b":2}\n\nrest'
    code = """(() => { const found = []; let rest = "";
        for (const sign of value) { const part = m.events(rest + sign); rest = part.rest; found.push(...part.events); }
        return [found, rest]; })()"""
    assert run(page, "api", code, whole) == [[["first", {"a": 1}], ["end", {"b": 2}]], "rest"]


def test_the_pages_files_name_no_other_server(visit: Opener, shop_page: Running) -> None:
    site = visit(shop_page)
    asked: list[str] = []
    site.page.on("request", lambda request: asked.append(request.url))
    site.open()
    site.page.wait_for_timeout(300)
    assert asked and all(url.startswith((shop_page.url, "data:", "blob:", "about:")) for url in asked)
    assert json.dumps(asked).count("/v1/tables") >= 3
