"""`looktwice doctor`: check this machine, and show how to install missing parts."""

from __future__ import annotations

import typer

from looktwice.cli import options
from looktwice.cli.console import SENTENCES, emit, table


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("doctor", short_help="Check device, memory, models and optional packages.")(doctor)


def doctor(json: options.Json = False) -> None:
    """Check packages, device, dtype, threads, memory, bundled models and optional parts, without network access.

    The exit code is 1 if a required part does not work.

    Example: looktwice doctor
    """
    from looktwice.models.doctor import doctor as examine

    checks = examine()
    if json:
        for check in checks:
            emit({"name": check.name, "ok": check.ok, "value": check.value, "remedy": check.remedy or None})
    else:
        rows = [("ok" if c.ok else "!!", c.name, c.value, c.remedy) for c in checks]
        table(["", "", "found", "advice"], rows, width=SENTENCES)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
