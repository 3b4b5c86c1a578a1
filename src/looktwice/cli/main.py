"""List the verbs of `looktwice`, and turn errors into one sentence and an exit code.

0 ok · 1 disk, model or looktwice failed · 2 usage or refused · 3 finished, but some items failed · 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Any

import typer
from typer.core import TyperGroup

from looktwice import __version__
from looktwice.cli import (
    adapt,
    calibrate,
    codec,
    columns,
    delete,
    demo,
    doctor,
    drop_tokens,
    duplicates,
    estimate,
    eval,
    export,
    import_,
    index,
    info,
    ledger,
    maxsim,
    models,
    rerank,
    search,
    serve,
    tokens,
    tune,
)
from looktwice.cli.console import mute_stdout, note, show_warnings
from looktwice.cli.groups import CommandLine
from looktwice.cli.interrupt import as_usual
from looktwice.cli.renamed import current
from looktwice.cli.resume import KEPT
from looktwice.cli.storage import Storage, configure, take_storage
from looktwice.errors import LooktwiceError

RESUMING = ("index", "add-tokens", "eval")  # the verbs that keep scores add their own note: see `resume`


class Verbs(TyperGroup):
    """A group of verbs: --debug and --storage anywhere; errors become one sentence and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return verbs in the order in which a newcomer meets them, not by alphabet."""
        order = list(self.commands)
        order.insert(order.index("info"), order.pop(order.index("eval")))  # typer puts groups last
        return order

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take --debug and --storage out of any place before `--`, and replace names of earlier versions."""
        own = args[: args.index("--")] if "--" in args else args
        ctx.obj = {"debug": "--debug" in own}
        rest, ctx.obj["storage"] = take_storage([a for a in own if a != "--debug"])
        return super().parse_args(ctx, current(rest) + args[len(own) :])

    def invoke(self, ctx: Any) -> Any:
        """Run the verb, flush its answer and exit.

        Flushing here keeps our exit codes: a flush that fails when Python shuts down ends with code 120.
        """
        code = 0
        try:
            self._run(ctx)
        except typer.Exit as ended:
            code = ended.exit_code
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # the reader (head, less) has closed the pipe
            mute_stdout()
        except OSError as error:
            mute_stdout()
            if code != 1:  # else `_run` has shown an error already
                note(f"Error: {_sentence(error)}")
            code = 1
        raise typer.Exit(code)

    def _run(self, ctx: Any) -> None:
        try:
            as_usual()
            configure(ctx.obj["storage"])
            super().invoke(ctx)
        except BrokenPipeError:
            mute_stdout()
        except KeyboardInterrupt as stopped:
            kept = [KEPT] if ctx.invoked_subcommand in RESUMING else stopped.args
            note(" ".join(["Interrupted.", *kept]))
            raise typer.Exit(130) from None
        except (LooktwiceError, OSError, MemoryError) as error:
            if ctx.obj["debug"]:
                raise
            note(f"Error: {_sentence(error)}")
            raise typer.Exit(getattr(error, "exit_code", 1)) from None
        except Exception as error:
            if ctx.obj["debug"] or isinstance(error, typer.TyperException | typer.Exit | typer.Abort):
                raise
            note(f"Internal error ({type(error).__name__}): {error}")
            note("This is a bug in looktwice; run the command again with --debug and report the traceback.")
            raise typer.Exit(1) from None


app = CommandLine(
    cls=Verbs,
    name="looktwice",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"looktwice {__version__}")
        raise typer.Exit()


@app.callback()
def looktwice(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error; accepted anywhere."),
    storage: Storage = None,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Search image collections: a cheap shortlist, then a second look by a frozen multimodal LLM."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # show an escape where the encoding lacks a character
            stream.reconfigure(errors="backslashreplace")
    show_warnings()


SEARCHING = (demo, index, search, rerank, calibrate, tune, adapt, eval, serve)
KEEPING = (info, columns, ledger, duplicates, delete, export, import_)
TOKENS = (tokens, drop_tokens, codec, maxsim)
for verb in (*SEARCHING, *KEEPING, *TOKENS, estimate, models, doctor):
    verb.add_to(app)


def verbs() -> list[str]:
    """Return the names of all verbs, in the order of --help; a verb of a group as "eval run"."""
    group: Any = typer.main.get_command(app)
    return [
        " ".join([name, *inner])
        for name in group.list_commands(None)
        for inner in ([()] if not hasattr(group.commands[name], "commands") else _inner(group.commands[name]))
    ]


def _inner(group: Any) -> list[tuple[str, ...]]:
    return [(), *((name,) for name in group.commands)]


def _sentence(error: BaseException) -> str:
    if isinstance(error, LooktwiceError):
        return str(error)
    if isinstance(error, MemoryError):
        return "Not enough memory; use a smaller --batch-size, or a smaller model."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}."
    return f"{error}."


def main() -> None:
    """Run the `looktwice` script."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell (>&-): nobody reads it, and no verb has to know
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    app()
