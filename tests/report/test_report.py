"""The report as a file: self-contained, escaped, complete, the same every time."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_data import HOSTILE, MANIFEST, picture, query, shuffled

from looktwice.errors import UsageError
from looktwice.report import QueryView, ResultView, drawing, paired, write_report
from looktwice.types import Candidate, Hit

VOID = {"meta", "input", "br", "use", "path", "image", "img"}


class Page(HTMLParser):
    """What a browser would see: elements with attributes, text by element, and whether tags balance."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.texts = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag, **attributes):
        return [
            a for t, a in self.elements if t == tag and all(a.get(k.rstrip("_")) == v for k, v in attributes.items())
        ]

    def text(self):
        return "\n".join(text for tag, text in self.texts if tag not in ("style", "script"))


@pytest.fixture
def page(tmp_path):
    def write(queries, **options):
        path = tmp_path / "report.html"
        write_report(path, **({"title": "A title", "manifest": MANIFEST, "queries": queries} | options))
        return Page(path.read_text("utf-8"))

    return write


def test_it_asks_the_network_for_nothing(page):
    seen = page([query(), query("r", -0.1)], summary=[{"": "coarse", "mAP@20": 0.5}])
    for tag, attributes in seen.elements:
        for name in ("href", "src", "srcset", "action", "data", "poster", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), (tag, attributes)
    assert not seen.all("link") and not seen.all("iframe")
    style = next(text for tag, text in seen.texts if tag == "style")
    assert "url(" not in style and "@import" not in style
    assert not seen.open


def test_plots_and_further_tables_are_shown_and_cannot_reach_the_page(page):
    style = "<svg xmlns='http://www.w3.org/2000/svg'><style>*{display:none}</style></svg>"
    rows = [{"query": name, "change": -0.5} for name in HOSTILE]
    seen = page([query()], plots=[(HOSTILE[0], style, HOSTILE[1])], tables=[(HOSTILE[2], rows), ("empty", [])])
    (drawn,) = [a for a in seen.all("img") if a["src"].startswith("data:image/svg+xml;base64,")]
    assert base64.b64decode(drawn["src"].partition(",")[2]).decode() == style and drawn["alt"] == HOSTILE[0]
    assert "display:none" not in next(text for tag, text in seen.texts if tag == "style")
    assert all(name in seen.text() for name in HOSTILE[1:]) and "empty" not in seen.text()
    assert not seen.open and len(seen.all("script")) == 1


def test_the_first_sentence_counts_all_queries_where_some_are_shown(page):
    some = page([query(), query("r", -0.1)], tally=(1200, 7, 0)).text()
    assert "1\u202f200" in some and "1\u202f207 queries" in some and "Queries that gained and lost most" in some
    assert "Every query" in page([query(), query("r", -0.1)]).text()


