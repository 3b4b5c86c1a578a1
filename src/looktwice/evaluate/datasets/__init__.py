"""Read the files of published benchmarks.

Nothing is downloaded: each reader says which files to fetch and checks the existing ones.

    open_dataset("roxford5k+1m", "data")     open_dataset("flickr30k:i2t", "data/flickr30k")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from looktwice.errors import UnknownName, UsageError
from looktwice.evaluate.datasets import (
    beir,
    captions,
    composed,
    folder,
    gldv2,
    hub,
    ilias,
    instre,
    met,
    mmeb,
    product1m,
    revisited,
    sugarcrepe,
)
from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.mmeb import NAMES as MMEB_NAMES

__all__ = ["Dataset", "Query", "check_name", "dataset_names", "open_dataset"]

_Open = Callable[[Path, Path, bool], Dataset]
_READERS: dict[str, _Open] = {
    "ilias": lambda root, work, partial: ilias.read(root, "full", partial=partial),
    "ilias:text": lambda root, work, partial: ilias.read(root, "full", "text", partial),
    "ilias-mini": lambda root, work, partial: ilias.read(root, "mini", partial=partial),
    "ilias-mini:text": lambda root, work, partial: ilias.read(root, "mini", "text", partial),
    "ilias-core": lambda root, work, partial: ilias.read(root, "core", partial=partial),
    "instre": lambda root, work, partial: instre.read(root, partial),
    "gldv2": lambda root, work, partial: gldv2.read(root, "private", partial),
    "gldv2:public": lambda root, work, partial: gldv2.read(root, "public", partial),
    "product1m": lambda root, work, partial: product1m.read(root, partial),
    "product1m:own": lambda root, work, partial: product1m.read(root, partial, own=True),
    "roxford5k": lambda root, work, partial: revisited.read(root, "roxford5k", False, partial),
    "roxford5k+1m": lambda root, work, partial: revisited.read(root, "roxford5k", True, partial),
    "rparis6k": lambda root, work, partial: revisited.read(root, "rparis6k", False, partial),
    "rparis6k+1m": lambda root, work, partial: revisited.read(root, "rparis6k", True, partial),
    "met": lambda root, work, partial: met.read(root, "full", "test", partial),
    "met:all": lambda root, work, partial: met.read(root, "full", "test", partial, everything=True),
    "met:val": lambda root, work, partial: met.read(root, "full", "val", partial),
    "met-mini": lambda root, work, partial: met.read(root, "mini", "test", partial),
    "sugarcrepe": lambda root, work, partial: sugarcrepe.read(root, partial),
    "cirr": lambda root, work, partial: composed.read_cirr(root, partial),
    "cirr:subset": lambda root, work, partial: composed.read_cirr(root, partial, subset=True),
    "circo": lambda root, work, partial: composed.read_circo(root, partial),
    "folder": lambda root, work, partial: folder.read(root, partial),
}
_WITH_VARIANT: dict[str, tuple[str, Callable[[Path, Path, bool, str], Dataset]]] = {
    "beir": ("test", lambda root, work, partial, split: beir.read(root, split, partial)),
    "hub": ("", lambda root, work, partial, split: hub.read(root, work, split, partial)),
}


def _caption_reader(which: str, direction: str) -> _Open:
    return lambda root, work, partial: captions.read(root, which, direction, partial)


def _mmeb_reader(which: str) -> _Open:
    return lambda root, work, partial: mmeb.read(root, which, partial)


_READERS |= {f"{w}:{d}": _caption_reader(w, d) for w in captions.IMAGES for d in ("t2i", "i2t")}
_READERS |= {f"mmeb:{which}": _mmeb_reader(which) for which in MMEB_NAMES}


def dataset_names() -> list[str]:
    """Return every name that `open_dataset` takes; `beir` and `hub` also take `:SPLIT`."""
    return sorted([*_READERS, *_WITH_VARIANT])


def check_name(name: str, besides: Sequence[str] = ()) -> None:
    """Raise UnknownName unless `name` is a benchmark or one of `besides`."""
    if name not in (*_READERS, *besides) and name.partition(":")[0] not in _WITH_VARIANT:
        raise UnknownName("benchmark", name, [*dataset_names(), *besides])


def open_dataset(name: str, root: str | Path, *, work: str | Path | None = None, partial: bool = False) -> Dataset:
    """Read a benchmark's files below `root`; images inside tables are unpacked below `work`.

    With `partial`, counts that differ from the published ones are notes instead of errors. Raises UnknownName, and
    UsageError with a list of the missing files or the place of wrong contents.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"The folder {root} does not exist; pass --root with the folder of the benchmark's files.")
    work = Path(work) if work is not None else root
    base, _, variant = name.partition(":")
    if base in _WITH_VARIANT:
        default, read = _WITH_VARIANT[base]
        return read(root, work, partial, variant or default)
    check_name(name)
    return _READERS[name](root, work, partial)
