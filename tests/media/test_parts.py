"""Pages of PDFs, frames of videos, raw files and JPEG XL; and what is passed over in folders."""

from __future__ import annotations

import io
import struct
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from by_hand import tiff
from PIL import Image

from looktwice.errors import MediaError, UsageError
from looktwice.sources import Source, Unreadable, images, read_uri, scan
from looktwice.sources.formats import EXTRAS, PDF, RAW, VIDEO, Extra
from looktwice.sources.reading import Reading

RED, GREEN, BLUE = (200, 30, 30), (30, 180, 30), (30, 30, 200)


def met(*paths: Path, **options: object) -> list[Source | Unreadable]:
    return list(scan(paths, **options))


def ids(*paths: Path, **options: object) -> list[str]:
    return [one.id for one in met(*paths, **options) if isinstance(one, Source)]


def colour(source: Source) -> np.ndarray:
    return np.asarray(images.load(source.read())[0]).reshape(-1, 3).mean(0)


def make_pdf(path: Path, *colours: tuple[int, int, int]) -> Path:
    first, *rest = (Image.new("RGB", (200, 100), one) for one in colours)
    first.save(path, "PDF", save_all=True, append_images=rest)
    return path


def make_video(path: Path, seconds: int, turn: int = 0) -> Path:
    """Five frames a second; red, then green from the middle on."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(seconds * 5):
            shade = RED if number < seconds * 5 / 2 else GREEN
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no extra were installed."""
    monkeypatch.setattr(Extra, "installed", property(lambda self: False))


def test_every_page_is_an_item(tmp_path: Path) -> None:
    make_pdf(tmp_path / "a.PDF", RED, BLUE)
    one, two = met(tmp_path)
    assert [one.id, two.id] == ["a.PDF#page=1", "a.PDF#page=2"]
    assert one.uri.endswith("/a.PDF#page=1") and images.load(one.read())[1] == (1600, 800)
    assert np.abs(colour(one) - RED).max() < 8 and np.abs(colour(two) - BLUE).max() < 8
    assert one.read() == read_uri(one.uri)  # the same bytes again, by which an item is known
    with pytest.raises(MediaError, match="missing"):
        read_uri(one.uri.replace("page=1", "page=3"))


