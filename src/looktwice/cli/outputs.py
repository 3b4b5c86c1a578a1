"""Hold the options that say where answers go, and refuse places that cannot be written."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from looktwice.errors import UsageError
from looktwice.files import followed, is_replaced

Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout: one object, or one per line for lists.")]


@dataclass(frozen=True)
class Output:
    """Output."""

    run: Annotated[
        Path | None,
        typer.Option("--run", help="Write whole rankings as a TREC run, and its settings beside it as .json."),
    ] = None
    tag: Annotated[
        str | None, typer.Option(help="Name of the run: the last column of its file, and in its settings.")
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run file that is there already.")] = False
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Write one HTML file that shows both orders of the first 200 queries."),
    ] = None
    explain: Annotated[bool, typer.Option("--explain", help="Show the parts of each hit's score.")] = False
    json: Json = False

    def check(self) -> None:
        """Refuse files that cannot be written or would be lost, before the work begins."""
        check_outputs(self.run, self.report, overwrite=self.overwrite)
        if self.run is None and (self.tag is not None or self.overwrite):
            raise UsageError(f"{'--tag' if self.tag is not None else '--overwrite'} needs --run FILE; add it.")


def check_outputs(run: Path | None, report: Path | None, *, overwrite: bool = True) -> None:
    """Refuse output paths that are not writable, and a run that is there already, before the work begins."""
    for path in (run, report):
        if path is not None:
            _check_output(path)
    if run is not None and not overwrite and has_room_beside(run) and run.exists() and run.stat().st_size:
        raise UsageError(f"{run} already holds a run; pass --overwrite to replace it, or name another file.")
    if run is not None and report is not None and report.resolve() in (run.resolve(), settings_beside(run).resolve()):
        raise UsageError(f"--report {report} would overwrite a file of --run; name another file.")


def has_room_beside(output: Path) -> bool:
    """Return whether other files may stand beside an output; not beside /dev/stdout or a pipe."""
    return is_replaced(followed(output))


def _check_output(path: Path) -> None:
    target = followed(path)
    for place in dict.fromkeys((path, target)):
        if not place.absolute().parent.is_dir():
            raise UsageError(f"Folder {place.parent} does not exist, so {place.name} cannot be written; create it.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file.")
    folders = [place.absolute().parent for place in (path, target)] if is_replaced(target) else []
    if not all(os.access(folder, os.W_OK | os.X_OK) for folder in folders) or (
        target.exists() and not os.access(target, os.W_OK)
    ):
        raise UsageError(f"{path} cannot be written: {os.strerror(errno.EACCES)}; name another file.")


def settings_beside(run: Path) -> Path:
    """Return the path of a run's settings."""
    return run.with_name(f"{run.name}.json")
