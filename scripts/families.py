"""Write docs/reference/families.md: which image-text families run on which path, measured on tiny random checkpoints.

python scripts/families.py                # all of them, into the page; some need torchvision, one num2words
python scripts/families.py gemma3 llava   # these, to stdout
"""

from __future__ import annotations

import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import transformers
from family_rows import ROWS
from tiny_families import Outcome, Row, measure
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "families.md"
HEAD = """# Model families

Made by `python scripts/families.py`; `tests/parity/test_stock.py` holds every row to it.

Each family is a tiny checkpoint with random weights (standard deviation 0.2), its own stock processor and two pairs of
images of different shapes. Δ is the largest difference of any logit of the next token between looktwice's reference
path and transformers' own processor, chat template and forward, in float32 on a CPU; 1e-4 is allowed. A family on the
fast path is held to its reference path by `tests/parity` as well. A real checkpoint of a family may still be refused:
without a chat template, for thinking before it answers, or for weights that are not safetensors.

"""


def outcomes(rows: Iterable[Row]) -> Iterator[Outcome]:
    """Measure one row after the other; a family that this transformers lacks is passed over."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for row in rows:
        if row.kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            with tempfile.TemporaryDirectory() as folder:
                yield measure(row, Path(folder) / "m")
            print(row.key, file=sys.stderr)


def table(measured: Iterable[Outcome]) -> str:
    """Return the table of families: path, largest difference or reason, and the package that it needs."""
    needs = {row.key: row.needs for row in ROWS}
    lines = ["| family (`model_type`) | path | largest Δ | needs | reason |", "|---|---|---|---|---|"]
    for one in sorted(measured, key=lambda one: one.kind):
        delta = "" if one.path == "refused" else f"{one.delta:.1e}"
        lines.append(f"| {one.kind} | {one.path} | {delta} | {needs[one.kind]} | {one.reason} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the whole page."""
    known = {row.kind for row in ROWS}
    rest = sorted(kind for kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES if kind not in known)
    without = f"transformers {transformers.__version__} has {len(rest)} more that nobody has built tiny here yet: "
    last = textwrap.fill(without + ", ".join(f"`{kind}`" for kind in rest) + ".", 120, break_on_hyphens=False)
    return HEAD + table(outcomes(ROWS)) + "\n" + last + "\n"


def main(names: list[str]) -> None:
    """Write the page, or print the rows that are named."""
    if names:
        print(table(outcomes([row for row in ROWS if row.key in names])))
    else:
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
