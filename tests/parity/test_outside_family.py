"""A model family from outside: one module, and one line in the table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from looktwice.score.load import scorer
from looktwice.score.local import families
from looktwice.score.local.engine import Engine
from looktwice.score.local.families.idefics3 import Idefics3
from looktwice.score.local.mllm import Mllm
from looktwice.score.prompting import built_in
from looktwice.types import Item


class Mine(Idefics3):
    """A family of somebody else."""


def test_a_family_takes_one_module_and_one_line(
    mllm: Callable[[str], Mllm], query: dict[str, Item], candidates: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("outside_family")
    module.Mine = Mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "outside_family", module)
    monkeypatch.setitem(families.FAMILIES, "idefics3", "outside_family:Mine")
    made = scorer(mllm("idefics3"), built_in.get("object"))
    assert isinstance(made, Engine) and isinstance(made.family, Mine)
    assert made.score(query["image"], candidates[:2]).status == ("ok", "ok")
