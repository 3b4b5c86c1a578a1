"""Settings of a scorer: one record, checked in one place, before anything is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from fakes import INSTALLED

from looktwice import ScorerConfig, load_scorer
from looktwice.errors import UnknownName, UsageError
from looktwice.score.local.retrace import Retrace


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"retrac": "causal"}, UnknownName, "did you mean retrace"),
        ({"path": "quick"}, UsageError, "auto, fast, reference"),
        ({"batch_size": 0}, UsageError, "at least 1"),
        ({"cache_bytes": -1}, UsageError, "cache_bytes"),
        ({"score_mode": "p-tru"}, UnknownName, "did you mean p-true"),
        ({"retrace": "causl"}, UnknownName, "causal"),
        ({"prior": "querry"}, UnknownName, "did you mean query"),
        ({"prior": "query", "score_mode": "digit"}, UsageError, "needs the mode p-label"),
    ],
)
def test_what_is_wrong_is_refused_before_the_model_is_looked_for(
    settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ScorerConfig.of(**settings)
    with pytest.raises(error, match=says):
        load_scorer("no-such-model", **settings)


def test_a_misspelt_address_is_no_folder() -> None:
    with pytest.raises(UsageError, match="'htp://host:1/v1' begins with an unknown scheme"):
        load_scorer("htp://host:1/v1")


def test_settings_change_a_config_and_are_checked_with_it() -> None:
    base = ScorerConfig(dtype="float32", prior="query")
    assert ScorerConfig.of(base, batch_size=2) == ScorerConfig(dtype="float32", prior="query", batch_size=2)
    assert ScorerConfig.of(base) == base and ScorerConfig.of() == ScorerConfig()
    with pytest.raises(UsageError, match="needs the mode p-label"):
        ScorerConfig.of(base, score_mode="written")
    with pytest.raises(FrozenInstanceError):
        base.dtype = "bfloat16"  # type: ignore[misc]


def test_what_is_changed_is_what_differs_from_the_defaults() -> None:
    assert ScorerConfig(retrace="off", prior="off", score_mode="p-label").changed() == {}
    preset = Retrace.parse("causal")
    config = ScorerConfig(resolution=448, retrace=preset, as_released=True)
    assert config.changed() == {"resolution": 448, "retrace": preset, "as_released": True}


def test_a_config_loads_no_torch() -> None:
    code = "import sys; from looktwice import Scorer, ScorerConfig; ScorerConfig(retrace='causal')"
    code += "; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(INSTALLED)}, check=True)
