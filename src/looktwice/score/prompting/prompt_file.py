"""Write a prompt as the TOML file that `built_in.read` reads back."""

from __future__ import annotations

import json
from collections.abc import Iterator

from looktwice.score.prompting.prompt import PARTS, Label, Prompt, Segment


def to_toml(prompt: Prompt) -> str:
    """Return the prompt as the text of a .toml file.

    >>> from looktwice.score.prompting.built_in import PROMPTS
    >>> print(to_toml(PROMPTS["class_simple"]).splitlines()[0])
    name = "class_simple"
    """
    segments = "".join(f"    {_segment(segment)},\n" for segment in prompt.segments)
    labels = "\n".join(map(_label, prompt.labels))
    return f"name = {_text(prompt.name)}\n\nsegments = [\n{segments}]\n\n{labels}"


def _segment(segment: Segment) -> str:
    if segment.part is None:
        assert segment.text not in PARTS  # it would be read back as a part
        return _text(segment.text)
    framed = list(_frame(segment))
    return f"{{ {', '.join([f'part = {_text(segment.part)}', *framed])} }}" if framed else _text(segment.part)


def _frame(segment: Segment) -> Iterator[str]:
    if segment.before:
        yield f"before = {_text(segment.before)}"
    if segment.after:
        yield f"after = {_text(segment.after)}"
    if segment.optional:
        yield "optional = true"


def _label(label: Label) -> str:
    variants = ", ".join(map(_text, label.variants))
    return f"[[labels]]\nname = {_text(label.name)}\nvalue = {label.value!r}\nvariants = [{variants}]\n"


def _text(text: str) -> str:
    """Return a basic string of TOML, over several lines if the text has them.

    JSON's escapes are TOML's too; JSON leaves DEL as it is, which TOML refuses.
    """
    lines = [json.dumps(line, ensure_ascii=False).replace("\x7f", "\\u007f")[1:-1] for line in text.split("\n")]
    return f'"{lines[0]}"' if len(lines) == 1 else '"""\n' + "\n".join(lines) + '"""'