def test_its_policy_allows_its_own_script_and_nothing_else(page):
    seen = page([query()])
    (policy,) = seen.all("meta", **{"http-equiv": "Content-Security-Policy"})
    (script,) = [text for tag, text in seen.texts if tag == "script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy["content"] and policy["content"].startswith("default-src 'none'")


def test_a_picture_stands_in_the_file_once(tmp_path):
    write_report(tmp_path / "r.html", title="t", manifest=MANIFEST, queries=[query("a"), query("b"), query("c")])
    html = (tmp_path / "r.html").read_text("utf-8")
    for shown in (picture("magenta"), shuffled()[0].thumbnail):
        assert html.count(base64.b64encode(shown).decode()) == 1
    seen = Page(html)
    sheet = {image["id"] for image in seen.all("image")}
    uses = [use["href"].removeprefix("#") for use in seen.all("use")]
    assert set(uses) == sheet and len(uses) > 3 * len(sheet)


def test_pictures_that_are_not_shown_are_not_carried(page):
    """Twelve candidates of which three columns show: six places, and the query."""
    assert len(page([query()], columns=3).all("image")) == 3 + 3 + 1


def test_both_orders_are_shown_with_scores_moves_and_labels(page):
    seen = page([query()])
    text = seen.text()
    assert "p 0.750" in text and "0.950" in text  # p of the tenth candidate, coarse score of the second
    assert "▲9" in text and "up from 10" in text and "down from 1" in text
    assert [label for label in seen.all("ol") if label["class"] == "strip before"]
    assert len(seen.all("span", **{"aria-label": "relevant"})) == 8  # ranks 1 4 7 10 in both rows
    assert "4 of 5 relevant in the shortlist" in text


def test_what_was_not_scored_says_so(page):
    results = [*shuffled()[:9], ResultView("failed one", 10, 10, 0.1, -0.5, None, note="failed", relevant=False)]
    text = page([query(results=results)]).text()
    assert "failed" in text and "p nan" not in text.lower() and "p 0.000" in text


def test_without_a_second_look_one_row_is_shown(page):
    results = [ResultView(f"i{n}", n, n, 0.9 - n / 10, 0.9, None, note="not scored") for n in range(1, 4)]
    seen = page([query(results=results, before={}, after={})])
    assert len(seen.all("ol")) == 1 and not seen.all("svg", class_="threads")
    assert "no second look was taken" in seen.text()
    failed = [ResultView("i", 1, 1, 0.9, 0.9, None, note="failed")]
    assert len(page([query(results=failed)]).all("ol")) == 2


def test_queries_that_gained_most_come_first_and_the_lead_counts_them(page):
    seen = page([query("worse", -0.3), query("same", 0.0), query("better", 0.4)])
    headings = [text for tag, text in seen.texts if tag == "bdi"]
    assert [name for name in headings if name in ("worse", "same", "better")] == ["better", "same", "worse"]
    assert [a["data-given"] for a in seen.all("details", class_="query")] == ["2", "1", "0"]
    lead = " ".join(seen.text().split())
    assert "raised mAP@20 for 1 of 3 queries, lowered it for 1 and left 1 as it was" in lead


def test_without_labels_the_given_order_stands(page):
    plain = [query(name, before={}, after={}, relevant=None, results=[]) for name in "zya"]
    seen = page(plain)
    assert [a["data-given"] for a in seen.all("details", class_="query")] == ["0", "1", "2"]
    assert "3 queries; no second look" in seen.text() and "The shortlist was empty" in seen.text()
    assert "relevant" not in seen.text()


def test_many_queries_start_closed_but_for_the_first(page):
    opened = [("open" in a) for a in page([query(str(i)) for i in range(40)]).all("details", class_="query")]
    assert sum(opened) == 6 and opened[:6] == [True] * 6
    assert all("open" in a for a in page([query(str(i)) for i in range(5)]).all("details", class_="query"))


def test_a_keyboard_and_a_screen_reader_find_their_way(page):
    seen = page([query(), query("b")], summary=[{"": "coarse", "mAP@20": 0.5}])
    anchors = {a["id"] for _, a in seen.elements if "id" in a}
    links = [a["href"].removeprefix("#") for a in seen.all("a")]
    assert links[0] == "queries" and set(links) <= anchors
    assert len(seen.all("h1")) == 1 and seen.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in seen.elements if re.fullmatch("h[1-6]", tag)]
    assert all(b <= a + 1 for a, b in pairwise(levels))
    named = [a for tag, a in seen.elements if a.get("role") == "img" and "aria-label" not in a]
    assert all(a["class"] == "ticks" for a in named)  # those carry a <title>


def test_the_manifest_and_the_summary_are_shown_whole(page):
    text = page([], summary=[{"": "coarse", "mAP@20": 0.41234, "bytes": 20412}, {"": "second", "mAP@20": None}]).text()
    for expected in ("tiny-vl", "prompt.name", "object", "prompt.hash", "ab12", "0.412", "20\u202f412", "second"):
        assert expected in text
    assert "No query was asked" in text and "None" not in text and "–" in text


def test_a_manifest_with_lists_of_records_is_spelled_out(page):
    looks = [{"mllm": "tiny-vl", "labels": ["0", "1"]}, {"mllm": "other"}]
    assert "1.mllm" in page([], manifest={"looks": looks}).text()
    text = page([], manifest={"looks": looks[:1], "empty": [], "nothing": None}).text()
    assert "mllm" in text and "1.mllm" not in text and "0, 1" in text and "{" not in text


