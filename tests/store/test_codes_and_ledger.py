"""Visual tokens beside the items, and the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_helpers import ENCODER, random_rows, row

from looktwice.errors import Locked, StoreError, UnknownName, UsageError
from looktwice.store import Ledger, LedgerEntry, Manifest, Table, TokenRow, erasing


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table.create(tmp_path / "t.lt", ENCODER)


def codes(number: int, key: str = "k", data: bytes = b"") -> TokenRow:
    return TokenRow(f"{number:05}", f"{number:064x}", key, '[{"h": 2}]', data or bytes([number % 256]) * 9, 3)


def test_codes_come_back_in_the_order_asked_for(table: Table) -> None:
    table.put_codes([codes(n) for n in range(100)])
    table.put_codes([codes(n, "other", b"x") for n in range(50, 60)])
    wanted = [7, 55, 7, 99, 0]
    assert table.read_codes([f"{n:05}" for n in wanted], "k") == [codes(n) for n in wanted]
    assert table.read_codes(["00055", "00007"], "other") == [codes(55, "other", b"x"), None]
    assert table.read_codes(["00055", "nobody"], "third") == [None, None]
    assert table.read_codes([], "k") == []


def test_codes_are_replaced_not_doubled(table: Table) -> None:
    table.put_codes([codes(1), codes(2)])
    table.put_codes([codes(1, data=b"new")])
    assert table.read_codes(["00001", "00002"], "k") == [codes(1, data=b"new"), codes(2)]
    assert table.info()["tokens"] == 2


@pytest.mark.parametrize("odd", ["a|b", "a'b", "a\n|", "日本"])
def test_codes_of_odd_ids(table: Table, odd: str) -> None:
    one = TokenRow(odd, "0", "k", "[]", b"1", 0)
    table.put_codes([one])
    assert table.read_codes([odd, "a"], "k") == [one, None]
    with pytest.raises(UsageError):  # or it would be the row of another id
        table.put_codes([TokenRow("a", "0", "b|k", "[]", b"2", 0)])


def test_tokens_of_other_bytes_go_with_the_bytes(table: Table) -> None:
    table.add(random_rows(10))
    table.put_codes([codes(n) for n in range(10)])
    table.add([row("00003", sha256="f" * 64), row("00004", sha256=f"{4:064x}", text="only the text is new")])
    assert table.read_codes(["00003", "00004"], "k") == [None, codes(4)]
    assert [sorted(part) for part in table.pending_tokens("k")] == [["00003"]]


def test_pending_tokens(table: Table) -> None:
    assert list(table.pending_tokens("k")) == []
    table.add([*random_rows(5000), row("text", width=0, height=0)])
    assert sum(map(len, table.pending_tokens("k"))) == 5000  # a text has no visual tokens
    table.put_codes([codes(n) for n in range(4990)] + [TokenRow("04995", "old bytes", "k", "[]", b"", 0)])
    left = sorted(one for part in table.pending_tokens("k") for one in part)
    assert left == [f"{n:05}" for n in range(4990, 5000)]
    assert sum(map(len, table.pending_tokens("other"))) == 5000


def test_codebooks(table: Table) -> None:
    name = table.put_codebook(b"book" * 99)
    assert Table.open(table.path).codebook(name) == b"book" * 99
    assert table.put_codebook(b"book" * 99) == name
    with pytest.raises(StoreError, match="lost its codebook"):
        table.codebook("0" * 64)
    (table.path / "codebooks" / name).write_bytes(b"other")
    with pytest.raises(StoreError, match="damaged"):
        table.codebook(name)


def note_set(table: Table, key: str, codec: str, codebook: str | None = None, **more: object) -> None:
    made = {"tokens_key": key, "mllm": "toy", "revision": "1", "preprocessing": "p", "codec": codec}
    table.note_tokens({**made, "codebook_sha256": codebook, "width": 4, "levels": 0, **more})


@pytest.fixture
def three_sets(table: Table) -> Table:
    """A table with three token sets, two of which share a codebook."""
    table.add(random_rows(10))
    book, sample = table.put_codebook(b"book" * 99), table.put_codebook(b"sample")
    note_set(table, "a", "pq8", book, rarity={"sha256": sample})
    note_set(table, "b", "pq8", book)
    note_set(table, "c", "int8")
    for key, count in (("a", 10), ("b", 5), ("c", 10)):
        table.put_codes([codes(n, key, b"\xff" * 100) for n in range(count)])
    table.ledger.put([LedgerEntry("u", "tokens:a", "grid"), LedgerEntry("u", "tokens:c", "grid")])
    return table


def kept_of(table: Table) -> dict[str, int]:
    """Return how many rows each token set has."""
    ids = [f"{n:05}" for n in range(10)]
    return {key: sum(row is not None for row in table.read_codes(ids, key)) for key in "abc"}


def test_a_token_set_is_dropped_and_nothing_else(three_sets: Table) -> None:
    before, old = three_sets.contents(), three_sets.snapshot()
    (gone,) = three_sets.drop_tokens(key="a")
    assert (gone.mllm, gone.codec, gone.images) == ("toy", "pq8", 10)
    assert gone.bytes == 10 * 100 + len(b"sample"), "the other set needs the codebook"
    now = Table.open(three_sets.path)
    assert kept_of(now) == {"a": 0, "b": 5, "c": 10} and now.contents() == before and len(now) == 10
    assert [entry["tokens_key"] for entry in now.manifest.tokens] == ["b", "c"]
    assert [entry.stage for entry in now.ledger] == ["tokens:c"]
    assert kept_of(old)["a"] == 10 and old.codebook(old.manifest.tokens[0]["rarity"]["sha256"]) == b"sample"


def test_dropping_by_model_and_codec(three_sets: Table) -> None:
    assert [one.tokens_key for one in three_sets.drop_tokens(mllm="toy", codec="pq8")] == ["a", "b"]
    with pytest.raises(UnknownName, match=r"Unknown token set 'pq8'; known: int8 of toy, p \(key c\)"):
        three_sets.drop_tokens(codec="pq8")
    with pytest.raises(UsageError, match="Name the tokens to drop"):
        three_sets.drop_tokens()
    assert kept_of(three_sets) == {"a": 0, "b": 0, "c": 10}
    (gone,) = three_sets.drop_tokens(mllm="toy")
    assert gone.bytes == 10 * 100 and three_sets.manifest.tokens == ()


def test_the_disk_gets_the_bytes_back_at_a_purge(three_sets: Table) -> None:
    folder = three_sets.path / "codebooks"
    three_sets.drop_tokens(codec="pq8")
    assert len(list(folder.iterdir())) == 2, "who reads an older version still needs them"
    three_sets.compact(purge=True)
    assert list(folder.iterdir()) == [] and kept_of(Table.open(three_sets.path)) == {"a": 0, "b": 0, "c": 10}


@pytest.mark.parametrize("step", ["rows", "ledger", "manifest"])
def test_an_interrupted_drop_is_finished_by_the_next(
    three_sets: Table, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    places = {"rows": (erasing, "remove"), "ledger": (Ledger, "clear_stage"), "manifest": (Manifest, "update")}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*places[step], killed)
        three_sets.drop_tokens(key="a")
    again = Table.open(three_sets.path)
    assert len(again.manifest.tokens) == 3 and len(again) == 10
    assert [one.tokens_key for one in again.drop_tokens(key="a")] == ["a"]
    assert kept_of(again) == {"a": 0, "b": 5, "c": 10} and len(again.manifest.tokens) == 2


def test_a_drop_waits_for_no_other_writer(three_sets: Table) -> None:
    with Table.open(three_sets.path).writer(), pytest.raises(Locked):
        three_sets.drop_tokens(key="a")
    assert kept_of(three_sets)["a"] == 10


def test_ledger_keeps_one_line_per_place_and_stage(table: Table) -> None:
    table.ledger.put(
        [LedgerEntry("b", "read", "missing"), LedgerEntry("a", "read", "empty"), LedgerEntry("a", "read", "x")]
    )
    table.ledger.put([LedgerEntry("a", "read", "io-error", "d'é\n", "r"), LedgerEntry("a", "tokens", "odd")])
    found = list(table.ledger)
    assert [(one.uri, one.stage, one.reason) for one in found] == [
        ("a", "read", "io-error"),
        ("a", "tokens", "odd"),
        ("b", "read", "missing"),
    ]
    assert (found[0].detail, found[0].root) == ("d'é\n", "r")
    assert all(one.at > "2020" for one in found)
    assert len(Table.open(table.path).ledger) == 3


def test_a_long_ledger_is_read_piece_by_piece(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def entry(**row: str) -> str:
        made.append(row["uri"])
        return row["uri"]

    table.ledger.put([LedgerEntry(f"{n:05}", "read", "r") for n in range(10_000, 0, -1)])
    monkeypatch.setattr("looktwice.store.ledger.LedgerEntry", entry)
    entries = iter(table.ledger)
    assert next(entries) == "00001" and len(made) < 5000
    assert [*entries] == [f"{n:05}" for n in range(2, 10_001)]


def test_ledger_forgets(table: Table) -> None:
    odd = ["it's", "a\nb", "x|y", "日本"]
    table.ledger.put([LedgerEntry(uri, stage, "r") for uri in odd for stage in ("read", "tokens")])
    assert table.ledger.clear(["it's", "nobody"]) == 2
    assert table.ledger.clear(odd, ["read"]) == 3
    assert {one.stage for one in table.ledger} == {"tokens"}
    assert table.ledger.clear(odd) == 3
    assert (len(table.ledger), table.ledger.clear(odd), list(table.ledger)) == (0, 0, [])
    table.ledger.put([])
