"""`looktwice models`: what can be named. Loads no model and no library that could."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, table
from looktwice.errors import UnknownName

if TYPE_CHECKING:
    from looktwice.models.catalog import Entry

CODECS = (
    ("none", "as they are, 16 or 32 bits per number"),
    ("int8", "8 bits per number"),
    ("pq8, pq16", "product quantisation: a byte per 8 or 16 dimensions; pq:448, opq16, pq16x6"),
    ("pool2, sample2", "mean, or first token, of each 2 × 2 cell; :replicate and :zero keep their number"),
    ("group4, cluster70", "groups of 4 similar tokens, or 70 clusters, share one vector"),
    ("pool2+pq16", "a rule for cells, one for groups and a quantiser, in this order"),
)


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("models", short_help="What can be named, and what each needs.")(models)


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
    """List what --encoder, --mllm, --prompt, --codec and others take, and what each needs.

    Hub names (org/name) and local folders are taken as well. Nothing is downloaded before it is named.

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


def _encoders() -> Iterator[tuple[str, str, str]]:
    from looktwice.models.catalog import ENTRIES

    for entry in ENTRIES:
        if entry.kind == "encoder":
            sizes = ", ".join(f"@{side}" for side in list(entry.hub)[1:])
            reads = "pictures and text" if entry.text_tokens else "pictures"
            more = "".join(f"; {part}" for part in (sizes and f"also {sizes}", entry.note) if part)
            yield entry.name, f"{entry.parameters} M, {reads}, d = {entry.dim}{more}", _needs(entry)
    yield "tower:MLLM", "the mean of an MLLM's own visual tokens; pictures", "that MLLM"
    yield "st:NAME", "any multimodal checkpoint of sentence-transformers", "pip install 'looktwice[st]'"
    yield "NAME+dim:256", "the first 256 numbers of qwen3-vl-embedding or st: vectors (Matryoshka)", "nothing more"
    yield "NAME+mix:0.3", "text has this share beside a picture (0.5 unless told)", "nothing more"
    yield "NAME+mix:mmeb", "as RetLLM's code mixes: items 0.7/0.3, not rescaled; queries 0.8/0.2, raw", "nothing more"
    yield "NAME+linear:FILE", "any of these, followed by a linear adaptation from a file", "the file"


def _mllms() -> Iterator[tuple[str, str, str]]:
    from looktwice.models.catalog import ENTRIES

    for entry in ENTRIES:
        if entry.kind == "mllm":
            yield entry.name, f"{entry.parameters:,} M" + (f"; {entry.note}" if entry.note else ""), _needs(entry)


def _needs(entry: Entry) -> str:
    if entry.bundled:
        return "nothing: comes with looktwice"
    extra = f" and pip install 'looktwice[{entry.extra}]'" if entry.extra else ""
    return f"a download of {entry.gigabytes:g} GB{extra}"


def _prompts() -> Iterator[tuple[str, str, str]]:
    from looktwice.score.prompting.built_in import PROMPTS

    for prompt in PROMPTS.values():
        answers = " / ".join(label.name for label in prompt.labels)
        yield prompt.name, f"answers {answers}; hash {prompt.hash}", " + ".join(prompt.parts)
    yield "FILE.toml", "your own: segments and labels with values (.json too)", "the file"


def _codecs() -> Iterator[tuple[str, str, str]]:
    for name, what in CODECS:
        yield name, what, "visual tokens: index --mllm"


def _modes() -> Iterator[tuple[str, str, str]]:
    yield "p-label", "probability of the labels, over all their spellings", ""
    yield "p-true", "probability of the one token True over the whole vocabulary", "a prompt with True and False"
    yield "digit", "the answer itself, 0 or 1, as if it had been written", "a prompt with 0 and 1"
    yield "written", "the number that the model writes", "the prompts score, score-mixed"
    yield "written-expected", "its expected value over the digits", "the prompts score, score-mixed"
    yield "choice", "probability of each candidate's letter in one list of all", ""


def _retraces() -> Iterator[tuple[str, str, str]]:
    from looktwice.score.local.retrace import PRESETS

    yield "off", "every picture is shown once", ""
    for name, preset in PRESETS.items():
        fires = (
            f"at {', '.join(f'{x:.2f}' for x in preset.layers)} of depth" if preset.layers else "where entropy is high"
        )
        yield name, f"α = {preset.alpha:g}, {fires}; NAME,alpha=0.2 changes it", "the fast path"


def _fusions() -> Iterator[tuple[str, str, str]]:
    yield "0.5", "λ·coarse + (1−λ)·p with λ = 0.5; any λ from 0 to 1", "cosines"
    yield "p-only", "p alone, ties by coarse score", ""
    yield "rrf", "reciprocal rank fusion, 1/(60 + rank) summed; rrf:C for another constant", ""
