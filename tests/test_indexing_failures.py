"""Indexing: failures, interruptions and limits."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from threading import active_count

import numpy as np
import pytest
from colour_encoder import ColourEncoder, picture, save_pictures
from indexing_helpers import (
    Collection,
    made_fixture,  # noqa: F401  # fixtures
)
from PIL import Image

from looktwice import sources
from looktwice.errors import Mismatch, ModelError, StoreError, TooManyFailures, UsageError
from looktwice.indexing import encoding, index, writer
from looktwice.indexing.seen import Hashes, SeenIds
from looktwice.sources import Source, prefetch, scan
from looktwice.store import Table
from looktwice.types import Item


def test_max_failures(made: Collection) -> None:
    save_pictures(made.folder, 20)
    for number in range(5, 9):
        (made.folder / f"{number:04}.png").write_bytes(b"x")
    assert made.index(max_failures=4).failed == 4
    made.table.delete(where="true", remember=False)
    with pytest.raises(
        TooManyFailures, match=r"3 items failed, more than the 2 that max_failures .* allows; .*: looktwice ledger /"
    ):
        made.index(max_failures=2, batch_size=2)
    assert made.ids() == [f"{number:04}.png" for number in range(4)]  # whole batches before it are kept
    assert len(made.ledger()) == 4 or len(made.ledger()) == 3


def test_another_encoder_is_refused(made: Collection) -> None:
    made.save(a="red")
    with pytest.raises(Mismatch, match=r"revision 1.*revision 2"):
        made.index(encoder=ColourEncoder(revision="2"))
    assert len(made.table) == 0


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"threads": 0}])
def test_senseless_settings(made: Collection, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        made.index(**options)


def test_only_a_scan_can_be_pruned(made: Collection) -> None:
    with pytest.raises(UsageError, match=r"scan\(\)"):
        index(made.table, [], ColourEncoder(), prune=True)


class Picky(ColourEncoder):
    """Refuses some items, as image processors refuse odd shapes."""

    def __init__(self, refuses: str, error: type[Exception] = ValueError) -> None:
        super().__init__()
        self.refuses, self.error = refuses, error

    def encode(self, items: Sequence[Item]) -> np.ndarray:
        if any(self.refuses in item.id for item in items):
            raise self.error("aspect ratio must be below 200")
        return super().encode(items)


@pytest.mark.parametrize("error", [ValueError, MemoryError])
def test_item_that_the_encoder_refuses(made: Collection, error: type[Exception]) -> None:
    save_pictures(made.folder, 10)
    report = made.index(encoder=Picky("0004", error))
    assert (report.added, report.encoded, made.ledger()) == (9, 9, {"0004.png": "encoder"})


def test_nothing_but_refused_items_is_no_broken_encoder(made: Collection) -> None:
    """As on every run after the first, where all else is unchanged."""
    save_pictures(made.folder, 14)
    assert made.index(encoder=Picky("001")).added == 9
    for prune in (False, True):
        report = made.index(encoder=Picky("001"), prune=prune)
        assert (report.unchanged, report.failed) == (9, 5)
    assert set(made.ledger().values()) == {"encoder"} and len(made.ledger()) == 5


def test_encoder_that_refuses_everything_stops_the_run(made: Collection) -> None:
    save_pictures(made.folder, 3)
    with pytest.raises(ModelError, match="aspect ratio"):
        made.index(encoder=Picky(""))
    assert made.ledger() == {}


def test_encoder_with_the_wrong_shape(made: Collection) -> None:
    class Wrong(ColourEncoder):
        def encode(self, items: Sequence[Item]) -> np.ndarray:
            return super().encode(items)[:-1]

    save_pictures(made.folder, 3)
    with pytest.raises(UsageError, match="for 3 items"):
        made.index(encoder=Wrong())


def test_interrupt_keeps_what_is_encoded(made: Collection) -> None:
    class Interrupted(ColourEncoder):
        def encode(self, items: Sequence[Item]) -> np.ndarray:
            if len(self.calls) == 3:
                raise KeyboardInterrupt
            return super().encode(items)

    save_pictures(made.folder, 20)
    with pytest.raises(KeyboardInterrupt):
        made.index(encoder=Interrupted(), batch_size=4)
    assert len(made.table) == 12
    report = made.index(batch_size=4)
    assert (report.added, report.unchanged, report.encoded) == (8, 12, 8)


def test_disk_full(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pictures(made.folder, 20)
    monkeypatch.setattr(writer, "COMMIT_ROWS", 5)
    add = Table.add

    def full(table: Table, rows: object) -> None:
        if len(table) >= 10:
            with run_lance_errors(table):
                raise RuntimeError("lance error: LanceError(IO): No space left on device (os error 28), /x/y.rs:1:2")
        add(table, rows)

    from looktwice.store.lance import plain_errors

    def run_lance_errors(table: Table) -> object:
        return plain_errors(table.path, "adding items")

    monkeypatch.setattr(Table, "add", full)
    with pytest.raises(StoreError, match=r"^The disk is full.*run it again\.$"):
        made.index(batch_size=5)
    monkeypatch.undo()
    assert len(made.table) == 10
    assert made.index().added == 10


def test_progress_counts_up(made: Collection) -> None:
    save_pictures(made.folder, 25)
    (made.folder / "bad.png").write_bytes(b"x")
    met = []
    made.index(batch_size=10, progress=lambda report: met.append(report.met))
    assert met == sorted(met) and met[-1] == 26 and len(met) >= 3


def test_large_pictures_close_a_batch_early(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH_PIXELS", 200)
    for number in range(6):
        (made.folder / f"{number}.png").write_bytes(picture((number + 1, 0, 9), (10, 10)))
    made.index()
    assert [len(call) for call in made.encoder.calls] == [2, 2, 2]


def test_few_decoded_pictures_wait(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the encoder, threads do not fill the memory with decoded pictures."""
    from looktwice.indexing import reading

    save_pictures(made.folder, 60)
    monkeypatch.setattr(prefetch, "AHEAD_PIXELS", 64 * 4)  # pictures of 8 x 8
    begun = []
    load = reading.load
    monkeypatch.setattr(reading, "load", lambda *one: (begun.append(1), load(*one))[1])
    plan = [(source, None) for source in scan([made.folder])]
    for taken, _ in enumerate(reading.load_ahead(plan, threads=3), 1):
        time.sleep(0.005)
        assert len(begun) - taken <= 5 + 3  # five are over the limit, and each thread may have begun one more
    assert taken == len(begun) == 60


