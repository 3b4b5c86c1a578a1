"""A hit opened: both images, what mattered, the numbers in words; marks, and the files that they become."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path

import pytest
from browsing import Opener, Site
from playwright.sync_api import expect
from serving import GALLERY, Running

from looktwice.evaluate import read_qrels
from looktwice.sources.queries import Queries


@pytest.fixture
def site(visit: Opener, shop_page: Running) -> Site:
    return visit(shop_page)


def test_enter_opens_a_hit_arrows_go_on_and_escape_goes_back(site: Site) -> None:
    page = site.search(item="scene-003.jpg")
    first, second = site.ids()[:2]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    dialog = page.locator("#hit")
    expect(dialog).to_be_visible()
    expect(page.locator("#hit h2")).to_have_text(first)
    assert f"hit={first}" in site.state()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#hit h2")).to_have_text(second)
    expect(page.locator(".position")).to_have_text(re.compile(r"^2 of \d+$"))
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator(f'[data-id="{second}"] .open')).to_be_focused()
    page.wait_for_function("() => !location.hash.includes('hit=')")
    page.go_forward()
    expect(dialog).to_be_visible()
    page.go_back()
    expect(dialog).to_be_hidden()


def test_a_hit_tells_the_numbers_in_words_and_what_mattered(site: Site) -> None:
    page = site.search(item="scene-003.jpg")
    page.locator('.tile[aria-posinset="1"] .open').click()
    answer = page.request.post(
        f"{site.url}/v1/explain", data={"query": {"item": "scene-003.jpg"}, "candidate": {"item": site.ids()[0]}}
    ).json()
    expect(page.locator(".reading")).to_contain_text("What the model answered")
    expect(page.locator(".label")).to_have_count(len(answer["labels"]))
    expect(page.locator(".reading")).to_contain_text(re.compile(r"The model kept to the question: only [\d.]+ %"))
    expect(page.locator(".verdict .big")).to_have_text(f"p{answer['p']:.3f}")
    expect(page.locator(".verdict")).to_contain_text(re.compile(r"First look: place \d+. Now: place 1"))
    heat = page.locator(".heat")
    expect(heat).to_have_attribute("aria-label", re.compile("^What mattered most lies at the"))
    rows, columns = answer["map"]["rows"], answer["map"]["cols"]
    assert page.evaluate("() => [...document.querySelectorAll('.heat canvas')].map((c) => [c.height, c.width])[0]") == [
        rows,
        columns,
    ]
    covered = page.evaluate(
        """() => { const [a, b] = ['.heat canvas', '.candidate img'].map((s) => document.querySelector(s)
        .getBoundingClientRect()); return [a.x - b.x, a.y - b.y, a.width - b.width, a.height - b.height]; }"""
    )
    assert all(abs(value) < 1 for value in covered)
    page.get_by_role("checkbox", name="What mattered").uncheck()
    expect(heat).to_be_hidden()
    shown = page.locator(".pair img").evaluate_all("(images) => images.map((one) => one.naturalWidth)")
    assert shown == [192, 192]


def test_a_region_of_a_hit_is_the_next_query(site: Site) -> None:
    page = site.search(text="horse", hit="scene-005.jpg")
    page.get_by_role("button", name="Search a region").click()
    with site.asks():
        page.get_by_role("button", name="Search this region").click()
    expect(page.locator("#hit")).to_be_hidden()
    assert site.asked[-1]["query"]["image"].startswith("data:image/jpeg") and "image=" in site.state()


def test_a_hit_gives_its_id_path_command_and_original(site: Site, shop: Path) -> None:
    page = site.search(text="a red car", hit="scene-005.jpg")
    expect(page.locator("#hit")).to_be_visible()
    expect(page.locator(".metadata")).to_contain_text("shelf")
    page.get_by_role("button", name="Copy id").click()
    assert page.evaluate("navigator.clipboard.readText()") == "scene-005.jpg"
    page.get_by_role("button", name="Copy path").click()
    assert page.evaluate("navigator.clipboard.readText()") == str(GALLERY / "images" / "scene-005.jpg")
    page.get_by_role("button", name="Copy command").click()
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert words[:4] == ["looktwice", "search", str(shop), "a red car"]
    link = page.get_by_role("link", name="Open the original").get_attribute("href")
    assert page.request.get(str(link)).body() == (GALLERY / "images" / "scene-005.jpg").read_bytes()


def test_marks_become_an_archive_that_the_library_reads(site: Site, tmp_path: Path) -> None:
    page = site.open()
    page.set_input_files('#search input[type="file"]', GALLERY / "images" / "scene-007.jpg")
    site.done()
    right, wrong = site.ids()[1:3]
    page.locator(f'[data-id="{right}"]').hover()
    page.get_by_role("button", name=f"Mark {right} right").click()
    page.locator(f'[data-id="{wrong}"] .open').click()
    page.get_by_role("button", name="Wrong", exact=True).click()
    page.keyboard.press("Escape")
    page.wait_for_function("() => !location.hash.includes('hit=')")
    assert f"yes={right}" in site.state() and f"no={wrong}" in site.state()
    with site.asks():
        page.fill("#search input[type=search]", "horse")
        page.keyboard.press("Enter")
    first = site.ids()[0]
    page.locator(f'[data-id="{first}"]').hover()
    page.get_by_role("button", name=f"Mark {first} right").click()
    page.get_by_role("button", name=re.compile("^Marks")).click()
    expect(page.locator("#marks li")).to_have_count(2)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download").click()
    with zipfile.ZipFile(saved.value.path()) as archive:
        archive.extractall(tmp_path)
    assert read_qrels(tmp_path / "qrels.txt") == {"q1": {right: 1, wrong: 0}, "q2": {first: 1}}
    queries = list(Queries(tmp_path / "queries.jsonl"))
    assert [(query.id, query.text, query.image is not None) for query in queries] == [
        ("q1", None, True),
        ("q2", "horse", True),
    ]


def test_shift_marks_all_hits_from_the_last_mark_to_this_one(site: Site) -> None:
    page = site.search(text="horse")
    ids = site.ids()
    for place, modifiers in ((4, []), (1, ["Shift"])):
        page.locator(f'[data-id="{ids[place]}"]').hover()
        page.get_by_role("button", name=f"Mark {ids[place]} right").click(modifiers=modifiers)
    expect(page.locator("#status")).to_have_text("4 hits marked right")
    expect(page.locator(".is-right")).to_have_count(4)
    assert [name for name in ids if f"yes={name}" in site.state()] == ids[1:5]
    page.locator(f'[data-id="{ids[2]}"]').hover()
    page.get_by_role("button", name=f"Mark {ids[2]} wrong").click(modifiers=["Shift"])  # from 1 to 2
    expect(page.locator(".is-right")).to_have_count(2)
    expect(page.locator(".is-wrong")).to_have_count(2)


def test_marks_come_back_and_feed_the_next_search(site: Site) -> None:
    page = site.search(text="horse")
    right, wrong = site.ids()[0], site.ids()[3]
    for name, label in ((right, "right"), (wrong, "wrong")):
        page.locator(f'[data-id="{name}"]').hover()
        page.get_by_role("button", name=f"Mark {name} {label}").click()
    site.search(text="horse", depth=10)
    expect(page.locator(f'[data-id="{right}"]')).to_have_class(re.compile("is-right"))
    page.get_by_role("button", name=re.compile("^Marks")).click()
    with site.asks():
        page.get_by_role("button", name="Search with these marks").click()
    assert (site.asked[-1]["like"], site.asked[-1]["unlike"]) == ([right], [wrong])
    expect(page.locator(".chip.like, .chip.unlike")).to_have_count(2)
    expect(page.get_by_role("alert")).to_have_count(0)
