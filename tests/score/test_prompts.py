"""Prompts: the right parts in the right order, nothing ignored in silence, files read and refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from looktwice.errors import UnknownName, UsageError
from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Label, Prompt, Segment
from looktwice.types import Item

PICTURE = Image.new("RGB", (4, 3))
IMAGE = Item("i", image=PICTURE)
TEXT = Item("t", text="a red boat")
BOTH = Item("b", image=PICTURE, text="but at night")
KINDS = {"image": IMAGE, "text": TEXT, "both": BOTH}


def shape(prompt: Prompt, query: Item, candidate: Item) -> list[str]:
    return [piece.side if piece.text is None else "text" for piece in prompt.lay_out(query, candidate)]


@pytest.mark.parametrize("name", built_in.PROMPTS)
def test_every_built_in_prompt_is_short_and_reads_answers(name: str) -> None:
    prompt = built_in.get(name)
    words = " ".join(f"{s.before} {s.text} {s.after}" for s in prompt.segments).split()
    assert 10 < len(words) < 90
    assert {label.value for label in prompt.labels} >= {0.0, 1.0}
    assert prompt.name == name


def test_the_default_prompt_stays_within_seventy_words() -> None:
    assert len(built_in.get("object").segments[-1].text.split()) <= 70


def test_hashes_tell_questions_apart_and_ignore_the_name() -> None:
    assert len({p.hash for p in built_in.PROMPTS.values()}) == len(built_in.PROMPTS)
    one = built_in.get("object")
    assert Prompt("other name", one.segments, one.labels).hash == one.hash
    assert one.hash == "779061eb9621cc72", (
        "the bundled model was trained on this very prompt: retrain, then change this"
    )


@pytest.mark.parametrize(
    ("name", "query", "candidate", "expected"),
    [
        ("object", "image", "image", ["query", "candidate", "text"]),
        ("object", "image", "both", ["query", "candidate", "text"]),
        ("match", "text", "image", ["candidate", "text"]),
        ("match-query-first", "text", "image", ["text", "candidate", "text"]),
        ("caption", "image", "text", ["query", "text"]),
        ("composed", "both", "image", ["text", "query", "text", "candidate", "text"]),
        ("composed-query-first", "both", "both", ["text", "query", "text", "candidate", "text"]),
        ("mixed", "text", "text", ["text"]),
        ("mixed", "both", "both", ["text", "query", "text", "candidate", "text"]),
    ],
)
def test_layout(name: str, query: str, candidate: str, expected: list[str]) -> None:
    assert shape(built_in.get(name), KINDS[query], KINDS[candidate]) == expected


def test_published_order_shows_the_candidate_first_and_its_twin_the_query() -> None:
    assert not built_in.get("match").shares_query
    assert built_in.get("match-query-first").shares_query
    assert built_in.get("object").shares_query


def test_an_absent_optional_part_takes_its_frame_with_it() -> None:
    with_caption = built_in.get("composed").lay_out(BOTH, BOTH)
    without = built_in.get("composed").lay_out(BOTH, IMAGE)
    assert "caption" in str(with_caption) and "caption" not in str(without)


def test_texts_of_items_are_cleaned_and_the_prompt_is_not() -> None:
    pieces = built_in.get("match").lay_out(Item("q", text="x"), IMAGE, clean=lambda text: text.replace("x", "<clean>"))
    assert "<clean>" in str(pieces[-1].text) and "caption" in str(pieces[-1].text)


@pytest.mark.parametrize(
    ("name", "query", "candidate", "says"),
    [
        ("object", "text", "image", "match"),
        ("match", "image", "image", "object"),
        ("object", "both", "image", "composed"),
        ("object", "image", "text", "caption"),
        ("composed", "image", "image", "object"),
    ],
)
def test_a_prompt_that_does_not_fit_names_one_that_does(name: str, query: str, candidate: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        built_in.check(built_in.get(name), KINDS[query], KINDS[candidate])


@pytest.mark.parametrize("query", KINDS)
@pytest.mark.parametrize("candidate", KINDS)
def test_some_prompt_fits_every_pair(query: str, candidate: str) -> None:
    names = built_in.fitting(KINDS[query], KINDS[candidate])
    assert names
    for name in names:
        built_in.check(built_in.get(name), KINDS[query], KINDS[candidate])


def test_blank_text_is_no_text() -> None:
    with pytest.raises(UsageError, match="query's text"):
        built_in.check(built_in.get("match"), Item("q", text=" \n"), IMAGE)


BODY = {
    "segments": ["query.image", {"part": "candidate.image", "before": "then "}, "Same?"],
    "labels": [{"name": "no", "value": 0, "variants": ["no", "No"]}, {"name": "yes", "value": 1}],
}
TOML = """
name = "mine"
segments = ["query.image", {part = "candidate.image", before = "then "}, "Same?"]
labels = [{name = "no", value = 0, variants = ["no", "No"]}, {name = "yes", value = 1}]
"""


def test_toml_and_json_files_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML)
    (tmp_path / "b.json").write_text(json.dumps(BODY))
    a, b = built_in.get(tmp_path / "a.toml"), built_in.get(str(tmp_path / "b.json"))
    assert a.hash == b.hash and (a.name, b.name) == ("mine", "b")
    assert a.labels == (Label("no", 0.0, ("no", "No")), Label("yes", 1.0, ("yes",)))
    assert a.segments[1] == Segment(part="candidate.image", before="then ")


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "{",
        "{}",
        "7",
        "[" * 10**5,
        json.dumps({**BODY, "segments": 7}),
        json.dumps({**BODY, "segments": [7, None]}),
        json.dumps({**BODY, "segments": ["query.image", {"part": ["candidate.image"]}]}),
        json.dumps({**BODY, "segments": ["query.image", {"part": "candidate.image", "before": {"a": 1}}]}),
        json.dumps({**BODY, "labels": [7, 8]}),
        json.dumps({**BODY, "labels": {"a": 1}}),
        json.dumps({**BODY, "labels": [{"name": "a", "value": 10**400}, {"name": "b", "value": 0}]}),
        json.dumps({**BODY, "labels": [{"name": "a", "value": float("nan")}, {"name": "b", "value": 0}]}),
        json.dumps({**BODY, "labels": [{"name": "a", "value": 1, "variants": 7}, {"name": "b", "value": 0}]}),
        json.dumps({**BODY, "name": ["x"]}),
        '{"segments": ["query.image"], "labels": []}',
        json.dumps({**BODY, "segments": ["query.image", "Same?"]}),
        json.dumps({**BODY, "segments": ["query.image", "query.image", "candidate.image"]}),
        json.dumps({**BODY, "segments": ["query.image", {"part": "candidate.sound"}]}),
        json.dumps({**BODY, "segments": ["query.image", {"part": "candidate.image", "colour": "red"}]}),
        json.dumps({**BODY, "labels": [{"name": "a", "value": 2}, {"name": "b", "value": 0}]}),
        json.dumps({**BODY, "labels": [{"name": "a", "value": 1}, {"name": "a", "value": 0}]}),
        json.dumps({**BODY, "labels": [{"name": "a", "value": "x"}, {"name": "b", "value": 0}]}),
        json.dumps({**BODY, "labels": [{"name": "a", "value": 1, "variants": "yes"}, {"name": "b", "value": 0}]}),
        json.dumps({**BODY, "labels": [{"name": "a", "value": 1, "variants": []}, {"name": "b", "value": 0}]}),
        "\xff\xfe",
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, body: str) -> None:
    (tmp_path / "p.json").write_bytes(body.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        built_in.get(tmp_path / "p.json")
    assert "\n" not in str(caught.value)


def test_a_deep_toml_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("segments = " + "[" * 10**5)
    with pytest.raises(UsageError, match="is not valid"):
        built_in.get(tmp_path / "p.toml")


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="object"):
        built_in.get("objekt")
    with pytest.raises(UsageError, match="cannot be read"):
        built_in.get(tmp_path / "none.toml")


def test_prompts_import_nothing_heavy() -> None:
    code = "import sys, looktwice.score.prompting.built_in as _; "
    code += "sys.exit(bool({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
