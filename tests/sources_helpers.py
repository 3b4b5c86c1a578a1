"""What the tests of sources share."""

from __future__ import annotations

import json
import os
from pathlib import Path

from colour_encoder import picture

from looktwice.sources import (
    REASONS,
    Source,
    Unreadable,
    display,
    scan,
)


def met(*paths: object, **options: object) -> list[Source | Unreadable]:
    found = list(scan([os.fspath(path) for path in paths], **options))
    for one in found:
        if isinstance(one, Unreadable):
            assert one.reason in REASONS and one.detail
    return found


def ids(*paths: object, **options: object) -> list[str]:
    return [one.id for one in met(*paths, **options) if isinstance(one, Source)]


def troubles(*paths: object, **options: object) -> list[tuple[str, str]]:
    return [(display(one.uri), one.reason) for one in met(*paths, **options) if isinstance(one, Unreadable)]


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture() + name.encode())  # every file's bytes differ
    return folder


def write_list(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts))
    return path


def refuse() -> None:
    raise ConnectionRefusedError("refused")
