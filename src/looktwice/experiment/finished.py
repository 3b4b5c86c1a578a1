"""Read the finished conditions of a robustness run, and refuse those that were measured on something else."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.errors import Damaged, MediaError, Mismatch
from looktwice.models import adapters
from looktwice.sources import Source
from looktwice.types import Item

if TYPE_CHECKING:
    from looktwice.search.mllm_reranker import MllmReranker

LATER = ("items", "asked", "prompt", "prompt_hash", "encoded_by", "revision", "labels", "pictures")
"""Settings that earlier versions did not store with a run."""


def content(one: Item | Source) -> str:
    """Return the SHA-256 of an image's bytes, or "" if they cannot be read."""
    try:
        return (one.sha256 or "") if isinstance(one, Item) else hashlib.sha256(one.read()).hexdigest()
    except MediaError:
        return ""


def revision(look: MllmReranker) -> str:
    """Return the revision of a reranker's model."""
    if isinstance(look.mllm, str):
        return adapters.resolve(look.mllm, look.revision).revision
    return str(look.mllm.settings().get("revision"))


def read_finished(path: Path, about: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the finished conditions of a file by name. A half-written last line is cut off.

    Raises Damaged for a damaged file, and Mismatch for one with other settings than `about`.
    """
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        if not all(isinstance(line, dict) for line in lines) or any("condition" not in line for line in lines[1:]):
            raise ValueError
    except (ValueError, RecursionError):
        raise Damaged(f"{path} is damaged; remove it, or choose another --out.") from None
    if lines and {**{name: about[name] for name in LATER if name in about}, **lines[0]} != about:
        raise Mismatch(f"{path.parent} holds a run with other settings ({lines[0]}); choose another --out.")
    yield from ((line["condition"], line) for line in lines[1:])
