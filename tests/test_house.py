"""The house stays readable: sizes of modules and functions, one meaning per public name, retired words."""

from __future__ import annotations

import ast
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import INSTALLED

SOURCE = INSTALLED / "looktwice"
MODULES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
RETIRED = ("SecondLook", "Tally", "Readers", "TokenReader", "look_conditions", "told_of", "Gate", "HOOKED")
"""Names of classes and functions that were replaced by the field's words."""


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node, (node.end_lineno or node.lineno) - node.lineno + 1


def test_few_modules_stand_beside_the_rooms() -> None:
    beside = {path.name for path in SOURCE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert len(beside) <= 6, beside


def test_a_module_can_be_read_at_one_sitting() -> None:
    lengths = {path.relative_to(SOURCE): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {str(path): n for path, n in lengths.items() if n > 300} == {}


def test_functions_are_short() -> None:
    found = [(path, node.name, length) for path, node, length in functions()]
    assert [(str(path.relative_to(SOURCE)), name, n) for path, name, n in found if n > 60] == []
    assert statistics.median(n for _, _, n in found) < 12


def test_a_public_name_has_one_meaning() -> None:
    homes = defaultdict(set)
    for path, tree in TREES.items():
        for node in tree.body:
            alias = isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.dump(node.annotation)
            name = node.name if isinstance(node, ast.ClassDef) else getattr(node.target, "id", "") if alias else ""
            if name and not name.startswith("_"):
                homes[name].add(str(path.relative_to(SOURCE)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


@pytest.mark.parametrize("word", RETIRED)
def test_retired_names_are_gone(word: str) -> None:
    trees = [tree for path, tree in TREES.items() if path.name != "__init__.py"]
    names = {getattr(node, "id", getattr(node, "name", None)) for tree in trees for node in ast.walk(tree)}
    assert word not in names


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)), "pytest imports them by their base names"
