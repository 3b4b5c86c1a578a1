"""What cameras wrote becomes metadata and columns; nothing that is broken in it stops an image."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from colour_encoder import ColourEncoder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from looktwice.indexing import index
from looktwice.sources import exif, scan
from looktwice.store import Table


def written(kind: str = "JPEG", **more: Any) -> bytes:
    """A photo of a camera, as it would be written; `more` replaces values of tags by number, such as t36867."""
    tags = Image.Exif()
    values = {271: "Canon", 272: "Canon EOS R5\0", 306: "2024:07:01 09:00:00"}
    inner = {36867: "2024:06:30 12:34:56", 42036: "RF 24-70mm"}
    gps = {1: "S", 2: (33.0, 52.0, 7.5), 3: "E", 4: (151.0, 12.0, 36.0)}
    changed = {int(name[1:]): value for name, value in more.items()}
    for number, value in {**values, **{n: v for n, v in changed.items() if n in values}}.items():
        tags[number] = value
    tags.get_ifd(0x8769).update({**inner, **{n: v for n, v in changed.items() if n in inner}})
    tags.get_ifd(0x8825).update({**gps, **{n: v for n, v in changed.items() if n in gps}})
    out = io.BytesIO()
    Image.new("RGB", (32, 24), "teal").save(out, kind, exif=tags)
    return out.getvalue()


def with_keywords(jpeg: bytes, *words: bytes) -> bytes:
    """A JPEG with IPTC keywords: a segment APP13 with Photoshop's resource 0x0404."""
    records = b"".join(b"\x1c\x02\x19" + len(word).to_bytes(2) + word for word in words)
    resource = b"8BIM\x04\x04\0\0" + len(records).to_bytes(4) + records + b"\0" * (len(records) % 2)
    segment = b"Photoshop 3.0\0" + resource
    return jpeg[:2] + b"\xff\xed" + (len(segment) + 2).to_bytes(2) + segment + jpeg[2:]


CAMERA = {
    "taken": "2024-06-30T12:34:56",
    "camera": "Canon EOS R5",
    "lens": "RF 24-70mm",
    "latitude": pytest.approx(-33.8687500),
    "longitude": pytest.approx(151.21),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_a_camera_wrote_is_read(kind: str) -> None:
    assert exif.from_bytes(written(kind)) == CAMERA


def test_a_tiff_of_a_camera_is_read() -> None:
    """Pillow writes the first directory only; the EXIF block of a JPEG is a whole TIFF, but for its image."""
    assert exif.from_bytes(written("TIFF")) == {"taken": "2024-07-01T09:00:00", "camera": "Canon EOS R5"}


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_phones_photo_is_opened_in_a_process_of_its_own(kind: str) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = written(kind)
    assert exif.metadata(data, "memory:x") == {"file_size": len(data), **CAMERA}


def test_keywords_and_dates_by_name() -> None:
    assert exif.from_bytes(with_keywords(written(), b"beach", "été".encode()))["keywords"] == "beach, été"
    assert exif.from_bytes(with_keywords(written(), b"one"))["keywords"] == "one"
    assert exif.from_bytes(written(t36867=""))["taken"] == "2024-07-01T09:00:00"
    assert exif.from_bytes(written(t271="Apple", t272="iPhone 15"))["camera"] == "Apple iPhone 15"


@pytest.mark.parametrize(
    "odd",
    [
        {"t36867": "yesterday", "t306": "0000:00:00 00:00:00"},
        {"t2": (500.0, 0.0, 0.0)},
        {"t4": (1.0,)},
        {"t272": "\0 "},
    ],
)
def test_an_odd_value_is_left_out_alone(odd: dict[str, Any]) -> None:
    found = exif.from_bytes(written(**odd))
    assert found["lens"] == "RF 24-70mm" and len(found) >= 3


@given(st.binary(max_size=200), st.integers(0, 400))
def test_damage_never_raises(noise: bytes, place: int) -> None:
    whole = written()
    found = exif.metadata(whole[:place] + noise + whole[place + len(noise) :], "memory:x")
    assert {type(value) for value in found.values()} <= {str, float, int}


def test_columns_filters_and_what_stays(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(with_keywords(written(), b"beach"))
    (folder / "b.jpg").write_bytes(written(t36867="2023:01:01 00:00:00"))
    Image.new("RGB", (8, 8), "red").save(folder / "c.png")
    os.utime(folder / "c.png", (1_700_000_000, 1_700_000_000))
    table = Table.create(tmp_path / "t.lt", ColourEncoder().info)
    assert index(table, scan([folder]), ColourEncoder()).added == 3
    assert table.get(["a.jpg"])[0].metadata == {}
    table.add_columns(exif.COLUMNS)
    report = index(table, scan([folder]), ColourEncoder())
    assert (report.updated, report.metadata_only, report.encoded) == (3, 3, 0)
    assert index(table, scan([folder]), ColourEncoder()).unchanged == 3
    found = {
        "taken > '2024-06-01'": ["a.jpg"],
        "keywords LIKE '%beach%'": ["a.jpg"],
        "latitude BETWEEN -34 AND -33": ["a.jpg", "b.jpg"],
        "file_time < '2024'": ["c.png"],
        "camera IS NULL": ["c.png"],
    }
    for where, names in found.items():
        assert sorted(row["id"] for row in table.rows(where=where)) == names, where
    table.upsert([{"id": "c.png", "metadata": {"stars": 5}}]) if table.encoder else None
    table.encoder = ColourEncoder()
    table.upsert([{"id": "c.png", "metadata": {"stars": 5, "camera": "none"}}])
    assert index(table, scan([folder]), ColourEncoder()).updated == 1
    kept = table.get(["c.png"])[0].metadata
    assert kept["stars"] == 5 and "camera" not in kept and kept["file_time"] == "2023-11-14T22:13:20Z"
