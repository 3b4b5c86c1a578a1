"""`looktwice drop-tokens`: delete stored visual tokens."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, plural, size


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("drop-tokens", short_help="Delete visual tokens of a model or a codec.")(drop_tokens)


def drop_tokens(
    path: options.TablePath,
    mllm: Annotated[str, typer.Option(help="Delete those of this model, named as `info` does.")] = "",
    codec: Annotated[str, typer.Option(help="Delete those of this codec.")] = "",
    key: Annotated[str, typer.Option(help="Delete one set, by its tokens_key in `info --json`.")] = "",
    json: options.Json = False,
) -> None:
    """Delete stored visual tokens: the sets that fit all that is named. Items, vectors and images stay.

    Nothing is asked, as `add-tokens` makes the same tokens again. Searches stop using them at once; the disk gets their
    bytes back with `looktwice compact --purge`.

    Example: looktwice drop-tokens photos.lt --mllm qwen3-vl-2b --codec opq8
    """
    from looktwice.codecs import parse_codec
    from looktwice.store import Table

    opened = Table.open(path)
    gone = opened.drop_tokens(mllm=mllm, codec=str(parse_codec(codec)) if codec else "", key=key)
    for one in gone:
        if json:
            emit(asdict(one))
        else:
            what = f"{one.codec} of {one.mllm}, {one.preprocessing}"
            note(f"Dropped {what}: tokens of {plural(one.images, 'image')}, {size(one.bytes)}")
    freed = size(sum(one.bytes for one in gone))
    note(f"The disk gets {freed} back with: looktwice compact {opened.path} --purge")
