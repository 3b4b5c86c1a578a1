"""Take the pictures of the page that README and guides show: serve the bundled gallery, search it in Chromium.

    python scripts/page_pictures.py          # writes docs/images/page*.webp; needs Chromium (Debian: chromium)

The gallery is indexed with two columns (facts of its credits) and with stored tokens, so that all three looks and the
filters are in the picture.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from looktwice.evaluate import read_qrels
from looktwice.experiment.demo import bundled_gallery

ADDRESS = "http://127.0.0.1:8799"
QUERY = "p28"
OUT = Path(__file__).parents[1] / "docs" / "images"
LOOKTWICE = [sys.executable, "-m", "looktwice"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, served(make_table(Path(folder))), chromium() as open_page:
        page = open_page(1400, 930, "light")
        search(page)
        save(page, "page.webp")
        page = open_page(1400, 930, "dark")
        search(page)
        page.locator(f'[data-id="{most_telling(page)}"] .open').click()
        page.wait_for_selector(".heat")
        page.wait_for_timeout(900)
        save(page, "page-hit.webp")
        page = open_page(390, 844, "light")
        search(page)
        save(page, "page-phone.webp")


def make_table(folder: Path) -> Path:
    gallery, table = bundled_gallery(), folder / "gallery.lt"
    with (folder / "gallery.jsonl").open("w", encoding="utf-8") as out:
        for line in (gallery / "credits.jsonl").read_text(encoding="utf-8").splitlines():
            credit = json.loads(line)
            image = gallery / "images" / credit["id"]
            if image.exists():
                drawings = [one["vendor"] for one in credit["shows"]]
                facts = {"artist": drawings[0], "drawings": len(drawings)}
                out.write(json.dumps({"id": credit["id"], "image": str(image), **facts}) + "\n")
    columns = ["--column", "artist", "--column", "drawings:int"]
    subprocess.run([*LOOKTWICE, "index", str(table), str(folder / "gallery.jsonl"), *columns], check=True)
    subprocess.run([*LOOKTWICE, "add-tokens", str(table), "--codec", "int8"], check=True)
    return table


@contextmanager
def served(table: Path) -> Iterator[None]:
    server = subprocess.Popen(
        [*LOOKTWICE, "serve", str(table), "--port", ADDRESS.rpartition(":")[2]], stderr=subprocess.DEVNULL
    )
    try:
        wait_until_ready(server)
        yield
    finally:
        server.terminate()
        server.wait(30)


def wait_until_ready(server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            if urlopen(f"{ADDRESS}/readyz").status == 200:
                return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("The server ended; run `looktwice serve` to see why.")


@contextmanager
def chromium() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])

        def open_page(width: int, height: int, colours: str) -> Page:
            small = width < 600
            about: dict[str, Any] = {"viewport": {"width": width, "height": height}, "color_scheme": colours}
            about |= {"device_scale_factor": 2, "has_touch": True, "is_mobile": True} if small else {}
            return browser.new_context(reduced_motion="reduce", **about).new_page()

        yield open_page
        browser.close()


def search(page: Page) -> None:
    page.goto(ADDRESS)
    page.wait_for_selector(".tile")
    page.set_input_files('#search input[type="file"]', bundled_gallery() / "queries" / f"{QUERY}.jpg")
    page.wait_for_selector(".step.second.done", timeout=120_000)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)
    page.mouse.move(2, 2)


def most_telling(page: Page) -> str:
    """Return the relevant hit of the first twelve of which one part matters most."""
    ids: list[str] = page.locator(".tile").evaluate_all("(tiles) => tiles.slice(0, 12).map((tile) => tile.dataset.id)")
    relevant = read_qrels(bundled_gallery() / "qrels.txt")[QUERY]
    image = base64.b64encode((bundled_gallery() / "queries" / f"{QUERY}.jpg").read_bytes()).decode()

    def most(name: str) -> float:
        asked = {"table": "gallery", "query": {"image": image}, "candidate": {"item": name}}
        told = page.request.post(f"{ADDRESS}/v1/explain", data=asked).json()
        return max(float(value) for row in told["map"]["values"] for value in row)

    return max((name for name in ids if relevant.get(name, 0) > 0), key=most)


def save(page: Page, name: str) -> None:
    OUT.mkdir(exist_ok=True)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.save(OUT / name, "WEBP", quality=86, method=6)
    print(f"{OUT / name}: {(OUT / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
