"""Read `--tuned FILE`, the file of `looktwice tune`, for the verbs that take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from looktwice.checked import read_json
from looktwice.cli.outputs import settings_beside
from looktwice.errors import UsageError


def read(path: Path | None, fusion: str, prompt: str, run: Path | None = None) -> tuple[dict[str, Any], str | None]:
    """Return the file's fusion, as an argument of Retriever, and its prompt; nothing without a file.

    With the `run` that is to be reranked, also what made it, as an argument of `rerank_run`. Raises UsageError for a
    --fusion or another --prompt beside the file.
    """
    if path is None:
        return {}, None
    from looktwice.rank import Tuned

    found = Tuned.load(path)
    if fusion != "auto" or prompt not in ("auto", found.prompt):
        raise UsageError(f"{path} has a fusion and a prompt of its own; leave out --fusion and --prompt, or --tuned.")
    return {"fusion": found} if run is None else {"fusion": found, "about": _encoder_of(run)}, found.prompt


def _encoder_of(run: Path) -> dict[str, Any]:
    """Return what made the coarse scores of a run, from the settings that `search --run` writes beside it.

    Raises UsageError without them: a tuned fusion holds for one encoder.
    """
    try:
        return {"encoder": read_json(settings_beside(run).read_text(encoding="utf-8"))["encoder"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"--tuned holds for one encoder, which {settings_beside(run)} does not name; "
            "leave out --tuned, or make the shortlist with `looktwice search --run`."
        ) from None
