"""Every image-text family of transformers that can be built tiny: as stock code has it, or refused with its reason."""

from __future__ import annotations

import importlib.util
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from family_rows import ROWS
from tiny_families import Row, measure
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

ROOT = Path(__file__).parents[2]
CASES = [pytest.param(row, id=row.key, marks=[pytest.mark.slow] if row.slow else []) for row in ROWS]


@pytest.mark.parametrize("row", CASES)
def test_the_reference_path_is_stock_or_the_refusal_is_true(row: Row, tmp_path: Path) -> None:
    if row.kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        pytest.skip(f"this transformers has no {row.kind}")
    if row.needs == "timm" and find_spec("timm") is None:
        pytest.skip("timm is not installed, and this family's vision tower comes from it")
    outcome = measure(row, tmp_path / "m")
    if row.needs and find_spec(row.needs) is None:
        assert outcome.path == "refused" and f"needs {row.needs}; install it with: pip install" in outcome.reason
        pytest.skip(f"{row.needs} is not installed, and this family's processor needs it")
    if row.refused:
        assert outcome.path == "refused" and re.search(row.refused, outcome.reason), outcome
    else:
        assert outcome.path in ("reference", "fast") and outcome.delta <= 1e-4, outcome


def test_families_stand_once() -> None:
    assert len({row.key for row in ROWS}) == len(ROWS)


def test_the_page_names_every_family(tmp_path: Path) -> None:
    """The page is made by scripts/families.py; here of two rows; docs/ has a line for each."""
    spec = importlib.util.spec_from_file_location("families", ROOT / "scripts" / "families.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    chosen = [row for row in ROWS if row.key in ("gemma3", "paligemma")]
    lines = script.table([measure(row, tmp_path / row.key) for row in chosen])
    assert re.search(r"\| gemma3 \| fast \| \d\.\de-\d\d \|", lines) and "| paligemma | refused |" in lines
    page = (ROOT / "docs" / "reference" / "families.md").read_text(encoding="utf-8")
    assert [row.key for row in ROWS if f"| {row.key} |" not in page] == []
