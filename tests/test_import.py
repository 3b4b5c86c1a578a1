"""Import of vectors that exist."""

from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from looktwice import Retriever, Table
from looktwice.cli.main import app
from looktwice.errors import Mismatch, UnknownName, UsageError
from looktwice.indexing.importing import ImportReport, import_vectors
from looktwice.sources import images
from looktwice.testing import ColorEncoder
from looktwice.types import Item


@pytest.fixture
def rows(pictures: Path) -> dict[str, list[object]]:
    """The twelve pictures with their vectors, not of unit length, and a row that has no file."""
    paths = sorted(path.name for path in pictures.glob("*.png"))
    loaded = [Item(name, images.load((pictures / name).read_bytes())[0]) for name in paths]
    vectors = ColorEncoder().encode(loaded) * 3
    return {
        "image_path": [*paths, "gone/x.png"],
        "caption": [*(f"a {name.partition('-')[0]} square" for name in paths), "lost"],
        "year": list(range(13)),
        "embedding": [*vectors.tolist(), vectors[0].tolist()],
    }


def new(tmp_path: Path) -> Table:
    return Table.create(tmp_path / "t.lt", ColorEncoder.info)


def check(table: Table, report: ImportReport, pictures: Path) -> None:
    assert (report.imported, report.images, report.failed) == (13, 12, 0) and report.compared == 4
    best = Retriever(table, ColorEncoder()).search(pictures / "green-1.png", k=1).hits[0]
    (row,) = table.get([best.id])
    assert row.text == "a green square" and "/green-" in row.uri and row.width > 0
    assert abs(best.coarse - 1) < 1e-3 and row.metadata["year"] in (3, 4, 5)
    (lost,) = [one for one in table.get([row["id"] for row in table.rows()]) if one.text == "lost"]
    assert lost.width == 0 and lost.metadata["image"] == "gone/x.png" and lost.uri == ""


def test_parquet(tmp_path: Path, pictures: Path, rows: dict[str, list[object]]) -> None:
    pq.write_table(pa.table(rows), pictures / "all.parquet")
    table = new(tmp_path)
    check(table, import_vectors(table, pictures / "all.parquet", ColorEncoder()), pictures)
    assert sorted(row["id"] for row in table.rows())[0] == "000000000"
    again = import_vectors(table, pictures / "all.parquet", ColorEncoder(), {"id": "year"})
    assert again.imported == 13 and len(table) == 26


def test_images_may_be_file_uris_as_export_writes_them(
    tmp_path: Path, pictures: Path, rows: dict[str, list[object]]
) -> None:
    rows["image_path"] = [(pictures / str(name)).as_uri() for name in rows["image_path"]]
    pq.write_table(pa.table(rows), tmp_path / "all.parquet")
    report = import_vectors(new(tmp_path), tmp_path / "all.parquet", ColorEncoder())
    assert (report.imported, report.images, report.compared) == (13, 12, 4)


def test_one_column_may_be_id_image_and_text(tmp_path: Path, pictures: Path, rows: dict[str, list[object]]) -> None:
    pq.write_table(pa.table(rows), pictures / "all.parquet")
    table = new(tmp_path)
    report = import_vectors(table, pictures / "all.parquet", ColorEncoder(), {"id": "image_path", "text": "image_path"})
    assert (report.imported, report.images) == (13, 12)
    (row,) = table.get(["green-1.png"])
    assert row.uri.endswith("/green-1.png") and row.width > 0 and row.text == "green-1.png"
    assert row.metadata.keys() == {"caption", "year"}


def test_a_folder_of_parquet_files(tmp_path: Path, pictures: Path, rows: dict[str, list[object]]) -> None:
    whole = pa.table(rows)
    pq.write_table(whole.slice(0, 5), pictures / "0.parquet")
    pq.write_table(whole.slice(5), pictures / "1.parquet")
    table = new(tmp_path)
    check(table, import_vectors(table, pictures, ColorEncoder()), pictures)


def test_clip_retrieval(tmp_path: Path, pictures: Path, rows: dict[str, list[object]]) -> None:
    vectors = np.array(rows.pop("embedding"), np.float16)
    (pictures / "img_emb").mkdir()
    (pictures / "metadata").mkdir()
    for number, part in enumerate((slice(0, 4), slice(4, 13))):
        np.save(pictures / "img_emb" / f"img_emb_{number}.npy", vectors[part])
        pq.write_table(pa.table(rows)[part.start : part.stop], pictures / "metadata" / f"metadata_{number}.parquet")
    table = new(tmp_path)
    check(table, import_vectors(table, pictures, ColorEncoder()), pictures)
    pq.write_table(pa.table(rows)[4:12], pictures / "metadata" / "metadata_1.parquet")
    with pytest.raises(UsageError, match=r"has 9 vectors, metadata_1\.parquet only 8 rows"):
        import_vectors(table, pictures, ColorEncoder())
    (pictures / "metadata" / "metadata_1.parquet").unlink()
    with pytest.raises(UsageError, match=r"metadata_1\.parquet"):
        import_vectors(table, pictures, ColorEncoder())


def test_lancedb(tmp_path: Path, pictures: Path, rows: dict[str, list[object]]) -> None:
    vectors = pa.array(rows.pop("embedding"), pa.list_(pa.float32(), 8))
    lancedb.connect(pictures).create_table("mine", pa.table(rows).append_column("vector", vectors))
    table = new(tmp_path)
    check(table, import_vectors(table, pictures / "mine.lance", ColorEncoder()), pictures)