def test_reading_stops_with_the_run(made: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for room must not keep the process alive when the encoder has failed."""
    from looktwice.indexing import reading

    save_pictures(made.folder, 60)
    monkeypatch.setattr(prefetch, "AHEAD_PIXELS", 64)
    before = active_count()
    stream = reading.load_ahead([(source, None) for source in scan([made.folder])], threads=3)
    next(stream)
    stream.close()
    assert active_count() == before


def test_sources_of_ones_own(made: Collection) -> None:
    own = [Source(str(n), "", "", f"word {n}", {"year": n}, has_image=False) for n in range(5)]
    assert index(made.table, own, ColourEncoder()).added == 5
    assert index(made.table, own, ColourEncoder()).unchanged == 5


def test_not_utf8_names_are_indexed_and_read_again(made: Collection) -> None:
    raw = os.fsencode(made.folder) + b"/caf\xe9.png"
    Path(os.fsdecode(raw)).write_bytes(picture("red"))
    assert made.index().added == 1
    (row,) = made.table.get(["//caf%E9.png"])
    assert sources.read_uri(row.uri, sha256=row.sha256) == picture("red")


def test_orientation_reaches_the_encoder(made: Collection) -> None:
    upper_red = Image.new("RGB", (8, 8), "blue")
    upper_red.paste("red", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3
    upper_red.rotate(180).save(made.folder / "a.png", exif=exif)
    made.index()
    assert np.allclose(made.table.get(["a.png"])[0].vector[:6], [0.5, 0, 0, 0.5, 0, 0])


def test_seen_and_hashes() -> None:
    seen = SeenIds()
    assert seen.add("it's", "u") is None and seen.add("it's", "v") == "u"
    assert "it's" in seen and "its" not in seen
    seen.close()
    sums = [f"{n * 7919:064x}"[::-1] for n in range(100)]
    hashes = Hashes(sums[:50])
    hashes.add(sums[50:75])
    assert [one in hashes for one in sums] == [True] * 75 + [False] * 25
    assert sums[0] not in Hashes()


def test_no_room_for_temporary_files_is_said() -> None:
    seen = SeenIds()
    seen._database.execute("PRAGMA max_page_count = 8")
    with pytest.raises(StoreError, match="SQLITE_TMPDIR"):
        for number in range(100_000):
            seen.add(f"id {number}", "file:///somewhere")
    seen.close()


def test_hashes_grow_in_order_and_quickly() -> None:
    zero, *sums = ["0" * 64, *(f"{number * 2654435761 % 2**64:016x}{number:048x}" for number in range(400))]
    hashes = Hashes(sums[:100])
    hashes.add([zero, *sums[50:300], *sums[:9]])
    hashes.add([sums[301], zero])
    assert all(one in hashes for one in [zero, *sums[:300], sums[301]]) and sums[300] not in hashes
    assert np.all(np.diff(hashes._known.astype(object)) > 0)
    hashes._known = np.arange(4_000_000, dtype=np.uint64) << np.uint64(20)
    begin = time.perf_counter()
    hashes.add(sums)
    assert time.perf_counter() - begin < 1  # a union of all took ten times that
