"""`--preset`: a name for options that go together. It changes their defaults; what is given explicitly wins."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from looktwice.cli.console import note
from looktwice.models import presets
from looktwice.models.catalog import BY_NAME

STORING = ("index", "add-tokens")  # elsewhere --codec chooses among stored tokens


def _apply(ctx: typer.Context, value: str | None) -> str | None:
    """Make the options of a preset the defaults of this command, and print those that it takes."""
    if value is None or ctx.resilient_parsing:
        return value
    own = {parameter.name for parameter in ctx.command.params if not getattr(parameter, "hidden", False)}
    own -= set() if ctx.info_name in STORING else {"codec"}
    options = {name: found for name, found in presets.get(value).options.items() if name in own}
    ctx.default_map = {**(ctx.default_map or {}), **options}
    shown = " ".join(f"--{name.replace('_', '-')} {found}" for name, found in options.items())
    note(f"Preset {value} stands for {shown}")
    return value


Preset = Annotated[
    str | None,
    typer.Option(
        help="laptop, gpu or best: models and sizes that go together; other options override it. See `looktwice models "
        "preset`.",
        is_eager=True,
        callback=_apply,
        show_default=False,
    ),
]


def record(name: str | None) -> dict[str, Any]:
    """Return what a preset stands for, for a run's manifest; nothing without a preset."""
    return {} if name is None else {"preset": {"name": name, **presets.get(name).options}}


def note_drawings(mllm: str | None, encoder: str | None = None, new: bool = False) -> None:
    """Say that the bundled models know drawings only, with the command for photographs, where that may surprise.

    It is said when a bundled encoder fills a new table, and when a bundled MLLM judges what a real encoder found: the
    MLLM is the default, so it may stand there by mistake. Other commands on a table of drawings do not repeat it.
    """
    if (_is_bundled(mllm) and not _is_bundled(encoder)) or (new and _is_bundled(encoder)):
        note(
            "The bundled models know drawings, not photographs; for those: looktwice index NEW.lt FOLDER "
            "--preset laptop"
        )


def _is_bundled(name: str | None) -> bool:
    """Accept any name: an encoder of somebody's own need not parse."""
    if name is None:
        return False
    found = BY_NAME.get(re.split("[@+#]", name.removeprefix("tower:"))[0])
    return found is not None and found.bundled