def test_vectors_of_another_model_are_refused(tmp_path: Path, pictures: Path, rows: dict[str, list[object]]) -> None:
    rows["embedding"] = rows["embedding"][::-1]
    pq.write_table(pa.table(rows), pictures / "a.parquet")
    with pytest.raises(Mismatch, match="not that of colors"):
        import_vectors(new(tmp_path), pictures / "a.parquet", ColorEncoder())
    rows["embedding"] = [[1.0, 2.0]] * 13
    pq.write_table(pa.table(rows), pictures / "a.parquet")
    with pytest.raises(Mismatch, match="2 numbers"):
        import_vectors(Table.open(tmp_path / "t.lt"), pictures / "a.parquet", ColorEncoder())


def test_rows_that_cannot_be_imported_are_counted(tmp_path: Path) -> None:
    nothing = [[float("nan")] * 8, [0.0] * 8, [1.0] * 8, [1.0] * 8]
    pq.write_table(pa.table({"id": [1, 2, 3, 3], "vector": nothing, "x": [1.5, float("inf"), 2.0, 3.0]}), "a.parquet")
    report = import_vectors(new(tmp_path), Path("a.parquet"), ColorEncoder())
    assert (report.imported, report.failed) == (1, 3)
    assert report.reasons == {"no-direction": 2, "duplicate-id": 1}


DAMAGED_TEXT = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("columns", "names", "error", "says"),
    [
        ({"id": [1]}, {}, UsageError, "No column is called vector"),
        ({"vector": [[1.0] * 8]}, {"vector": "v"}, UnknownName, "--vector"),
        ({"vector": [[1.0] * 8]}, {"text": "v"}, UnknownName, "--text"),
        ({"vector": [[1.0], [1.0, 2.0]]}, {}, UsageError, "vectors of one length"),
        ({"vector": ["a"]}, {}, UsageError, "vectors of one length"),
        ({"vector": [[1.0] * 7, [1.0] * 9]}, {}, UsageError, "vectors of one length"),
        ({"vector": [[], []]}, {}, UsageError, "vectors of one length"),
        ({"vector": [[1.0] * 8], "day": pa.array([2**30], pa.date32())}, {}, UsageError, "cannot be read"),
        ({"vector": [[1.0] * 8], "text": DAMAGED_TEXT}, {}, UsageError, "cannot be read"),
    ],
)
def test_columns(
    tmp_path: Path, columns: dict[str, list[object]], names: dict[str, str], error: type, says: str
) -> None:
    pq.write_table(pa.table(columns), "a.parquet")
    with pytest.raises(error, match=says):
        import_vectors(new(tmp_path), Path("a.parquet"), ColorEncoder(), names)


def test_a_row_without_a_vector_takes_no_other_rows(tmp_path: Path) -> None:
    """Two vectors of eight are one too many for one of two rows, and yet sixteen numbers."""
    vectors = pa.array([None, [1.0] * 8, [1.0] * 7 + [None]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": ["a", "b", "c"], "vector": vectors, "image": ["x" * 5000] * 3}), "a.parquet")
    table = new(tmp_path)
    report = import_vectors(table, Path("a.parquet"), ColorEncoder())
    assert report.reasons == {"no-direction": 2}
    assert table.get(["b"])[0].vector == pytest.approx(np.full(8, 8**-0.5), abs=1e-3)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array([[1.0] * 8])]
    pq.write_table(pa.Table.from_arrays(columns, ["id", "id", "vector"]), "a.parquet")
    with pytest.raises(UsageError, match="same name"):
        import_vectors(new(tmp_path), Path("a.parquet"), ColorEncoder())


@pytest.mark.parametrize(
    "data", [b"\x93NUMPY\x01\x00\x04\x00{'(\n", b"\x93NUMPY\x01\x00\x02\x00[\n", b"", b"\x80\x04."]
)
def test_a_damaged_numpy_file_is_refused(tmp_path: Path, data: bytes) -> None:
    for name in ("img_emb", "metadata"):
        (tmp_path / "clip" / name).mkdir(parents=True)
    (tmp_path / "clip" / "img_emb" / "img_emb_0.npy").write_bytes(data)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "clip" / "metadata" / "metadata_0.parquet")
    with pytest.raises(UsageError, match="cannot be read"):
        import_vectors(new(tmp_path), tmp_path / "clip", ColorEncoder())


def test_sources_of_other_kinds(tmp_path: Path) -> None:
    table = new(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"no")
    (tmp_path / "b.lance").mkdir()
    for source, says in (("a.parquet", "cannot be read"), ("b.lance", "cannot be read"), ("c", "does not exist")):
        with pytest.raises(UsageError, match=says):
            import_vectors(table, Path(source), ColorEncoder())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="not something to import"):
        import_vectors(table, Path("empty"), ColorEncoder())


def test_on_the_command_line(
    tmp_path: Path, pictures: Path, rows: dict[str, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("looktwice.encode.load_encoder", lambda name, **options: ColorEncoder())
    pq.write_table(pa.table(rows), pictures / "all.parquet")
    done = CliRunner().invoke(app, ["import", "t.lt", str(pictures / "all.parquet"), "--encoder", "colors"])
    assert done.exit_code == 0, done.output
    assert "13 imported, 12 with an image here, 0 left out" in done.stdout
