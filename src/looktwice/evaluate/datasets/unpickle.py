"""Read somebody else's pickle without running it: containers, numbers, strings and numeric arrays, nothing else."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from looktwice.errors import UsageError

MAX_BYTES = 2**26
_PLAIN = re.compile(r"[biufSU][0-9]{1,6}|O8?")


class _Kind:
    """A replacement for numpy.dtype, whose own state a hostile pickle may fill with false object offsets."""

    def __init__(self, name: str, *_: object) -> None:
        if not _PLAIN.fullmatch(name):
            raise pickle.UnpicklingError(f"it holds an array of {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *inside = state
        if inside[:3] != [None] * 3:
            raise pickle.UnpicklingError("it holds an array of records")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array that takes its dtype from a `_Kind` only; numpy then checks shape and bytes against it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, kind, fortran, data = state
        super().__setstate__((version, shape, kind.dtype, fortran, data))


def _reconstruct(*_: object) -> _Array:
    return np.ndarray.__new__(_Array, (0,), "b")


def _scalar(kind: _Kind, data: bytes | str) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, kind.dtype, 1)[0]


def _encode(text: str, _: str = "latin1") -> bytes:
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
}
for _core in ("core", "_core"):
    _ALLOWED[f"numpy.{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"numpy.{_core}.multiarray", "scalar"] = _scalar


class _Careful(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def unpickle(path: Path) -> Any:
    """Return the contents of a pickle file. Raises UsageError if it asks for anything but data, is broken or huge."""
    if path.stat().st_size > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES:,} bytes, which no label file has; fetch it again.")
    try:
        data = path.read_bytes()
        _check_memo(data)
        return _Careful(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UsageError(
            f"{path} is not a pickle of plain data ({error}) and was not loaded; fetch it again."
        ) from None


def _check_memo(data: bytes) -> None:
    """Refuse a memo index above the file's length, because memory is allocated for every index up to it."""
    for opcode, index, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(index or 0) <= len(data):
            raise pickle.UnpicklingError(f"its memo index {index} is too large")
