"""Hypothesis on every parser of a text: any text is read, or refused with an error of ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from looktwice.errors import LooktwiceError

pytestmark = pytest.mark.hostile
FILES = int(os.environ.get("HOSTILE_FILES", "1000"))
PARTS = (
    *("pq8", "pool2", "+", "opq", "int8", ":", "int", "year", ">", "(", ")", "'", '"', "--", "/*", "AND", "[", "{"),
    *("}", "\\", "http://", "file:///", "#", "offset=1&size=2", "%00", "@", "?", "/", ".", "..", "*", "**", "!", "0.5"),
    *("rrf", "p-only", "siglip2-b", "tiny-clip", "clip:", "=", ",", "9" * 400, "1e400", "nan", "-", "\n", "\0"),
    *("\ud800", "\u202e"),
)
OPERATORS = ("year", ">", "in", "like", "!=", "x")
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(PARTS)).map("".join))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.sampled_from(OPERATORS), inner)),
)
COLUMNS = {"id": str, "year": int, "price": float, "new": bool}


def named(place: str) -> Callable[[Any], Any]:
    module, _, name = place.partition(":")

    def call(text: Any) -> Any:
        return getattr(import_module(f"looktwice.{module}"), name)(text)

    return call


def as_filter(value: Any) -> None:
    from looktwice.store.lance import filtering

    with filtering(value, COLUMNS):
        pass


TEXT_PARSERS = {
    "codec": named("codecs:parse_codec"),
    "columns": lambda text: named("store:parse_columns")([text]),
    "filter in SQL": as_filter,
    "filter as JSON": named("store.conditions:parse_where"),
    "uri": named("sources:parse_uri"),
    "server address": named("score.remote.address:parse"),
    "encoder": named("encode.name:parse"),
    "preset": named("models.presets:get"),
    "prompt": named("score.prompting.built_in:get"),
    "ignore patterns": lambda text: named("sources.ignore:compiled")([text]),
    "token layout": named("codecs:layout_from_json"),
}


def survives(call: Callable[[Any], Any], value: Any) -> str | None:
    try:
        call(value)
    except LooktwiceError:
        pass
    except Exception as error:
        return f"{value!r}: {error!r}"
    return None


attempts = settings(
    max_examples=FILES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("name", TEXT_PARSERS)
def test_any_text(name: str, tally: Any) -> None:
    @attempts
    @given(TEXTS)
    def attack(text: str) -> None:
        tally.add(survives(TEXT_PARSERS[name], text))

    attack()
    tally.check()


def test_any_filter(tally: Any) -> None:
    """A filter as a dict of anything becomes SQL that passes our own check, or is refused."""

    @attempts
    @given(st.dictionaries(st.one_of(st.sampled_from(tuple(COLUMNS)), TEXTS), VALUES))
    def attack(value: Any) -> None:
        tally.add(survives(as_filter, value))

    attack()
    tally.check()
