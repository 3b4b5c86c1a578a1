"""The documents say what happens: commands, outputs, examples, links. And they keep their own rules."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from fakes import INSTALLED

from looktwice.models import catalog

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLI_PAGE = ROOT / "docs" / "reference" / "cli.md"
SOURCES = sorted((INSTALLED / "looktwice").rglob("*.py"))
EXAMPLES = [path for path in SOURCES if ">>> " in path.read_text(encoding="utf-8")]
SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *SITE]
WIDTH, PARAGRAPH = 120, 6


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SNIPPETS = script("snippets")


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOKTWICE_DTYPE", "float32")
    made: Path = SNIPPETS.make_place(tmp_path / "place")
    return made


def test_command_page_is_what_help_says() -> None:
    assert CLI_PAGE.read_text(encoding="utf-8") == script("cli_docs").page(), "run: make docs"


@pytest.mark.parametrize("names", SNIPPETS.PLACES[1:], ids=lambda names: names[0])
def test_pages_show_what_their_commands_print(names: tuple[str, ...], place: Path) -> None:
    made = SNIPPETS.filled({name: text_of(name) for name in names}, place)
    for name in names:
        assert SNIPPETS.masked(made[name]) == SNIPPETS.masked(text_of(name)), f"{name}: run: make docs"


def test_readme_shows_what_it_prints_and_works_twice_in_a_row(place: Path) -> None:
    assert SNIPPETS.PLACES[0] == ("README.md",)
    first = SNIPPETS.filled({"README.md": README}, place)["README.md"]
    assert SNIPPETS.masked(first) == SNIPPETS.masked(README), "run: make docs"
    again = SNIPPETS.filled({"README.md": README}, place)["README.md"]
    out = io.StringIO()
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "40 unchanged" in again and "$ looktwice search" in again
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.chdir(place)
        exec(compile(block, "README.md", "exec"), {})
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["1", "2", "3"]
    assert "corpus_id" in lines[3]
    assert len([line for line in block.splitlines() if line.strip()]) <= 11


def test_a_wrong_output_or_a_failing_command_would_be_noticed(place: Path) -> None:
    wrong = "```console\n$ looktwice index a.lt photos\na.lt: 40 lost (1 s, 2 items/s)\n```\n"
    made = SNIPPETS.filled({"p": wrong}, place)["p"]
    assert SNIPPETS.masked(made) != SNIPPETS.masked(wrong)
    assert "a.lt: 40 added" in made
    with pytest.raises(SystemExit, match="exit code 2"):
        SNIPPETS.filled({"p": "```console\n$ looktwice search none.lt x\n```\n"}, place)


@pytest.mark.parametrize("page", [README, text_of("docs/index.md")], ids=["readme", "index"])
def test_first_lines_say_what_the_bundled_models_know(page: str) -> None:
    assert "The bundled models know drawings only" in page[:1600]


def test_readme_names_the_command_for_photographs_and_defines_its_columns() -> None:
    start = README[: README.index("## Try it")]
    assert start.count("--preset laptop") == 2 and "models --fits" in start
    assert all(f"**{column}**" in README for column in ("coarse", "p", "score", "moved"))


def test_readme_is_short_and_shows_output_early() -> None:
    prose = re.sub(r"<!--.*?-->", "", README, flags=re.DOTALL)
    assert 500 <= len(prose.split()) <= 650
    first_output = README.splitlines().index("<!-- output of: looktwice demo -->") + 2
    assert first_output <= 25


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_examples_in_documents(page: Path) -> None:
    failures, _ = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert failures == 0


@pytest.mark.parametrize("source", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_examples_in_docstrings(source: Path) -> None:
    """Of the package that is installed, wherever it lies; the collector of pytest reads a folder instead."""
    name = ".".join(source.relative_to(INSTALLED).with_suffix("").parts).removesuffix(".__init__")
    failures, examples = doctest.testmod(importlib.import_module(name))
    assert examples and failures == 0


def test_every_verb_is_on_the_command_page() -> None:
    from looktwice.cli.main import verbs

    page = CLI_PAGE.read_text(encoding="utf-8")
    assert [verb for verb in verbs() if f"## looktwice {verb}\n" not in page] == []


def test_every_python_block_is_run() -> None:
    run = {name for names in SNIPPETS.PLACES for name in names}
    assert [shown(page) for page in PAGES if "```python\n" in page.read_text("utf-8") and shown(page) not in run] == []


def shell_commands() -> Iterator[tuple[str, str]]:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *SITE]:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for command in line.split(" && "):
                    if command.startswith("looktwice "):
                        yield shown(page), command


@pytest.mark.parametrize(("page", "command"), list(shell_commands()))
def test_commands_that_are_not_run_at_least_parse(page: str, command: str) -> None:
    """Verbs and options exist and take these values; models that are named are in the catalog."""
    from looktwice.cli.main import app

    _, verb, *arguments = shlex.split(command, comments=True)
    group: Any = typer.main.get_command(app)
    made = group.commands[verb].make_context(verb, arguments, parent=group.make_context("looktwice", [verb]))
    for option in ("encoder", "mllm"):
        name = re.split(r"[@#+]", str(made.params.get(option) or "NAME"))[0]
        assert name in catalog.BY_NAME or name.isupper() or "/" in name, f"{page}: {name}"


def paragraphs(page: Path) -> Iterator[list[str]]:
    """Runs of prose lines: no code, tables, headings or blank lines; each item of a list is one of its own."""
    block: list[str] = []
    fenced = False
    for line in [*page.read_text(encoding="utf-8").splitlines(), ""]:
        fence = line.lstrip().startswith("```")
        other = fenced or fence or not line.strip() or line.startswith(("|", "#", ":::"))
        other = other or (line.startswith("    ") and not block)
        if other or re.match(r"\s*([-*]|\d+\.) ", line):
            if block:
                yield block
            block = []
        if not other:
            block.append(line)
        fenced ^= fence


@pytest.mark.parametrize("page", [ROOT / "README.md", *SITE], ids=shown)
def test_lines_wrap_and_paragraphs_are_short(page: Path) -> None:
    for block in paragraphs(page):
        assert len(block) <= PARAGRAPH, "\n".join(block)
        assert all(len(line) <= WIDTH for line in block), "\n".join(block)


def test_paragraphs_are_told_apart(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# T\none\ntwo\n\n- a\n  b\n- c\n\n| x |\n```\ncode\n```\n    code\nlast\n")
    assert list(paragraphs(page)) == [["one", "two"], ["- a", "  b"], ["- c"], ["last"]]


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"^ +- .*?([\w/-]+\.md)$", text_of("mkdocs.yml"), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in SITE)


def build_site(folder: Path, last_words: str = "") -> subprocess.CompletedProcess[str]:
    """Build a copy of docs/ strictly, as `make docs` does, with `last_words` at the end of its first page."""
    if importlib.util.find_spec("zensical") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("zensical and mkdocstrings are not installed; pip install 'looktwice[docs]'")
    folder.mkdir()
    shutil.copy(ROOT / "mkdocs.yml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    (folder / "src").symlink_to(ROOT / "src")
    with (folder / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write(last_words)
    return subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, capture_output=True, text=True
    )


def test_site_builds_strictly(tmp_path: Path) -> None:
    built = build_site(tmp_path / "site")
    assert built.returncode == 0, built.stdout + built.stderr
    pages = tmp_path / "site" / "build" / "site"
    made = {str(page.relative_to(pages).with_suffix(".md")) for page in pages.rglob("*.html")} - {"404.md"}
    assert made == {str(page.relative_to(ROOT / "docs")) for page in SITE}
    api = (pages / "reference" / "python.html").read_text(encoding="utf-8")
    assert 'id="looktwice.Retriever.search"' in api and "Yield one answer per query" in api
    assert "whole benchmark" in (pages / "search.json").read_text(encoding="utf-8").lower()


@pytest.mark.parametrize("mistake", ["[a](reference/measures.md#nowhere)", "[a](nowhere.md)", "::: looktwice.Nowhere"])
def test_a_mistake_stops_the_site(tmp_path: Path, mistake: str) -> None:
    assert build_site(tmp_path / "site", f"\n{mistake}\n").returncode != 0
