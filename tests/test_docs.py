"""What the documents say is what happens: commands, outputs, examples, links."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from fakes import INSTALLED

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = sorted((INSTALLED / "looktwice").rglob("*.py"))
EXAMPLES = [path for path in SOURCES if ">>> " in path.read_text(encoding="utf-8")]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def readme() -> ModuleType:
    return script("readme")


@pytest.fixture
def place(readme: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(readme.make_place(tmp_path / "place"))
    return tmp_path / "place"


def test_command_page_is_what_help_says() -> None:
    made = script("cli_docs").page()
    assert (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8") == made, "run: make docs"


def test_readme_shows_what_its_commands_print(readme: ModuleType, place: Path) -> None:
    made = readme.filled(README, place)
    assert readme._masked(made) == readme._masked(README), "run: make docs"
    assert "$ looktwice search" in made


def test_readme_python_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 1
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 11
    exec(compile(blocks[0], "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["1", "2", "3"]
    assert "corpus_id" in lines[3]


def test_readme_is_short_and_shows_output_early() -> None:
    prose = re.sub(r"<!--.*?-->", "", README, flags=re.DOTALL)
    assert 500 <= len(prose.split()) <= 650
    first_output = README.splitlines().index("<!-- output of: looktwice demo -->") + 2
    assert first_output <= 25


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
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

    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert [verb for verb in verbs() if f"## looktwice {verb}\n" not in page] == []
