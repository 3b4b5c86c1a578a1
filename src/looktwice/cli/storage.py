"""Take `--storage KEY=VALUE` out of a command line: settings of buckets, for every verb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from looktwice import buckets
from looktwice.errors import UsageError

OPTION = "--storage"
Storage = Annotated[
    list[str] | None,
    typer.Option(
        OPTION,
        metavar="KEY=VALUE",
        help="A setting of a bucket, such as aws_endpoint=URL; repeatable, accepted anywhere.",
    ),
]


def take_storage(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the other arguments, and the settings.

    >>> take_storage(["info", "s3://b/t.lt", "--storage", "aws_region=eu-west-1", "--json"])
    (['info', 's3://b/t.lt', '--json'], ['aws_region=eu-west-1'])
    """
    rest: list[str] = []
    found: list[str] = []
    words = iter(args)
    for word in words:
        if word == OPTION:
            found.append(next(words, ""))
        elif word.startswith(f"{OPTION}="):
            found.append(word.removeprefix(f"{OPTION}="))
        else:
            rest.append(word)
    return rest, found


def configure(given: Sequence[str]) -> None:
    """Use the settings. Raises UsageError for one without a name or a value; the value is not shown."""
    pairs = [setting.partition("=") for setting in given]
    for name, _, value in pairs:
        if not name or not value:
            raise UsageError(f"{OPTION} {name or 'without a name'} needs KEY=VALUE, such as aws_region=eu-west-1.")
    if pairs:
        buckets.configure({name: value for name, _, value in pairs})
