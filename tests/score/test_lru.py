"""The memory of what was made last."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from looktwice.score.local.lru import Lru


def text_memory(entries: int, room: int, least: int = 0) -> Lru[str]:
    return Lru(entries, room, len, least)


def test_the_least_recently_used_goes_first() -> None:
    memory = text_memory(2, 100)
    memory.put("a", "A")
    memory.put("b", "B")
    assert memory.get("a") == "A"
    memory.put("c", "C")
    assert memory.get("b") is None and memory.get("a") == "A" and memory.get("c") == "C"


def test_bytes_bound_it_and_the_newest_may_stay() -> None:
    memory = text_memory(10, 3)
    memory.put("a", "AA")
    memory.put("b", "BB")
    assert memory.get("a") is None and memory.bytes == 2
    memory.put("c", "CCCC")
    assert len(memory) == 0 and memory.bytes == 0
    keeping = text_memory(10, 3, least=1)
    keeping.put("c", "CCCC")
    assert keeping.get("c") == "CCCC"
    keeping.put("d", "DDDDD")
    assert len(keeping) == 1 and keeping.bytes == 5


def test_what_two_threads_make_at_once_is_one_value() -> None:
    memory = text_memory(2, 100)
    first = memory.obtain("a", lambda: memory.put("a", "made by another thread meanwhile") and "mine")
    assert first == memory.get("a") == "made by another thread meanwhile" and memory.bytes == len(first)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9))), st.integers(1, 4), st.integers(0, 20))
def test_bounds_and_bytes_hold_whatever_is_put(puts: list[tuple[Hashable, int]], entries: int, room: int) -> None:
    memory = text_memory(entries, room)
    for key, size in puts:
        memory.put(key, "x" * size)
        assert len(memory) <= entries and memory.bytes <= room
        assert memory.bytes == sum(map(len, memory._kept.values()))
