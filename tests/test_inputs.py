"""What a query or document may be, and how it is told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from looktwice.errors import UsageError
from looktwice.search.inputs import as_candidate, as_item, ends_like_image, looks_like_path
from looktwice.sources.loader import CandidateRef
from looktwice.types import Item


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a photo.png"
    Image.new("RGB", (4, 2), (10, 20, 30)).save(path)
    return path


def test_pictures_in_every_form_are_the_same_picture(photo: Path) -> None:
    forms = [
        photo,
        str(photo),
        {"image": photo},
        {"image": str(photo)},
        Image.open(photo),
        {"image": Image.open(photo)},
    ]
    pixels = [np.asarray(as_item(form, "q").image) for form in forms]
    assert all((p == pixels[0]).all() for p in pixels)
    assert as_item(photo, "q").sha256 == as_item(str(photo), "q").sha256 is not None


def test_texts_and_both(photo: Path) -> None:
    assert as_item("a red bicycle", "q") == Item("q", text="a red bicycle")
    assert as_item({"text": "cup.jpg"}, "q") == Item("q", text="cup.jpg")
    both = as_item({"image": photo, "text": "but at night"}, "q")
    assert both.image is not None and both.text == "but at night"


def test_pictures_in_memory_are_treated_like_files() -> None:
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert np.asarray(as_item(clear, "q").image).tolist() == [[[255, 255, 255]] * 2] * 2
    turned = Image.new("RGB", (6, 2))
    turned.getexif()[0x0112] = 6
    upright = as_item(turned, "q").image
    assert upright is not None and upright.size == (2, 6)
    white = as_item(Image.new("I;16", (1, 1), 65535), "q").image
    assert white is not None and white.getpixel((0, 0)) == (255, 255, 255)


def test_a_misspelt_key_is_refused_whatever_else_the_dict_holds(photo: Path) -> None:
    for convert in (as_item, as_candidate):
        for value in ({"image": str(photo), "txt": "red"}, {"image": None}, {}):
            with pytest.raises(UsageError, match="and no other key"):
                convert(value, "it")


def test_a_url_is_named_as_what_it_is() -> None:
    with pytest.raises(UsageError, match="is a URL, and query images are not fetched"):
        as_item("https://example.org/a.jpg", "the query")
    with pytest.raises(UsageError, match="is a URL, and URLs of documents are not fetched"):
        as_candidate("https://example.org/a.jpg", "document 1")


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(UsageError, match="no pixels"):
        as_item(Image.new("RGB", (0, 5)), "the query")


@pytest.mark.parametrize(
    "value", ["gone.jpg", Path("gone.jpg"), {"image": "gone.jpg"}, {"image": "gone.jpg", "text": "x"}]
)
def test_a_mistyped_path_is_never_a_text(value: object) -> None:
    with pytest.raises(UsageError, match=r"gone\.jpg"):
        as_item(value, "the query")
    with pytest.raises(UsageError, match=r"gone\.jpg"):
        as_candidate(value, "document 3")


@pytest.mark.parametrize("value", [None, 3, [], b"bytes", {}, {"text": ""}, {"text": 5}, {"url": "x"}, "", " \n"])
def test_what_is_neither_is_refused_by_name(value: object) -> None:
    for convert in (as_item, as_candidate):
        with pytest.raises(UsageError, match="document 7"):
            convert(value, "document 7")


def test_documents_that_are_files_are_read_later(photo: Path) -> None:
    entry = as_candidate(photo, "3")
    assert isinstance(entry, CandidateRef) and entry.uri is not None and entry.uri.endswith("a%20photo.png")
    photo.write_bytes(b"")  # found out when its turn comes, not here
    both = as_candidate({"image": str(photo), "text": "words"}, "4")
    assert isinstance(both, CandidateRef) and both.text == "words"


@pytest.mark.parametrize("value", ["caf\udce9", {"text": "caf\udce9"}, Item("q", text="caf\udce9")])
def test_half_characters_are_no_words(value: object) -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        as_item(value, "query")


def test_a_device_without_an_end_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.search.inputs.MAX_BYTES", 1000)
    with pytest.raises(UsageError, match="too-large"):
        as_item(Path("/dev/zero"), "query")


def test_what_looks_like_a_path_on_the_command_line() -> None:
    paths = [
        "x.jpg",
        "a b.WEBP",
        "dir/x",
        "./x",
        "../x y",
        "/a b",
        "~/x",
        "x.heic",
        "list.jsonl",
        "https://a.b/c",
        "C:/x",
    ]
    words = ["red", "a red bicycle", "red and/or blue", "St. Ives", "what is 3.5", "Nr. 5", "ends here.", "猫", "a.b c"]
    assert [p for p in paths if not looks_like_path(p)] == []
    assert [w for w in words if looks_like_path(w)] == []


@given(st.text(min_size=1, max_size=30), st.sampled_from([".jpg", ".PNG", ".avif"]))
def test_whatever_ends_like_a_picture_looks_like_a_path(name: str, suffix: str) -> None:
    if ends_like_image(name + suffix):
        assert looks_like_path(name + suffix)
