"""Give every parser of files from outside: how to make a right file, and how it is read. Runs inside a job."""

from __future__ import annotations

import io
import json
import pickle
import random
import signal
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mutate import damaged

SECONDS = 10
"""The longest that one small damaged file may take."""


def run_file() -> bytes:
    rows = [(q, i, i + 1, 1 / (i + 1)) for q in range(3) for i in range(5)]
    return b"".join(b"q%d Q0 image-%d.jpg %d %f looktwice\n" % row for row in rows)


def qrels_file() -> bytes:
    return b"".join(b"q%d 0 image-%d.jpg %d\n" % (q, i, i % 3 - 1) for q in range(3) for i in range(5))


def calibration_file() -> bytes:
    from looktwice.rank.calibration import Sample, fit

    path = Path(tempfile.mkdtemp()) / "c.json"
    fit([Sample(f"q{i % 10}", i / 100, 0.01 * i, bool(i % 3)) for i in range(100)], {"mllm": "tiny-vl"}).save(path)
    return path.read_bytes()


def prompt_file() -> bytes:
    from looktwice.score.prompting.built_in import get
    from looktwice.score.prompting.prompt_file import to_toml

    return to_toml(get("object")).encode()


def jsonl_file() -> bytes:
    lines = [{"id": f"i{n}", "image": f"{n}.png", "text": "a red shoe", "metadata": {"price": n / 2}} for n in range(5)]
    return b"\n".join(json.dumps(line).encode() for line in lines)


def tar_file() -> bytes:
    from PIL import Image

    data, image = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(image, "PNG")
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in (("a.png", image.getvalue()), ("a.txt", b"red"), ("a.json", b'{"price": 1}')):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


def codes_file() -> bytes:
    return _codec_file()[0]


def _codec_file() -> tuple[bytes, str]:
    import torch

    from looktwice.codecs import layout_to_json, parse_codec
    from looktwice.types import Block, VisualTokens

    layout = (Block("global", 2, 3),)
    tokens = VisualTokens(torch.arange(48, dtype=torch.float32).reshape(6, 8), None, layout)
    return parse_codec("int8").encode(tokens), layout_to_json(layout)


def layout_file() -> bytes:
    return _codec_file()[1].encode()


def codebook_file() -> bytes:
    import torch

    from looktwice.codecs import parse_codec
    from looktwice.codecs.codebook import train_codebook

    codec: Any = parse_codec("pq8")
    sample = torch.randn(1, 400, 16, generator=torch.Generator().manual_seed(0))
    return train_codebook(codec.quantiser, sample).to_bytes()


def pickle_file() -> bytes:
    return pickle.dumps({"imlist": ["a", "b"], "gnd": [{"easy": [1, 2], "bbx": [0.5, 1.0]}]})


def scan_all(path: Path) -> None:
    from looktwice.sources import scan

    list(scan([path]))


def read_layout(path: Path) -> None:
    from looktwice.codecs.layout import from_json

    from_json(path.read_text("utf-8", "replace"))


def read_codes(path: Path) -> None:
    from looktwice.codecs.record_format import read_header

    read_header(path.read_bytes())


def read_by(module: str, name: str, *inside: str) -> Callable[[Path], Any]:
    """Return a reader by its place, imported when it is called."""

    def read(path: Path) -> Any:
        import importlib

        found: Any = getattr(importlib.import_module(f"looktwice.{module}"), name)
        for one in inside:
            found = getattr(found, one)
        read = found(path)
        return list(read) if hasattr(read, "__next__") else read

    return read


PARSERS: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], Any]]] = {
    "run": ("x.trec", run_file, read_by("evaluate.trec", "read_run")),
    "qrels": ("x.txt", qrels_file, read_by("evaluate.trec", "read_qrels")),
    "calibration": ("x.json", calibration_file, read_by("rank.calibration", "Calibration", "load")),
    "prompt": ("x.toml", prompt_file, read_by("score.prompting.built_in", "read")),
    "list of items": ("x.jsonl", jsonl_file, scan_all),
    "archive": ("x.tar", tar_file, scan_all),
    "token codes": ("x.bin", codes_file, read_codes),
    "layout": ("x.json", layout_file, read_layout),
    "codebook": ("x.bin", codebook_file, read_by("codecs.codebook", "load_codebook")),
    "pickled labels": ("x.pkl", pickle_file, read_by("evaluate.datasets.unpickle", "unpickle")),
}


class TooSlow(Exception):
    """A parser that took longer than SECONDS."""


@contextmanager
def limited() -> Iterator[None]:
    """Raise TooSlow after SECONDS."""
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def _too_slow(*ignored: object) -> None:
    raise TooSlow


def attack(name: str, folder: str, seed: str, count: str) -> list[str]:
    """Read `count` damaged files with one parser; return what went wrong: anything but an answer or our own error."""
    from looktwice.errors import LooktwiceError

    filename, make, read = PARSERS[name]
    right, path, wrong = make(), Path(folder) / filename, []
    path.write_bytes(right)
    read(path)  # the right file is read, else nothing below would mean anything
    for number in range(int(count)):
        path.write_bytes(damaged(right, random.Random(f"{name} {seed} {number}")))
        try:
            with limited():
                read(path)
        except LooktwiceError:
            pass
        except BaseException:  # a panic of Rust is no Exception
            wrong.append(f"{name} {seed} {number}: {traceback.format_exc(limit=-3)}")
    return wrong
