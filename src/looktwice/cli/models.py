"""`looktwice models`: list the names that options take. Imports no model library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from looktwice.cli import options, server_facts
from looktwice.cli.console import SENTENCES, emit, table
from looktwice.cli.fits import show_fits
from looktwice.cli.groups import grouped
from looktwice.cli.shown_prompts import show_prompts
from looktwice.cli.unused import refuse_unused
from looktwice.errors import UnknownName
from looktwice.types import Choice


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("models", short_help="List encoders, MLLMs, prompts and other names.")(models)


@grouped
def models(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OPTION",
            help="Only these: preset, encoder, mllm, prompt, fusion, score-mode, retrace, codec.",
            show_default=False,
        ),
    ] = None,
    fits: Annotated[
        bool, typer.Option("--fits", help="Say which presets this machine's memory holds, and what they cost on it.")
    ] = False,
    items: Annotated[str, typer.Option(help="With --fits: number of images, such as 1e5.")] = "10000",
    show: Annotated[
        bool, typer.Option("--show", help="Print built-in prompts as files: models prompt NAME --show.")
    ] = False,
    *,
    server: server_facts.Probing,
    json: options.Json = False,
) -> None:
    """List the names that --encoder, --mllm, --prompt, --codec and other options take, and their requirements.

    The options also take hub ids (org/name) and local folders. looktwice downloads a model only when you name it. The
    bundled models (tiny-clip, tiny-vl) know drawings, not photographs.

    Examples:

      looktwice models mllm prompt

      looktwice models --fits --items 50000

      looktwice models prompt object --show

      looktwice models --probe http://127.0.0.1:8000/v1 --pairs 10000
    """
    if server.probe is None:
        refuse_unused(ctx, ("pairs", "api_key_file", "price"), "without --probe", "add --probe URL, or leave it out")
    if not fits:
        refuse_unused(ctx, ("items",), "without --fits", "add --fits, or leave it out")
    if server.probe is not None:
        return server.show(json)
    if fits:
        return show_fits(items, json)
    if show:
        return show_prompts(names or ())
    _list_choices([name.removeprefix("--") for name in names or ()], json)


def _list_choices(names: Sequence[str], json: bool) -> None:
    """Show the choices of these options, or of all."""
    lists = {
        "preset": _presets,
        "encoder": _encoders,
        "mllm": _mllms,
        "prompt": _prompts,
        "fusion": _fusions,
        "score-mode": _modes,
        "retrace": _retraces,
        "codec": _codecs,
    }
    wanted = names or list(lists)
    if unknown := [name for name in wanted if name not in lists]:
        raise UnknownName("option with names", unknown[0], lists)
    for name in wanted:
        if json:
            for title, what, needs in lists[name]():
                emit({"option": name, "name": title, "what": what, "needs": needs})
        else:
            table(
                [f"--{name}", "what it is", "shows" if name == "prompt" else "needs"],
                list(lists[name]()),
                width=SENTENCES,
            )


def _presets() -> Iterator[Choice]:
    from looktwice.models.presets import PRESETS

    for preset in PRESETS.values():
        yield Choice(preset.name, f"{preset}: {preset.reason}", "a download; see models --fits")


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
