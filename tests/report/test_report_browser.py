"""The report in a real browser: what is seen in light, dark, on paper and without scripts, and what cannot run."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from report_data import HOSTILE, MANIFEST, query

from looktwice.report import ResultView, write_report

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.fail("These tests open the report in a browser: install Chromium, as `make test` does.")

    def run(page, *flags):
        profile = tmp_path_factory.mktemp("profile")
        command = [program, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
        return subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode("utf-8")

    return run


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, title="In a browser", manifest=MANIFEST, queries=[query("one"), query("two", -0.1)])
    return path


@pytest.fixture(scope="module")
def light(browser, report):
    return screenshot(browser, report)


def screenshot(browser, page, *flags):
    target = page.with_suffix(".png")
    wait = "--virtual-time-budget=3000"  # a busy machine paints late
    browser(page, f"--screenshot={target}", "--window-size=1000,1400", wait, *flags)
    return np.asarray(Image.open(target).convert("RGB")).astype(int)


def share(pixels, colour, tolerance=6):
    """The share of pixels within `tolerance` of a colour in every channel."""
    return float((np.abs(pixels - np.array(colour)).max(axis=2) <= tolerance).mean())


def test_pictures_are_seen_in_light_and_dark(browser, report, light):
    dark = screenshot(browser, report, "--blink-settings=preferredColorScheme=0")
    for pixels in (light, dark):
        assert share(pixels, (255, 0, 255)) > 0.02  # the query picture
        assert all(share(pixels, (20 * i, 80, 160)) > 0.002 for i in range(10))  # the candidates
    assert share(light, (251, 250, 246)) > 0.5 > share(light, (23, 22, 19))
    assert share(dark, (23, 22, 19)) > 0.5 > share(dark, (251, 250, 246))


def test_nothing_is_lost_without_scripts(browser, report, light, tmp_path):
    html, n = re.subn(r"<script>.*</script>", "", report.read_text("utf-8"), flags=re.DOTALL)
    assert n == 1
    (tmp_path / "bare.html").write_text(html, "utf-8")
    without = screenshot(browser, tmp_path / "bare.html")
    assert share(without, (255, 0, 255)) == pytest.approx(share(light, (255, 0, 255)), rel=0.05)


def test_its_script_runs_under_its_own_policy(browser, report):
    tools = re.search(r'<form class="tools"[^>]*>', browser(report, "--dump-dom"))
    assert "hidden" in re.search(r'<form class="tools"[^>]*>', report.read_text("utf-8"))[0]
    assert "hidden" not in tools[0]


def test_sorting_finding_and_closing(browser, report, tmp_path):
    """Drives the tools as a hand would, on a copy whose policy lets the test's own script run."""
    html, n = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report.read_text("utf-8"))
    assert n == 1
    drive = """<script>
      const tools = document.querySelector(".tools").elements;
      tools.sort.value = "loss"; tools.sort.dispatchEvent(new Event("change"));
      tools.find.value = "TWO"; tools.find.dispatchEvent(new Event("input"));
      tools.close.click();
    </script></body>"""
    (tmp_path / "driven.html").write_text(html.replace("</body>", drive), "utf-8")
    queries = re.findall(r'<details class="query"([^>]*)>', browser(tmp_path / "driven.html", "--dump-dom"))
    assert [re.search(r'data-given="(\d)"', q)[1] for q in queries] == ["1", "0"]
    assert ["hidden" in q for q in queries] == [False, True]
    assert ["open" in q for q in queries] == [False, True]


def test_hostile_names_do_not_run(browser, tmp_path):
    results = [ResultView(text, i, i, 0.5, 0.5, 0.5, text=text, note=text) for i, text in enumerate(HOSTILE, start=1)]
    path = tmp_path / "hostile.html"
    queries = [query(text, text=text, results=results) for text in HOSTILE]
    rows = [{text: text for text in HOSTILE}]
    write_report(path, title=HOSTILE[0], manifest={text: text for text in HOSTILE}, queries=queries, summary=rows)
    dom = browser(path, "--dump-dom")
    assert "data-pwned" not in dom
    assert re.search(r"<title>&lt;script&gt;document.documentElement.dataset.pwned = 1&lt;/script&gt;</title>", dom)
    assert dom.count("<script") == 1 and "<img" not in dom


def test_the_browser_would_run_what_is_not_escaped(browser, tmp_path):
    """The check above can fail: the same text, unescaped, does run."""
    path = tmp_path / "bare.html"
    path.write_text(f"<!doctype html><title>x</title>{HOSTILE[0]}", "utf-8")
    assert "data-pwned" in browser(path, "--dump-dom")


def test_it_prints_with_its_pictures(browser, report):
    target = report.with_suffix(".pdf")
    browser(report, f"--print-to-pdf={target}", "--no-pdf-header-footer")
    pdf = target.read_bytes()
    assert pdf.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 3
    assert len(re.findall(rb"/Subtype\s*/Image", pdf)) == 11  # ten candidates and the query, each once