def test_left_out_candidates_are_counted(page):
    results = [ResultView(f"i{n}", n, n, 0.5, 0.5, 0.1, relevant=n == 90) for n in range(1, 101)]
    seen = page([query(results=results)], columns=10)
    assert "i90" in seen.text() and "i89" not in seen.text()
    assert "89 further candidates" in seen.text()  # texts only: five columns, ten rows, and the relevant one


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_wherever_it_stands(page, text):
    result = ResultView(text, 1, 1, 0.5, 0.5, None, None, text, True, text)
    pictured = ResultView(text + "2", 2, 2, 0.5, 0.5, 0.5, picture("red"), text, False)
    measures = {"before": {text: 0.1}, "after": {text: 0.2}}
    seen = page(
        [query(text, text=text, results=[result, pictured], **measures), query(text + "3", **measures)],
        title=text,
        manifest={text: {text: [text]}, "plain": text},
        summary=[{text: text, "b": text}],
    )  # fmt: skip
    assert len(seen.all("script")) == 1 and not seen.all("img") and not seen.open
    assert not [a for _, attributes in seen.elements for a in attributes if a.startswith("on")]
    assert sum(text in shown for _, shown in seen.texts) >= 10
    assert {"title", "h1", "h3", "dt", "bdi", "td", "span", "p"} <= {tag for tag, shown in seen.texts if text in shown}


def test_text_that_no_file_can_hold_is_spelled_out(page):
    text = page([query("caf\udce9\x00.jpg", text="a\u202egpj.exe")]).text()
    assert "caf\\udce9\\u0000.jpg" in text and "a\\u202egpj.exe" in text


@given(st.text(st.characters(), max_size=20))
def test_any_text_can_be_reported(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "r.html"
    result = ResultView(text, 1, 1, 0.5, 0.5, 0.5, text=text)
    write_report(path, title=text, manifest={text: text}, queries=[QueryView(text, [result], text=text)])
    seen = Page(path.read_bytes().decode("utf-8"))
    assert not seen.open and len(seen.all("script")) == 1


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_report(tmp_path / name, title="t", manifest=MANIFEST, queries=[query(), query("r", -0.1)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_every_format_of_a_thumbnail_is_named_rightly(page, form):
    (image,) = page([query(results=[], thumbnail=picture("red", form=form))]).all("image")
    assert image["href"].startswith(f"data:image/{form.lower()};base64,")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": [query(thumbnail=b"<svg onload=alert(1)>")]}, "has an unknown format"),
        ({"queries": [query(thumbnail=b"")]}, "0 bytes"),
        ({"queries": [], "columns": 0}, "columns must be at least 1"),
    ],
)
def test_what_cannot_be_reported_is_refused_and_the_old_file_stays(tmp_path, options, message):
    path = tmp_path / "r.html"
    path.write_text("old")
    with pytest.raises(UsageError, match=message):
        write_report(path, **({"title": "t", "manifest": {}} | options))
    assert path.read_text() == "old"


def test_writing_where_one_cannot_is_said_plainly(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(tmp_path / "nowhere" / "r.html", title="t", manifest={}, queries=[])


def test_paired_joins_a_shortlist_with_its_hits():
    shortlist = [Candidate("a", 0.9), Candidate("b", 0.8), Candidate("c", 0.7)]
    hits = [Hit("b", 1, 0.9, 0.8, 1.0, True), Hit("a", 2, -0.1, 0.9, None, False, {"status": "failed"})]
    hits.append(Hit("c", 3, -0.3, 0.7, None, False))
    views = paired(shortlist, hits, thumbnails={"a": b"x"}, texts={"b": "text"}, relevant={"b"})
    assert [(v.id, v.before, v.after, v.relevant, v.note) for v in views] == [
        ("b", 2, 1, True, ""),
        ("a", 1, 2, False, "failed"),
        ("c", 3, 3, False, "not scored"),
    ]
    assert (views[1].thumbnail, views[0].text) == (b"x", "text")
    assert paired(shortlist, hits)[0].relevant is None
    with pytest.raises(UsageError, match="every candidate"):
        paired(shortlist, hits[:2])


@given(st.permutations(range(1, 16)), st.integers(1, 15))
def test_every_visible_candidate_has_one_thread_between_its_places(after, columns):
    results = [ResultView(str(i), i, rank, 0.5, 0.5) for i, rank in enumerate(after, start=1)]
    drawn = drawing.threads(results, columns)
    assert len(drawn) == sum(min(r.before, r.after) <= columns for r in results)
    ends = {tuple(float(x) for x in re.fullmatch(r"M(\S+) \S+C.* (\S+) \S+", t.path).groups()) for t in drawn}
    edge = columns * drawing.COLUMN
    expected = {tuple(edge if rank > columns else (rank - 0.5) * 100 for rank in (r.before, r.after))
                for r in results if min(r.before, r.after) <= columns}  # fmt: skip
    assert ends == expected
    assert sum("out" in t.kind.split() for t in drawn) == sum(
        (r.before > columns) != (r.after > columns) for r in results
    )
