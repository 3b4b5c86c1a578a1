"""`looktwice models`: list the names that options take. Imports no model library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, table
from looktwice.errors import UnknownName
from looktwice.types import Choice


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("models", short_help="List encoders, MLLMs, prompts and other names.")(models)


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OPTION]...",
            help="Only these: encoder, mllm, prompt, fusion, score-mode, retrace, codec.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """List the names that --encoder, --mllm, --prompt, --codec and other options take, and their requirements.

    The options also take hub ids (org/name) and local folders. looktwice downloads a model only when you name it.

    Example: looktwice models mllm prompt
    """
    lists = {
        "encoder": _encoders,
        "mllm": _mllms,
        "prompt": _prompts,
        "fusion": _fusions,
        "score-mode": _modes,
        "retrace": _retraces,
        "codec": _codecs,
    }
    wanted = [name.removeprefix("--") for name in names or ()] or list(lists)
    for name in wanted:
        if name not in lists:
            raise UnknownName("option", name, lists)
    for name in wanted:
        if json:
            for title, what, needs in lists[name]():
                emit({"option": name, "name": title, "what": what, "needs": needs})
        else:
            table([f"--{name}", "what it is", "needs" if name != "prompt" else "shows"], list(lists[name]()))


def _encoders() -> Iterator[Choice]:
    from looktwice.encode.name import CHOICES

    yield from _entries("encoder")
    yield from CHOICES


def _mllms() -> Iterator[Choice]:
    yield from _entries("mllm")


def _entries(kind: str) -> Iterator[Choice]:
    from looktwice.models.catalog import ENTRIES

    for entry in ENTRIES:
        if entry.kind == kind:
            yield Choice(entry.name, entry.description, entry.needs)


def _prompts() -> Iterator[Choice]:
    from looktwice.score.prompting.built_in import PROMPTS

    for prompt in PROMPTS.values():
        answers = " / ".join(label.name for label in prompt.labels)
        yield Choice(prompt.name, f"answers {answers}; hash {prompt.hash}", " + ".join(prompt.parts))
    yield Choice("FILE.toml", "your own: segments and labels with values (.json too)", "the file")


def _fusions() -> Iterator[Choice]:
    from looktwice.rank.fusion_rule import CHOICES

    yield from CHOICES


def _modes() -> Iterator[Choice]:
    from looktwice.score.readout.modes import CHOICES

    yield from CHOICES


def _retraces() -> Iterator[Choice]:
    from looktwice.score.local.retrace import PRESETS

    yield Choice("off", "every image is shown once")
    for name, preset in PRESETS.items():
        yield Choice(name, f"{preset.description}; NAME,alpha=0.2 changes it", "the fast path")


def _codecs() -> Iterator[Choice]:
    from looktwice.codecs.spec import CHOICES

    for choice in CHOICES:
        yield choice._replace(needs="visual tokens: index --mllm")
