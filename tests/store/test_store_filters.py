"""No filter does anything but what all of it says: each is one expression of bearable size, or refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_helpers import ENCODER, row

from looktwice.errors import UsageError
from looktwice.store import Table
from looktwice.store.filters import MOST_CHARACTERS, MOST_OPERATORS, check


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table.create(tmp_path / "t.lt", ENCODER, {"year": int})


ENDS_EARLY = [
    "true) AND_ONLY id = 'zzz'",
    "id = 'a' ) BUT keep = everything (",
    "true) -- ",
    "true) /* ",
    "true) OR (true",
    "id = 'a') OR (id = ']'",
    "[1) IS NULL OR (2]",
    "true; DELETE",
    "true -- and more",
    "true /* and more */",
    "year = 1--1",
    "true) #",
    r"E'a\') = ' OR true) OR id = '",
    "N'a' = 'a'",
    "X'41' = id",
    "$$a$$ = id",
    "$a$) OR ($a$ = id",
    "q'[) OR (]' = id",
    "U&'d' = id",
    "id = 'it's'",
    "id = '",
    'id = "a',
    "id = `a",
    "(true",
    "true\x00",
    "year > ?",
    "year > :x",
    "year > @x",
    "id = 'a'\ufeff",
]


@pytest.mark.parametrize("where", ENDS_EARLY)
def test_a_filter_that_ends_early_deletes_and_finds_nothing(table: Table, where: str) -> None:
    table.add([row("a", metadata={"year": 1}), row("b")])
    uses: list[Callable[[], object]] = [
        lambda: table.delete(where=where),
        lambda: table.count(where),
        lambda: list(table.rows(where=where)),
        lambda: table.search(np.eye(8)[0], 3, where),
        lambda: table.search_many(np.eye(8), 3, where),
    ]
    for use in uses:
        with pytest.raises(UsageError, match="cannot be used"):
            use()
    assert len(table) == 2


@given(st.text(alphabet="()[]'\"`-/*; ax=", max_size=12))
def test_what_passes_has_its_brackets_in_pairs(where: str) -> None:
    """Told by another way of reading: quoted pieces are taken out, then pairs, until nothing changes."""
    try:
        check(where)
    except ValueError:
        return
    bare, inside = "", ""
    for letter in where:
        inside = ("" if letter == inside else inside) if inside else (letter if letter in "'\"`" else "")
        bare += letter if not inside else ""
    bare = "".join(letter for letter in bare if letter in "()[]")
    while (less := bare.replace("()", "").replace("[]", "")) != bare:
        bare = less
    assert bare == ""


@pytest.mark.parametrize("where", [True, 3, ["id"]])
def test_a_filter_is_a_text(table: Table, where: object) -> None:
    table.add([row("a")])
    with pytest.raises(UsageError, match="must be SQL text"):
        table.delete(where=where)  # type: ignore[arg-type]
    assert len(table) == 1


LONG = {
    "1=1-1-1…": "1=1" + "-1" * 30_000,
    "OR": " OR ".join(["id = 'a'"] * 12_000),
    "||": "id = " + "||".join(["'a'"] * 20_000),
    "::": "year" + "::int" * 400 + " > 3",
    "IS": "year IS NULL" + " IS NOT TRUE" * 400,
    "NOT": "NOT " * 5000 + "true",
    "- -": "year > " + "- " * 5000 + "1",
    "in a list": "year IN (" + "1-1," * 5000 + "1)",
}


@pytest.mark.parametrize("where", LONG.values(), ids=list(LONG))
def test_long_chains_are_refused_in_a_short_sentence(table: Table, where: str) -> None:
    table.add([row("a")])
    with pytest.raises(UsageError, match=f"at most {MOST_OPERATORS} are allowed") as caught:
        table.count(where)
    assert len(str(caught.value)) < 1000


def test_long_texts_are_refused(table: Table) -> None:
    with pytest.raises(UsageError, match=f"at most {MOST_CHARACTERS:,} are allowed"):
        table.count("id = '" + "x" * MOST_CHARACTERS + "'")


def test_a_list_of_values_may_be_long(table: Table) -> None:
    table.add([row("a"), row("b", metadata={"year": -7})])
    names = ", ".join(f"'{n} it''s (long)'" for n in range(30_000))
    assert table.count(f"id IN ({names}, 'a')") == 1
    assert table.count("year IN (" + ", ".join(str(-n) for n in range(20_000)) + ")") == 1


CHAINS = ["+year", "-1", "%7", ">>1", " < true", " IS NULL", "::int", " AND year > 1", " OR year < 1", " = true"]


@pytest.mark.slow
def test_the_longest_chains_that_pass_do_not_end_the_process(table: Table) -> None:
    """In a process of its own: what this guards against is signal 11."""
    table.add([row("a", metadata={"year": 1})])
    program = f"""if True:
        import numpy as np
        from looktwice.errors import LooktwiceError
        from looktwice.store import Table
        from looktwice.store.filters import check
        table = Table.open({str(table.path)!r})
        for link in {CHAINS!r}:
            where = "year"
            for n in range({MOST_OPERATORS}):
                try:
                    check(where + link)
                except ValueError:
                    break
                where += link
            for end in ("", " = 3"):
                try:
                    table.count(where + end)
                    table.search(np.eye(8)[0], 3, where + end)
                    table.delete(where=where + end)
                except LooktwiceError:
                    pass
        print("done")
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-500:]
