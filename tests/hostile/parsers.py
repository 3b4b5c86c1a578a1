"""Give every parser of files from outside: how to make a right file, and how it is read. Runs inside a job."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import shutil
import signal
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

from mutate import damaged

sys.path.insert(0, str(Path(__file__).parent.parent))

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

    from looktwice.codecs import parse_codec, train_codebook

    codec: Any = parse_codec("pq8")
    sample = torch.randn(1, 400, 16, generator=torch.Generator().manual_seed(0))
    return train_codebook(codec.quantiser, sample).to_bytes()


def pickle_file() -> bytes:
    return pickle.dumps({"imlist": ["a", "b"], "gnd": [{"easy": [1, 2], "bbx": [0.5, 1.0]}]})


def compressed_tar() -> bytes:
    return gzip.compress(tar_file(), mtime=0)


def vectors_file() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"id": ["a", "b"], "vector": [[1.0, 2.0], [3.0, 4.0]], "text": ["x", "y"], "image": ["a.png", "b.png"]}
    pq.write_table(pa.table(columns), out := io.BytesIO())
    return out.getvalue()


def numpy_file() -> bytes:
    import numpy as np

    np.save(out := io.BytesIO(), np.ones((2, 2), np.float32))
    return out.getvalue()


def image_with_exif() -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[0x010F], exif[0x0132], exif[0x0112] = "maker", "2020:01:02 03:04:05", 6
    exif.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0), 3: "E", 4: (1.0, 2.0, 3.0)})
    Image.new("RGB", (8, 8), "red").save(out := io.BytesIO(), "JPEG", exif=exif)
    return out.getvalue()


def cache_file() -> bytes:
    import numpy as np

    from looktwice.score.cache import ScoreCache

    path = Path(tempfile.mkdtemp()) / "c.sqlite"
    cache = ScoreCache(path)
    logits = np.zeros(2, "<f4").tobytes()
    cache.put(cache.scope({"a": 1}), b"q", [(b"c", (0.5, logits, None, 0.1, 3))], [(b"c", 0.1, 0.2)])
    cache.close()
    return path.read_bytes()


@cache
def model_folder() -> Path:
    """Return the folder of a tiny model."""
    import tiny_models

    return tiny_models.build("clip", Path(tempfile.mkdtemp()))


def model_file(name: str) -> Callable[[], bytes]:
    return lambda: (model_folder() / name).read_bytes()


def load_model(path: Path) -> None:
    """Load a model of which one file is at `path`."""
    from looktwice.encode import load_encoder

    for file in model_folder().iterdir():
        if file.name != path.name:
            shutil.copy(file, path.parent)
    load_encoder(str(path.parent), device="cpu", dtype="float32")


def import_vectors(path: Path) -> None:
    """Import a file into a table that only counts."""
    from types import SimpleNamespace

    from looktwice.indexing import importing

    info = SimpleNamespace(name="x", dim=2, side=None)
    encoder: Any = SimpleNamespace(info=info)
    manifest = SimpleNamespace(check=lambda *_: None, reading=2)
    rows: list[Any] = []
    table: Any = SimpleNamespace(path="t", manifest=manifest, writer=nullcontext, add=rows.extend)
    importing.import_vectors(table, path, encoder)


def import_clip_retrieval(path: Path) -> None:
    """Import a folder of clip-retrieval whose vectors are the file at `path`."""
    folder = path.parent / "clip"
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "metadata" / "metadata_0.parquet").write_bytes(vectors_file())
    shutil.copy(path, folder / "img_emb" / "img_emb_0.npy")
    import_vectors(folder)


def read_exif(path: Path) -> None:
    from looktwice.sources.exif import from_bytes

    json.dumps(from_bytes(path.read_bytes()), allow_nan=False).encode()


def read_cache(path: Path) -> None:
    from looktwice.score.cache import ScoreCache

    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    cache = ScoreCache(path)
    try:
        scope = cache.scope({"a": 1})
        for p, *_ in cache.get(scope, b"q", [b"c"]).values():
            assert 0 <= p <= 1
        cache.bounds(scope, b"q")
        len(cache)
    finally:
        cache.close()


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
    "compressed archive": ("x.tar.gz", compressed_tar, scan_all),
    "vectors in Parquet": ("x.parquet", vectors_file, import_vectors),
    "vectors of clip-retrieval": ("x.npy", numpy_file, import_clip_retrieval),
    "weights": ("model.safetensors", model_file("model.safetensors"), load_model),
    "model config": ("config.json", model_file("config.json"), load_model),
    "image details": ("x.jpg", image_with_exif, read_exif),
    "score cache": ("x.sqlite", cache_file, read_cache),
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


def failure(ask: Callable[[], object], name: str) -> list[str]:
    """Return what went wrong, in one text: anything but an answer or our own error; nothing if all went well."""
    from looktwice.errors import LooktwiceError

    try:
        with limited():
            ask()
    except LooktwiceError:
        pass
    except BaseException:  # a panic of Rust is no Exception
        return [f"{name}: {traceback.format_exc(limit=-4)}"]
    return []


def attack(name: str, folder: str, seed: str, count: str) -> list[str]:
    """Read `count` damaged files with one parser; return what went wrong: anything but an answer or our own error."""
    filename, make, read = PARSERS[name]
    right, path, wrong = make(), Path(folder) / filename, []
    path.write_bytes(right)
    read(path)  # the right file is read, else nothing below would mean anything
    for number in range(int(count)):
        path.write_bytes(damaged(right, random.Random(f"{name} {seed} {number}")))
        wrong += failure(partial(read, path), f"{name} {seed} {number}")
    return wrong