def test_frames_are_items(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", 8)
    assert ids(tmp_path) == ["clip.mp4#t=0.0"]
    found = met(tmp_path, every=3)
    assert [one.id for one in found] == ["clip.mp4#t=0.0", "clip.mp4#t=3.0", "clip.mp4#t=6.0"]
    assert np.abs(colour(found[0]) - RED).max() < 20 and np.abs(colour(found[2]) - GREEN).max() < 20
    with pytest.raises(UsageError, match=r"0\.1 seconds"):
        scan([tmp_path], every=0)


def make_scenes(path: Path, codec: str = "libx264") -> Path:
    """A camera that pans over three scenes of noise, cut at 2.4 and 5 s, with a flash of half a second at 7 s."""
    import av

    dice = np.random.default_rng(0)
    scenes = [np.kron(dice.integers(0, 256, (12, 40, 3), np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(5)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(90):
            scene = scenes[sum(number >= cut for cut in (24, 50, 70, 75))]
            shown = np.ascontiguousarray(scene[:, number : number + 128])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9")])
def test_the_first_frame_of_each_scene_is_an_item(tmp_path: Path, name: str, codec: str) -> None:
    make_scenes(tmp_path / name, codec)
    assert ids(tmp_path) == [f"{name}#t=0.0"]
    found = met(tmp_path, scenes=True)
    assert [one.id.partition("#t=")[2] for one in found] == ["0.0", "2.4", "5.0", "7.5"]
    shown = [np.asarray(images.load(one.read())[0]).astype(int) for one in found]
    assert all(np.abs(one - other).mean() > 40 for one, other in combinations(shown, 2))
    both = met(tmp_path, scenes=True, every=5)
    assert [one.id.partition("#t=")[2] for one in both] == ["0.0", "2.4", "5.0", "7.5"]


def test_looking_for_scenes_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from looktwice.sources.decoding import video

    path = str(make_scenes(tmp_path / "a.mp4"))
    whole, end = video.cuts(path, 0.0)
    assert end is None and [round(cut, 1) for cut in whole] == [2.4, 5.0, 7.0, 7.5]
    monkeypatch.setattr(video, "LOOK_SECONDS", -1.0)
    parts, start = list[float](), 0.0
    while start is not None:
        found, start = video.cuts(path, start)
        parts += found
    assert parts == whole


def test_damaged_documents_are_one_line_each(tmp_path: Path) -> None:
    make_pdf(tmp_path / "a.pdf", RED)
    (tmp_path / "a.pdf").write_bytes((tmp_path / "a.pdf").read_bytes()[:200])
    (tmp_path / "b.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"x" * 500)
    (tmp_path / "c.pdf").write_bytes(b"")
    found = met(tmp_path)
    assert [one.reason for one in found] == ["corrupt"] * 3 and all(one.hides == f"{one.uri}#" for one in found)


def test_more_pages_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.sources.parts.MOST_PARTS", 2)
    make_pdf(tmp_path / "a.pdf", RED, GREEN, BLUE)
    *pages, rest = met(tmp_path)
    assert len(pages) == 2 and rest.reason == "too-many"


def test_kinds_without_their_extra_are_listed_with_the_line_that_installs_it(tmp_path: Path, lacking: None) -> None:
    for name in ("a.pdf", "b.mov", "c.dng", "d.jxl", "e.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = met(tmp_path)
    assert [one.reason for one in found] == ["needs-pdf", "needs-video", "needs-raw", "needs-jxl"]
    assert all(f"pip install 'looktwice[{one.reason[6:]}]'" in one.detail for one in found)


def test_content_decides_whatever_the_suffix_says(tmp_path: Path, lacking: None) -> None:
    import pillow_jxl  # noqa: F401

    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JXL")
    with pytest.raises(MediaError, match="needs-jxl"):
        images.load(out.getvalue())
    with pytest.raises(MediaError, match="needs-raw"):
        images.load(b"FUJIFILMCCD-RAW 0201" + bytes(100))


def test_jxl() -> None:
    import pillow_jxl  # noqa: F401

    out = io.BytesIO()
    Image.new("RGB", (400, 300), RED).save(out, "JXL", lossless=True)
    image, size = images.load(out.getvalue(), Reading(side=50))
    assert (image.size, size) == ((133, 100), (400, 300)) and image.getpixel((0, 0)) == RED
    with pytest.raises(MediaError):
        images.load(out.getvalue()[:20])


@pytest.mark.parametrize(("orientation", "turned"), [(1, False), (3, False), (6, True), (8, True)])
def test_raw_files_are_developed_upright(orientation: int, turned: bool) -> None:
    image, size = images.load(dng(orientation=orientation))
    assert image.size == size == ((48, 64) if turned else (64, 48))
    red, green, blue = image.getpixel((20, 20))
    assert red > 200 and max(green, blue) < 150
    whole, size = images.load(dng((640, 480)), Reading(side=40))
    assert size == (640, 480) and whole.size == (107, 80)


def test_damaged_raw_files_have_a_reason() -> None:
    for data in (dng()[:2000], b"FUJIFILMCCD-RAW 0201" + bytes(100)):
        with pytest.raises(MediaError) as caught:
            images.load(data)
        assert caught.value.reason in images.REASONS


def dng(size: tuple[int, int] = (64, 48), orientation: int = 1) -> bytes:
    """A raw file as small as LibRaw reads it: an RGGB mosaic of one red, 16 bits, no preview."""
    mosaic = np.full((size[1], size[0]), 3000, np.uint16)
    mosaic[::2, ::2] = 40_000
    return tiff(mosaic, 16, photometric=32803, more={**DNG, 274: (3, [orientation])})


DNG = {
    254: (4, [0]),
    33421: (3, [2, 2]),
    33422: (1, [0, 1, 1, 2]),
    50706: (1, [1, 4, 0, 0]),
    50717: (4, [65535]),
    50721: (10, [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]),
}


def with_preview(raw: bytes, size: tuple[int, int]) -> bytes:
    """The same raw file with a blue JPEG of this size in a second directory, as cameras write their previews."""
    out = io.BytesIO()
    Image.new("RGB", size, BLUE).save(out, "JPEG", quality=95)
    jpeg, start = out.getvalue(), len(raw)
    bits = start + len(jpeg) + len(jpeg) % 2
    values = {254: 1, 256: size[0], 257: size[1], 258: bits, 259: 7, 262: 6, 273: start, 277: 3, 278: size[1]}
    entries = {**{tag: (1, value) for tag, value in values.items()}, 258: (3, bits), 279: (1, len(jpeg))}
    kind = {258: 3}
    body = b"".join(
        struct.pack("<HHII", tag, kind.get(tag, 4), count, value) for tag, (count, value) in sorted(entries.items())
    )
    first = int.from_bytes(raw[4:8], "little")
    link = first + 2 + 12 * int.from_bytes(raw[first : first + 2], "little")
    whole = bytearray(raw + jpeg + bytes(len(jpeg) % 2) + struct.pack("<HHH", 8, 8, 8))
    whole[link : link + 4] = struct.pack("<I", len(whole))
    return bytes(whole) + struct.pack("<H", len(entries)) + body + bytes(4)


@pytest.mark.parametrize(
    ("preview", "side", "used"),
    [((1600, 1200), None, True), ((640, 480), None, False), ((640, 480), 224, True), ((320, 240), 224, False)],
)
def test_the_preview_of_a_raw_file_is_used_if_it_is_large_enough(
    preview: tuple[int, int], side: int | None, used: bool
) -> None:
    image, size = images.load(with_preview(dng((2000, 1500)), preview), Reading(side=side))
    red, _, blue = image.getpixel((20, 20))
    assert size == (2000, 1500) and (blue > red) == used
    turned, size = images.load(with_preview(dng((2000, 1500), orientation=6), preview), Reading(side=side))
    assert size == (1500, 2000) and turned.width < turned.height


def test_raw_data_that_is_missing_is_no_black_image() -> None:
    """LibRaw fills it with zeros and says nothing."""
    for rows in (0, 36):
        mosaic = np.zeros((48, 64), np.uint16)
        mosaic[:rows] = 3000
        with pytest.raises(MediaError) as caught:
            images.load(tiff(mosaic, 16, photometric=32803, more=DNG))
        assert caught.value.reason == "truncated", caught.value


def test_a_dng_is_no_tiff() -> None:
    assert "needs" not in RAW.kind
    from looktwice.sources import formats

    assert formats.is_raw(dng())
    assert not formats.is_raw(tiff(np.zeros((4, 4), np.uint8), 8))


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" + name.encode())
    return folder


def test_thumbnails_of_programs_are_passed_over(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "@eaDir/a.jpg",
        ".thumbnails/a.jpg",
        "._a.jpg",
        "x/Cat Previews.lrdata/1.jpg",
        "#recycle/a.jpg",
        "a.jpg",
    )
    assert ids(tmp_path) == ["a.jpg"]


def test_exclude(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "b.png", "old/c.jpg", "old/d/e.jpg", "new/old/f.jpg", "new/g.png", "new/h.jpg")
    assert ids(tmp_path, exclude=["*.png", "/old/"]) == ["a.jpg", "new/h.jpg", "new/old/f.jpg"]
    assert ids(tmp_path, exclude=["*.jpg", "!h.jpg"]) == ["b.png", "new/g.png", "new/h.jpg"]
    with pytest.raises(UsageError, match="list"):
        scan([tmp_path], exclude="*.png")


def test_ignore_files_count_for_their_folder_and_below(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "x/a.jpg", "x/b.jpg", "x/y/a.jpg", "z/a.jpg")
    (tmp_path / "x" / ".looktwiceignore").write_text("# not these\na.jpg\n")
    found = scan([tmp_path])
    for _ in range(2):
        assert [one.id for one in found] == ["a.jpg", "x/b.jpg", "z/a.jpg"]


def test_every_extra_has_a_reason_and_an_install_line() -> None:
    assert {extra.reason for extra in EXTRAS} <= set(images.REASONS)
    assert PDF.install == "pip install 'looktwice[pdf]'" and VIDEO.parts and not RAW.parts


def test_a_pdf_of_a_billion_pages(tmp_path: Path) -> None:
    make_pdf(tmp_path / "a.pdf", RED, RED)
    data = (tmp_path / "a.pdf").read_bytes()
    assert b"/Count 2" in data
    (tmp_path / "a.pdf").write_bytes(data.replace(b"/Count 2", b"/Count 1000000000"))
    found = met(tmp_path)
    assert 1 <= len(found) <= 10_001
    readable = [one for one in found[:4] if isinstance(one, Source)]
    for one in readable[2:]:
        with pytest.raises(MediaError):
            images.load(one.read())


def test_a_video_that_ends_before_its_stated_length(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 3)
    (source,) = met(tmp_path)
    assert read_uri(source.uri.replace("t=0.0", "t=2.9"))
    with pytest.raises(MediaError, match="truncated"):
        read_uri(source.uri.replace("t=0.0", "t=1000.0"))


def test_a_file_without_a_video(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (found,) = met(tmp_path)
    assert isinstance(found, Unreadable) and found.reason == "empty"


def test_a_telephones_folder_has_no_unexplained_skip(tmp_path: Path) -> None:
    """HEIC, live photos, edits and their notes, copies, and two folders with the same names."""
    import pillow_heif

    from looktwice import Retriever, Table, index
    from looktwice.testing import ColorEncoder

    pillow_heif.register_heif_opener()
    for folder, shade in (("100APPLE", RED), ("101APPLE", BLUE)):
        place = tmp_path / folder
        place.mkdir()
        for name in ("IMG_0001.HEIC", "IMG_E0001.HEIC", "IMG_0001 copy.heic"):
            Image.new("RGB", (64, 48), shade).save(place / name, "HEIF")
        Image.new("RGB", (64, 48), shade).save(place / "IMG_0002.JPG", "HEIF")  # a wrong suffix
        make_video(place / "IMG_0001.MOV", 2)
        (place / "IMG_0001.AAE").write_text("<?xml version='1.0'?>")
    table = Table.create(tmp_path / "t.lt", ColorEncoder.info)
    report = index(table, scan([tmp_path / "100APPLE", tmp_path / "101APPLE"]), ColorEncoder())
    assert (report.added, report.failed, report.ignored, report.skipped) == (10, 0, {".aae": 2}, {})
    found = Retriever(table, ColorEncoder()).search(tmp_path / "101APPLE" / "IMG_0001.HEIC", k=4).hits
    assert len(found) == 4 and all(hit.id.startswith("101APPLE~") for hit in found)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.webm", "a.mpg", "a.m2ts"])
def test_containers(tmp_path: Path, name: str) -> None:
    import av

    codec = {"a.webm": "libvpx", "a.mpg": "mpeg2video", "a.avi": "mpeg4"}.get(name, "libx264")
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), RED, np.uint8), "rgb24")))
        container.mux(stream.encode())
    (source,) = met(tmp_path)
    assert np.abs(colour(source) - RED).max() < 20


def test_playlists_are_no_videos(tmp_path: Path) -> None:
    make_video(tmp_path / "other.mov", 2)
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile other.mov\n")
    (tmp_path / "b.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{tmp_path}/other.mov\n#EXT-X-ENDLIST\n"
    )
    found = [one for one in met(tmp_path) if isinstance(one, Unreadable)]
    assert [one.reason for one in found] == ["corrupt", "corrupt"]
