"""Resolve a model's name to a folder with weights: bundled models, local folders, the model hub.

    tiny-clip                     comes with looktwice
    qwen3-vl-4b                   a short name of `catalog`: its checkpoint on the hub
    ./folder  ~/models/mine       a folder with config.json and safetensors weights
    org/name                      any checkpoint of the hub, downloaded only because it was named
    NAME#REVISION                 the same, pinned: a commit, branch or tag of the hub, the content hash of a folder
    NAME+lora:FOLDER              any of these with a LoRA adapter: see `adapters`

This module knows files, not their purpose. Weights are read from safetensors only, and a checkpoint's own code never
runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from looktwice.errors import Mismatch, ModelError, UnknownName, UsageError, first_line
from looktwice.models import hub
from looktwice.models.catalog import BY_NAME, ENTRIES, ModelKind

ADAPTER = "+lora:"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_KINDS: Mapping[ModelKind | None, str] = {None: "model", "encoder": "encoder", "mllm": "MLLM"}
_REVISION = re.compile(r"[\w][\w./-]*")
_SMALL = ("*.json", "*.jinja", "*.txt", "*.model")
_WANTED = [*_SMALL, "*.safetensors"]
_UNWANTED = ["*/*", "consolidated*", "*onnx*", "*openvino*"]  # the first means subfolders
_SINGLE = "model.safetensors"
_WHOLE = 64 * 1024 * 1024
_SAMPLE, _SAMPLES = 4096, 8
_HEADER_LIMIT = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on this machine.

    `name` is the name it was requested by (a folder as an absolute path), `source` the folder, `revision` the hub's
    commit or, for a folder, a hash of its contents (see `fingerprint`). `local` is True if it is not from the hub.
    `adapter` is the folder of a LoRA that is merged into the weights; name and revision include it.
    """

    name: str
    source: Path
    revision: str
    local: bool
    adapter: Path | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Return the content of config.json. Raises ModelError if it is not a JSON object."""
        return read_json(self.source / "config.json")

    @property
    def model_type(self) -> str:
        """Return the architecture as transformers names it ("clip", "qwen3_vl"), or "timm"."""
        config = self.config
        return str(config.get("model_type") or ("timm" if "architecture" in config else "unknown"))


def bundled_names() -> list[str]:
    """Return the names of the models that come with looktwice."""
    return [entry.name for entry in ENTRIES if entry.bundled]


def bundled_folder(name: str) -> Path:
    """Return the folder of a bundled model, whether or not it exists."""
    return Path(str(resources.files("looktwice"))) / "assets" / "tiny" / name


def split_revision(name: str) -> tuple[str, str | None]:
    """Split `NAME#REVISION`; a `#` that cannot begin a revision belongs to the name.

    >>> split_revision("org/name#v1.0"), split_revision("org/name"), split_revision("./a#b c")
    (('org/name', 'v1.0'), ('org/name', None), ('./a#b c', None))
    """
    head, mark, tail = name.rpartition("#")
    return (head, tail) if mark and head and _REVISION.fullmatch(tail) else (name, None)


def resolve(
    name: str, revision: str | None = None, *, nested: bool = False, kind: ModelKind | None = None
) -> Checkpoint:
    """Return the checkpoint of this name; download it if it is the hub's and not here yet.

    `revision` pins it, as `NAME#REVISION` does; `nested` includes subfolders, which models of sentence-transformers
    have. `kind` says which short names to list for an unknown one.

    Raises UnknownName for a name that is no model, folder or hub name; UsageError for a folder or hub name that is not
    available; Mismatch for a folder that no longer holds `revision`; ModelError for missing or pickled weights.
    """
    plain, pinned = (name, None) if _is_folder(name) else split_revision(name)
    if ADAPTER in plain and not _is_folder(plain):
        raise UsageError(f"{plain}: only a local MLLM of the second look takes an adapter; leave {ADAPTER} out.")
    if pinned and revision and pinned != revision:
        raise UsageError(f"The model has two revisions, {pinned!r} and {revision!r}; name one.")
    revision = pinned or revision
    entry = BY_NAME.get(plain)
    if entry is not None and not entry.bundled:
        return _from_hub(plain, next(iter(entry.hub.values())), revision, nested)
    if entry is not None:
        return _from_folder(plain, bundled_folder(plain), revision, nested)
    if _is_folder(plain) or _looks_like_path(plain):
        folder = Path(_expand(plain)).resolve()
        return _from_folder(str(folder), folder, revision, nested)
    if _HUB_NAME.fullmatch(plain):
        return _from_hub(plain, plain, revision, nested)
    known = [entry.name for entry in ENTRIES if kind in (None, entry.kind)]
    raise UnknownName(f"{_KINDS[kind]}, folder or hub name (org/name)", plain, known)


def _expand(name: str) -> str:
    return os.path.expanduser(name)


def _is_folder(name: str) -> bool:
    return name not in BY_NAME and os.path.isdir(_expand(name))


def is_hub_name(name: str) -> bool:
    """Return whether a name has the form of one on the hub: org/name."""
    return _HUB_NAME.fullmatch(name) is not None and not _looks_like_path(name)


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


def _from_folder(name: str, folder: Path, revision: str | None, nested: bool) -> Checkpoint:
    if not os.path.isdir(folder):  # Path.is_dir raises on a name that is too long
        if name in BY_NAME:
            raise ModelError(f"This installation lacks the bundled model {name!r}; install looktwice again.")
        if os.path.isfile(folder):
            raise UsageError(f"The model {str(folder)!r} is a file; name the folder around it.")
        raise UsageError(f"The model folder {str(folder)!r} does not exist; check the path.")
    if not _is_model(folder, nested):
        raise UsageError(f"The folder {str(folder)!r} holds no config.json; name a folder that a model was saved to.")
    _require_safetensors(name, folder, "copy them into the folder, or name a complete checkpoint", nested)
    try:
        found = fingerprint(folder, nested)
    except OSError as error:
        raise UsageError(f"The model folder {name!r} cannot be read ({first_line(error)}); check it.") from error
    if revision is not None and not found.startswith(revision):
        way = "put those weights back, or index into a new table"
        raise Mismatch(f"The model folder {name!r} now holds {found}, not {revision}; {way}.")
    return Checkpoint(name, folder, found, local=True)


def _is_model(folder: Path, nested: bool) -> bool:
    return (folder / "config.json").is_file() or (nested and (folder / "modules.json").is_file())


def _require_safetensors(name: str, folder: Path, way: str, nested: bool) -> None:
    """Raise ModelError if weights are missing, in whole or in part; `way` says how to get the others."""
    if missing := _missing_shards(folder):
        more = ", …" if len(missing) > 3 else ""
        raise ModelError(
            f"The model {name!r} lacks {len(missing)} of its weight files ({', '.join(missing[:3])}{more}); {way}."
        )
    find = folder.rglob if nested else folder.glob
    if any(path.is_file() for path in find("*.safetensors")):  # links of the hub's cache may lead nowhere
        return
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in find(pattern))
    if pickled:
        raise ModelError(
            f"The model {name!r} has only pickled weights ({pickled[0]}), which can run code when read; "
            "convert them to safetensors, or name a revision that holds safetensors (NAME#REVISION)."
        )
    raise ModelError(f"The model {name!r} has no weights in safetensors form; name a complete checkpoint.")


def _missing_shards(folder: Path) -> list[str]:
    """Return files that the index of the weights names and that are missing, as after a broken download or copy."""
    index = folder / f"{_SINGLE}.index.json"
    if not index.is_file() or (folder / _SINGLE).is_file():
        return []
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict):
        raise ModelError(f"The model file {str(index)!r} names no weight files; download it again.")
    return sorted({str(file) for file in shards.values() if not (folder / str(file)).is_file()})


def _from_hub(name: str, hub_name: str, revision: str | None, nested: bool) -> Checkpoint:
    at = f"{hub_name} (revision {revision})" if revision else hub_name
    unwanted = _UNWANTED[1:] if nested else _UNWANTED
    folder = hub.snapshot(hub_name, revision, _WANTED, unwanted)
    if not _is_model(folder, nested):
        raise UsageError(f"The model {at} holds no config.json at its top; name a checkpoint that transformers reads.")
    _require_safetensors(at, folder, "connect to the model hub and run the same command again", nested)
    return Checkpoint(name, folder, folder.name, local=False)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ModelError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"The model file {str(path)!r} cannot be read ({first_line(error)}); get it again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"The model file {str(path)!r} is not a JSON object; get it again.")
    return content


def fingerprint(folder: Path, nested: bool = False) -> str:
    """Return a content hash (16 hex digits) of a checkpoint's settings, tokenizer and weights.

    Weights of up to 64 MiB together count to the last byte. For larger ones, the hash covers names, sizes, headers and
    8 pieces of 4 KiB per tensor, evenly spread from start to end (short tensors whole). Training changes all of a
    tensor, but an edit between the pieces, such as of one row of a large matrix, goes unnoticed. `nested` includes
    subfolders.
    """
    digest, find = hashlib.sha256(), folder.rglob if nested else folder.glob
    for path in sorted({path for pattern in _SMALL for path in find(pattern)}):
        digest.update(_inside(path, folder) + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    weights = sorted(find("*.safetensors"))
    whole = sum(path.stat().st_size for path in weights) <= _WHOLE
    for path in weights:
        digest.update(_inside(path, folder) + b"\0" + struct.pack("<Q", path.stat().st_size))
        for piece in _pieces(path, whole):
            digest.update(piece)
    return digest.hexdigest()[:16]


def _inside(path: Path, folder: Path) -> bytes:
    return path.relative_to(folder).as_posix().encode()


def _pieces(path: Path, whole: bool) -> Iterator[bytes]:
    """Yield the header of a weight file, then all that follows it or samples of every tensor."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_HEADER_LIMIT, path.stat().st_size):
            raise ModelError(f"The weights {str(path)!r} are damaged or not safetensors; get them again.")
        header = file.read(length)
        yield header
        try:
            tensors = _tensors(header)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"The weights {str(path)!r} are damaged or not safetensors; get them again.") from error
        if whole:
            yield from iter(lambda: file.read(2**20), b"")
            return
        for start, end in tensors:
            for at in _spread(start, end):
                file.seek(8 + length + at)
                yield file.read(min(_SAMPLE, end - at))


def _tensors(header: bytes) -> list[tuple[int, int]]:
    """Return where each tensor begins and ends, from the end of the header. A damaged header raises various errors."""
    tensors = []
    for name, about in json.loads(header).items():
        if name[:2] != "__":
            start, end = about["data_offsets"]
            if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end < 2**62):
                raise ValueError("offsets that no file has")
            tensors.append((start, end))
    return sorted(tensors)


def _spread(start: int, end: int) -> Sequence[int]:
    """Return where the samples of a tensor begin: the first at its start, the last so that it ends with the tensor."""
    room = end - start - _SAMPLE
    if room < _SAMPLES * _SAMPLE:
        return range(start, end, _SAMPLE)
    return [start + room * i // (_SAMPLES - 1) for i in range(_SAMPLES)]
