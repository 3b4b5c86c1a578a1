"""Reading somebody else's pickle without running it: containers, numbers, strings and numeric arrays, nothing else."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from looktwice.errors import UsageError

MAX_BYTES = 2**26
_NUMPY = ("_reconstruct", "scalar")
_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} | {
    (f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in _NUMPY
}


class _Careful(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def unpickle(path: Path) -> Any:
    """Return what a pickle file holds. Raises UsageError for one that asks for anything but data, is broken or huge."""
    if path.stat().st_size > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES:,} bytes; labels are smaller. Fetch it again.")
    try:
        return _Careful(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UsageError(f"{path} is no pickle of plain data ({error}); it was not loaded. Fetch it again.") from None
