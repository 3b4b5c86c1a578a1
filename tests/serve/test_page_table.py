"""The page of a table, adding to it, a server without tables, and one with a key."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Opener
from playwright.sync_api import expect
from serving import GALLERY, Running, running

from looktwice.serve import Settings
from looktwice.store import Table


@pytest.fixture(scope="module")
def writable(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    copy = tmp_path_factory.mktemp("written") / "shop.lt"
    shutil.copytree(shop, copy)
    Table.open(copy).note_previews(320)
    with running(Settings(tables=(copy,), mllm=None, allow_write=True, max_body=100_000)) as made:
        yield made


def test_a_table_shows_what_it_holds_and_what_failed(visit: Opener, shop_page: Running) -> None:
    page = visit(shop_page).open(view="table")
    expect(page.locator("#table-page h1")).to_have_text("shop")
    expect(page.locator(".figures")).to_contain_text("40items")
    for text in (
        "tiny-clip",
        "tiny-vl",
        "vectors",
        "shelf",
        "left (20), right (20)",
        "0.5 to 39.5",
        "gone.jpg",
        "missing",
    ):
        expect(page.locator("#table-page")).to_contain_text(text)
    expect(page.locator("input[type=file][multiple]")).to_have_count(0)
    page.get_by_role("link", name="Search").click()
    expect(page.locator(".tile").first).to_be_visible()


def test_images_are_added_with_progress_and_found_and_deleted(visit: Opener, writable: Running, tmp_path: Path) -> None:
    site = visit(writable, faults=True)  # a browser reports each refused upload
    page = site.open(view="table")
    large, broken = tmp_path / "large.jpg", tmp_path / "broken.jpg"
    large.write_bytes(b"x" * 200_000)
    broken.write_bytes(b"\xff\xd8\xff not an image")
    new = [GALLERY / "images" / f"scene-{n:03}.jpg" for n in (101, 102, 103, 104)]
    page.get_by_label("Caption for all of them").fill("fresh")
    page.set_input_files("input[type=file][multiple]", [*new, large, broken])
    rows = page.locator(".uploads li")
    expect(page.locator(".uploads .good")).to_have_count(4)
    expect(rows.filter(has_text="large.jpg")).to_contain_text("Larger than the 98 KiB")
    expect(rows.filter(has_text="broken.jpg")).to_have_class("bad")
    expect(page.get_by_role("status").filter(has_text="4 images of 6 added, 2 refused.")).to_be_visible()
    table = Table.open(writable.settings.tables[0])
    assert len(table) == 44 and table.get(["scene-102.jpg"])[0].text == "fresh"

    page.get_by_role("link", name="Search").click()
    with site.asks():
        page.set_input_files('#search input[type="file"]', new[1])
    assert "scene-102.jpg" in site.ids()
    expect(page.locator('[data-id="scene-102.jpg"] .mat:not(.loading) img')).to_be_visible()
    page.locator('[data-id="scene-102.jpg"] .open').click()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#toast")).to_contain_text("Deleted scene-102.jpg")
    expect(page.locator('[data-id="scene-102.jpg"]')).to_have_count(0)
    assert len(Table.open(writable.settings.tables[0])) == 43


def test_a_server_without_tables_explains_itself(visit: Opener) -> None:
    with running(Settings(tables=(), mllm=None)) as empty:
        page = visit(empty).open()
        expect(page.locator(".welcome")).to_contain_text("looktwice serve album.lt --mllm")
        page.get_by_role("button", name=re.compile("^Copy: looktwice index")).click()
        assert page.evaluate("navigator.clipboard.readText()").startswith("looktwice index album.lt")


def test_a_server_without_a_model_shows_first_looks(visit: Opener, writable: Running) -> None:
    site = visit(writable)
    page = site.search(text="horse")
    assert site.asked[-1]["rerank"] is False
    expect(page.locator(".step")).to_have_count(1)
    expect(page.locator("#range-weight")).to_be_hidden()


def test_a_key_is_asked_for_and_kept_for_the_tab(visit: Opener, shop: Path) -> None:
    key = "correct horse battery"
    with running(Settings(tables=(shop,), mllm=None, api_keys=(key,))) as closed:
        site = visit(closed, faults=True, http_credentials={"username": "", "password": key})
        page = site.open()
        expect(page.locator(".mat img").first).to_be_visible()
        site.search(text="horse")
        assert len(site.ids()) == 40
