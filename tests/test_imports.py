"""Who may import whom, and what must not load before it is needed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "looktwice"

# Each may import what stands above it in this list, and itself; stages share a line and never import one another.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"types", "files", "ahead", "decoders"}),
    frozenset({"catalog", "device", "media"}),
    frozenset({"checkpoints", "sources", "shapes"}),
    frozenset({"weights", "doctor", "manifest"}),
    frozenset({"processors"}),
    frozenset({"encode", "store", "tokens", "score", "rank", "evaluate"}),
    frozenset({"candidates", "estimate", "calibration"}),
    frozenset({"inputs", "queries", "token_index", "indexing"}),
    frozenset({"second_look", "directions"}),
    frozenset({"twice"}),
    frozenset({"retrieve", "rerank"}),
    frozenset({"report"}),
    frozenset({"show"}),
    frozenset({"experiment"}),
    frozenset({"demo"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
HEAVY = {"torch", "transformers", "lancedb", "faiss", "PIL", "numpy", "pyarrow"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).parts[0].removesuffix(".py"), path


def imported(path: Path) -> Iterator[str]:
    """First parts of what a module imports from looktwice at run time, wherever the import stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for branch in [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]:
        branch.body = []
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = (
                [f"{node.module}.{a.name}" for a in node.names] if node.module == "looktwice" else [str(node.module)]
            )
        yield from (name.split(".")[1] for name in names if name.startswith("looktwice."))


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def test_every_module_has_a_layer() -> None:
    known = set().union(*LAYERS, {"__init__"})
    assert {name for name, _ in modules()} - known == set()


def test_imports_point_downwards() -> None:
    wrong = []
    for name, path in modules():
        if name == "__init__":
            continue
        for other in imported(path):
            if other in ("__version__", name):
                continue
            if layer(other) >= layer(name):
                wrong.append(f"{path.relative_to(SOURCE)} imports {other}")
    assert wrong == []


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
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)},
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
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)},
        check=True,
    )
    assert done.stdout.strip() == "[]"
