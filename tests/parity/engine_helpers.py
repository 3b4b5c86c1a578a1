"""What the tests of engine share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from looktwice.score import Scorer
from looktwice.score.load import scorer
from looktwice.score.local.engine import Engine
from looktwice.score.local.families.base import Family
from looktwice.score.local.mllm import Mllm
from looktwice.score.prompting import built_in

Get = Callable[[str], Mllm]


def engine(mllm: Mllm, prompt: str = "object", **options: Any) -> Engine:
    fast = scorer(mllm, built_in.get(prompt), path="fast", **options)
    assert isinstance(fast, Engine) and isinstance(fast, Scorer)
    return fast


@pytest.fixture(name="plain")
def plain_fixture() -> Family:
    family = Family.__new__(Family)
    family.image_token_id = 9
    return family
