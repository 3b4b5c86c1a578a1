"""Searching on the page: every way in, the stages, what narrows, what moves, the link, the keyboard."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from browsing import Opener, Site
from playwright.sync_api import expect
from serving import GALLERY, Running

from looktwice import Retriever

IMAGE = GALLERY / "images" / "scene-007.jpg"
DROP = """async ([name, type, data]) => {
    const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type }));
    const options = { bubbles: true, cancelable: true, dataTransfer: transfer, clipboardData: transfer };
    const target = document.querySelector("#results");
    if (name === "pasted.jpg") return !target.dispatchEvent(new ClipboardEvent("paste", options));
    target.dispatchEvent(new DragEvent("dragover", options));
    const veiled = !document.querySelector("#drop").hidden;
    target.dispatchEvent(new DragEvent("drop", options));
    return veiled;
}"""


@pytest.fixture
def site(visit: Opener, shop_page: Running) -> Site:
    return visit(shop_page)


@pytest.fixture(scope="module")
def library(shop: Path) -> Retriever:
    return Retriever(shop, scorer="tiny-vl", shortlist=50)


def test_words_find_what_the_library_finds(site: Site, library: Retriever) -> None:
    page = site.open()
    expect(page.locator("#headline")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("horse")
    with site.asks():
        page.keyboard.press("Enter")
    expected = library.search("horse", k=40)
    assert site.ids()[:5] == [hit.id for hit in expected.hits][:5]
    assert "text=horse" in site.state() and page.title() == "horse · looktwice"
    expect(page.locator("#grid .p").first).to_have_text(re.compile(r"p 0\.\d{3}"))


@pytest.mark.parametrize("way", ["pasted.jpg", "dropped.jpg", "picked"])
def test_an_image_is_pasted_dropped_or_picked(site: Site, library: Retriever, way: str) -> None:
    page = site.open()
    with site.asks():
        if way == "picked":
            page.set_input_files('#search input[type="file"]', IMAGE)
        else:
            assert page.evaluate(DROP, [way, "image/jpeg", base64.b64encode(IMAGE.read_bytes()).decode()])
    sent = site.asked[-1]["query"]["image"]
    assert base64.b64decode(sent.split(",")[1]) == IMAGE.read_bytes()
    assert site.ids()[0] == "scene-007.jpg"
    assert site.ids() == [hit.id for hit in library.search(IMAGE, k=40).hits]


def test_a_file_that_is_no_image_is_refused_in_words(site: Site) -> None:
    page = site.open()
    page.evaluate(DROP, ["notes.txt", "text/plain", base64.b64encode(b"hello").decode()])
    expect(page.locator("#toast")).to_contain_text("not an image")
    assert site.asked == []


def test_the_camera_takes_the_query(site: Site) -> None:
    page = site.open()
    page.get_by_role("button", name="Take a photo").click()
    page.wait_for_function("() => document.querySelector('video')?.videoWidth > 0")
    with site.asks():
        page.get_by_role("button", name="Search with this").click()
    assert site.asked[-1]["query"]["image"].startswith("data:image/jpeg")


def test_image_and_words_together_then_each_is_taken_back(site: Site) -> None:
    page = site.search(text="horse")
    with site.asks():
        page.set_input_files('#search input[type="file"]', IMAGE)
    assert set(site.asked[-1]["query"]) == {"text", "image"}
    asked = len(site.asked)
    page.get_by_role("button", name="Remove from the query").click()
    expect(page.locator(".chip")).to_have_count(0)
    site.done()
    assert "text=horse" in site.state() and "image=" not in site.state()
    assert len(site.asked) == asked  # the answer to the words alone is still there


def test_more_like_this_and_a_hit_dragged_back(site: Site) -> None:
    page = site.search(item="scene-003.jpg")
    second = site.ids()[1]
    page.locator(f'[data-id="{second}"]').hover()
    with site.asks():
        page.get_by_role("button", name=f"More like {second}", exact=True).click()
    assert site.asked[-1]["query"] == {"item": second} and f"item={second}" in site.state()
    third = next(name for name in site.ids() if name not in ("scene-003.jpg", second))
    with site.asks():
        page.locator(f'[data-id="{third}"] .open').drag_to(page.locator("#search .field"))
    assert site.asked[-1]["query"] == {"item": third}


def test_a_region_of_the_query_is_the_next_query(site: Site) -> None:
    page = site.search(item="scene-003.jpg")
    page.get_by_role("button", name="Search with a region of it").click()
    frame = page.locator("#crop .frame")
    expect(frame).to_be_focused()
    area = page.locator("#crop .stage").bounding_box()
    assert area is not None
    page.mouse.move(area["x"] + 0.5 * area["width"], area["y"] + 0.1 * area["height"])
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"], area["y"] + 0.6 * area["height"])
    page.mouse.up()
    frame.press("ArrowLeft")
    frame.press("Shift+ArrowRight")
    with site.asks():
        frame.press("Enter")
    data = base64.b64decode(site.asked[-1]["query"]["image"].split(",")[1])
    import io

    from PIL import Image

    width, height = Image.open(io.BytesIO(data)).size
    assert (width, height) == (pytest.approx(100, abs=3), pytest.approx(96, abs=3))


def test_the_stages_are_told_and_tiles_say_how_far_they_moved(site: Site, library: Retriever) -> None:
    page = site.search(item="scene-003.jpg", depth=20)
    expect(page.locator(".step.first")).to_contain_text(re.compile(r"40 by vector in|39 by vector in"))
    expect(page.locator(".step.second")).to_contain_text("20 pairs in")
    places = page.evaluate(
        """() => [...document.querySelectorAll('.tile')].map((tile) => [
        Number(tile.querySelector('.rank').textContent), tile.querySelector('.move').textContent,
        tile.querySelector('.p').textContent])"""
    )
    assert sum(1 for _, _, p in places if p.startswith("p ")) == 20
    assert any("▲" in moved for _, moved, _ in places) and any("▼" in moved for _, moved, _ in places)
    assert page.locator(".threads path").count() == 20


def test_the_first_look_shows_before_the_second_ends(site: Site) -> None:
    page = site.page
    seen: list[Any] = []
    page.expose_function("seen", lambda *told: seen.append(told))
    site.open()
    page.evaluate(
        """() => new MutationObserver(() => seen(document.querySelectorAll('.tile').length,
        document.querySelectorAll('.tile .p:not(:empty)').length, Boolean(document.querySelector('.step.second.done'))))
        .observe(document.querySelector('#main'), { childList: true, subtree: true, attributes: true })"""
    )
    page.fill("#search input[type=search]", "a red car")
    with site.asks():
        page.keyboard.press("Enter")
    page.wait_for_timeout(50)
    assert any(tiles and not scored and not done for tiles, scored, done in seen)


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.3])
def test_the_slider_re_ranks_as_the_library_would_and_asks_nobody(
    site: Site, library: Retriever, shop: Path, weight: float
) -> None:
    page = site.search(item="scene-003.jpg")
    before = len(site.asked)
    page.locator("#range-weight").fill(str(round(1 - weight, 2)))
    expect(page.locator("#range-weight")).to_have_attribute(
        "aria-valuetext", f"score = {weight:.2f} coarse + {1 - weight:.2f} p"
    )
    answer = site.page.request.post(
        f"{site.url}/v1/search",
        data={"query": {"item": "scene-003.jpg"}, "k": 200, "shortlist": 50, "fusion": weight},
    ).json()
    assert site.ids() == [hit["id"] for hit in answer["hits"]]
    assert len(site.asked) == before and f"weight={weight:g}" in site.state() + "weight=0.5"


def test_the_least_p_hides_and_says_so(site: Site) -> None:
    page = site.search(item="scene-003.jpg", least=0.5)
    kept = page.locator(".tile .p").all_text_contents()
    assert kept and all(float(text.removeprefix("p ")) >= 0.5 for text in kept)
    expect(page.locator("#summary")).to_contain_text(re.compile(r"\d+ hits? below p 0.50 hidden"))
    page.get_by_role("button", name=re.compile("show all")).click()
    assert len(site.ids()) >= 39 and "least" not in site.state()


def test_a_calibration_sets_the_least_p_by_the_precision_that_it_promises(site: Site) -> None:
    told = {"method": "platt", "thresholds": {"0.5": 0.2, "0.9": 0.4}, "curve": [[0, 0.1], [1, 0.9]]}
    page = site.page
    page.route("**/v1/tables/shop", lambda route: route.fulfill(json={**route.fetch().json(), "calibration": told}))
    site.search(item="scene-003.jpg")
    page.get_by_role("button", name="90 %").click()
    expect(page.locator(".second-only")).to_contain_text("Calibrated: at least 90 % of these are right.")
    kept = page.locator(".tile .p").all_text_contents()
    assert kept and all(float(text.removeprefix("p ")) >= 0.4 for text in kept)
    page.locator(".tile .open").first.click()
    p = float(page.locator(".verdict .big").inner_text().removeprefix("p"))
    expect(page.locator(".verdict")).to_contain_text(f"right with a chance of {10 + 80 * p:.0f} %")


def test_filters_of_the_columns_narrow_together(site: Site) -> None:
    page = site.search(text="horse")
    with site.asks():
        page.get_by_role("group", name="shelf").get_by_label("left").check()
    page.locator("summary", has_text="price").click()
    page.get_by_label("price, at most").fill("9")
    with site.asks():
        page.get_by_label("price, at most").press("Enter")
    assert site.asked[-1]["where"] == {"shelf": ["left"], "price": {"<=": 9}}
    assert sorted(site.ids()) == [f"scene-{n:03}.jpg" for n in range(0, 9, 2)]
    with site.asks():
        page.get_by_role("button", name="Remove the filter shelf left").click()
    assert len(site.ids()) == 9 and 'where={"price":{"<=":9}}' in site.state()
    shelves = page.get_by_role("group", name="shelf").locator(".n")
    assert shelves.all_text_contents() == ["5 of 20", "4 of 20"]  # among these hits, of all items
    with site.asks():
        page.get_by_role("group", name="shelf").get_by_label("left").check()
    assert shelves.all_text_contents() == ["20", "20"]  # checking another one adds to the hits
    assert page.get_by_role("group", name="new").locator(".n").all_text_contents() == ["0 of 30", "5 of 10"]


def test_near_duplicates_are_folded_by_the_server(site: Site) -> None:
    page = site.search(text="horse")
    with site.asks():
        page.get_by_label("Fold near-duplicates").check()
    assert site.asked[-1]["distinct"] is True and "distinct=1" in site.state()


def test_back_brings_the_answer_the_place_and_the_selection(site: Site) -> None:
    page = site.search(text="horse")
    page.set_viewport_size({"width": 1400, "height": 700})
    page.mouse.move(900, 400)
    page.mouse.wheel(0, 700)
    page.wait_for_function("() => scrollY > 600")
    chosen = site.ids()[20]
    page.locator(f'[data-id="{chosen}"] .open').focus()
    page.wait_for_timeout(250)
    y = page.evaluate("scrollY")
    assert y > 100
    page.locator(f'[data-id="{chosen}"]').hover()
    with site.asks():
        page.get_by_role("button", name=f"More like {chosen}", exact=True).click()
    asked = len(site.asked)
    page.go_back()
    page.wait_for_function(f"() => Math.abs(scrollY - {y}) < 3")
    expect(page.locator(f'[data-id="{chosen}"] .open')).to_be_focused()
    assert len(site.asked) == asked and "text=horse" in site.state()
    page.reload()
    page.wait_for_function(f"() => Math.abs(scrollY - {y}) < 3", timeout=20_000)


def test_a_link_of_somebody_else_shows_the_same(visit: Opener, shop_page: Running) -> None:
    mine = visit(shop_page)
    mine.open()
    mine.page.set_input_files('#search input[type="file"]', IMAGE)
    mine.done()
    mine.page.locator("#range-weight").fill("0.9")
    mine.page.get_by_role("button", name="Copy link").click()
    link = mine.page.evaluate("navigator.clipboard.readText()")
    theirs = visit(shop_page)
    theirs.page.goto(link)
    theirs.done()
    assert theirs.page.locator("#range-weight").input_value() == "0.9"
    assert theirs.ids()[0] == mine.ids()[0] == "scene-007.jpg"
    expect(theirs.page.locator(".chip img")).to_have_attribute("alt", re.compile("small copy"))


def test_arrows_move_and_stop_at_the_ends_and_ears_hear_where(site: Site) -> None:
    page = site.search(text="horse")
    total = len(site.ids())
    focused = page.locator(":focus")
    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_attribute("aria-label", re.compile(rf"^image 1 of {total}, p \d\.\d\d, coarse -?\d"))
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    expect(focused).to_have_attribute("aria-label", re.compile("^image 1 of"))
    page.keyboard.press("ArrowRight")
    expect(focused).to_have_attribute("aria-label", re.compile("^image 2 of"))
    columns = page.evaluate("getComputedStyle(document.querySelector('#grid')).getPropertyValue('--side')")
    assert columns
    page.keyboard.press("End")
    expect(focused).to_have_attribute("aria-label", re.compile(f"^image {total} of"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_attribute("aria-label", re.compile(f"^image {total} of"))
    expect(page.locator("#status")).to_have_text(re.compile("Second look done: 40 pairs"))
    tab_stops = page.locator('.tile .open[tabindex="0"]').count()
    assert tab_stops == 1


def test_elements_stand_in_the_order_in_which_they_are_seen(site: Site) -> None:
    page = site.search(item="scene-003.jpg")
    page.locator("#range-weight").fill("1")
    page.wait_for_function(
        """() => { const places = [...document.querySelectorAll('.tile')]
            .map((tile) => Number(tile.getAttribute('aria-posinset')));
        return places.every((place, n) => n === 0 || place > places[n - 1]); }"""
    )


def test_a_refusal_is_said_and_can_be_tried_again(visit: Opener, shop_page: Running) -> None:
    site = visit(shop_page, faults=True)
    refusal = '{"error": {"code": "queue_full", "message": "The queue is full; try again in 3 s."}}'
    site.open()
    site.page.route(
        "**/v1/search", lambda route: route.fulfill(status=429, body=refusal, content_type="application/json")
    )
    site.page.fill("#search input[type=search]", "horse")
    site.page.keyboard.press("Enter")
    expect(site.page.get_by_role("alert")).to_contain_text("The queue is full")
    site.page.unroute("**/v1/search")
    site.page.get_by_role("button", name="Try again").click()
    site.done()
    assert len(site.ids()) == 40


def test_names_and_texts_are_never_read_as_html(visit: Opener, shop_page: Running) -> None:
    evil = '<img src=x onerror="window.hacked=1">'
    hit = {
        "id": evil,
        "rank": 1,
        "score": 0.5,
        "coarse": 0.5,
        "coarse_rank": 1,
        "p": 0.5,
        "status": "ok",
        "uri_kind": "memory",
    }
    hit |= {"metadata": {evil: evil}, "text": evil, "preview": None}
    body = "".join(f"event: {name}\ndata: {json_of(hit)}\n\n" for name in ("first", "end"))
    site = visit(shop_page, faults=True)
    site.page.route("**/v1/search", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    site.open(text=evil)
    site.page.locator(".tile .open").click()
    expect(site.page.locator("#hit h2")).to_have_text(evil)
    assert site.page.evaluate("window.hacked") is None and site.page.locator("img[src='x']").count() == 0


def json_of(hit: dict[str, Any]) -> str:
    import json

    return json.dumps({"hits": [hit], "seconds": 0.01, "manifest": {}, "stages": {}})
