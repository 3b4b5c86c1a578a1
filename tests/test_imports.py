"""Who may import whom, and what must not load before it is needed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from fakes import INSTALLED

SOURCE = INSTALLED / "looktwice"

# Each may import what stands above it in this list, and itself; stages share a line and never import one another.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"types", "files", "checked", "buckets"}),
    frozenset({"models", "sources"}),
    frozenset({"encode", "store", "codecs", "late_interaction", "score", "rank", "evaluate"}),
    frozenset({"indexing", "token_index", "estimate", "testing"}),
    frozenset({"search"}),
    frozenset({"report"}),
    frozenset({"experiment"}),
    frozenset({"serve", "client"}),
    frozenset({"cli", "integrations"}),
)
DOORS = {"__init__", "__main__"}
HEAVY = {
    "torch",
    "transformers",
    "lancedb",
    "faiss",
    "PIL",
    "numpy",
    "pyarrow",
    "scipy",
    "sklearn",
    "psutil",
    "cachetools",
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).parts[0].removesuffix(".py"), path


def running(path: Path) -> Iterator[ast.AST]:
    """All nodes of a module but those that only type checkers read."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for branch in [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]:
        branch.body = []
    yield from ast.walk(tree)


def imported(path: Path) -> Iterator[str]:
    """First parts of what a module imports from looktwice at run time, wherever the import stands."""
    for node in running(path):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = (
                [f"{node.module}.{a.name}" for a in node.names] if node.module == "looktwice" else [str(node.module)]
            )
        yield from (name.split(".")[1] for name in names if name.startswith("looktwice."))


def whole(path: Path, names: Mapping[str, Path]) -> Iterator[str]:
    """The modules of looktwice that a module imports, each by its whole name."""
    for node in running(path):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("looktwice"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in names else str(node.module)


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def test_every_module_has_a_layer() -> None:
    known = set().union(*LAYERS, DOORS)
    assert {name for name, _ in modules()} - known == set()


def test_imports_point_downwards() -> None:
    wrong = []
    for name, path in modules():
        if name in DOORS:
            continue
        for other in imported(path):
            if other in ("__version__", name):
                continue
            if layer(other) >= layer(name):
                wrong.append(f"{path.relative_to(SOURCE)} imports {other}")
    assert wrong == []


def test_no_module_needs_itself() -> None:
    """No circles: neither between rooms nor inside one."""
    names = {".".join(path.relative_to(SOURCE.parent).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {name: {found for found in whole(path, names) if found != name} for name, path in names.items()}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["search", "--help"], ["models"], ["models", "--json"], ["--version"]]
)
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from looktwice.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(INSTALLED)},
        check=True,
    )
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, looktwice; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(INSTALLED)},
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_old_names_work_and_warn_and_new_ones_do_not(recwarn: pytest.WarningsRecorder) -> None:
    import looktwice

    for name in looktwice.__all__:
        assert getattr(looktwice, name) is not None
    assert not [warning for warning in recwarn if warning.category is DeprecationWarning]
    with pytest.deprecated_call(match=r"SecondLook.*MllmReranker"):
        assert looktwice.SecondLook is looktwice.MllmReranker  # type: ignore[attr-defined]
