"""Read INSTRE (TOMM 2015) with the retrieval protocol of Iscen et al. (CVPR 2017): 1,250 queries, 27,293 images.

    ROOT/gnd_instre.mat     imlist, qimlist: paths relative to ROOT; gnd(i).ok: numbers of relevant images, from 1
    ROOT/INSTRE-S1/…, ROOT/INSTRE-S2/…, ROOT/INSTRE-M/…

Layout as VISSL's InstreDataset reads it. Queries are whole images, as there. mAP over the list cut at 1,000
(`mAP@1k`, MLLM-ILR) and at 100 (ELViS); the full-list mAP of older papers is `trapAP` with a depth of 27,293: the
code of diffusion retrieval takes trapezoids, as for ROxford.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from looktwice.errors import UsageError
from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout

FETCH = "Fetch INSTRE from its authors and gnd_instre.mat of the diffusion-retrieval protocol."
COUNTS = {"images": 27293, "queries": 1250}


def read(root: Path, partial: bool = False) -> Dataset:
    """Read INSTRE, whose labels are a MATLAB file."""
    layout = FileLayout("INSTRE", root, FETCH, partial)
    path = layout.file("gnd_instre.mat")
    layout.check()
    labels = _matlab(path)
    names, asked, truth = ([*labels[key]] for key in ("imlist", "qimlist", "gnd"))
    items = [layout.image(root / name, name) for name in names]
    queries = [Query(layout.image(root / name, f"query/{name}")) for name in asked]
    layout.count("images", len(items), COUNTS["images"])
    layout.count("queries", len(queries), COUNTS["queries"])
    if len(truth) != len(queries):
        layout.broken(path, "gnd", f"{len(queries)} entries", len(truth))
    qrels = {
        query.id: _labels(layout, path, entry, names, asked[i])
        for i, (query, entry) in enumerate(zip(queries, truth, strict=True))
    }
    return layout.finish(
        Dataset(
            "INSTRE",
            items,
            queries,
            qrels,
            ("mAP@1k", "mAP@100", "oracle@1k", "success@1"),
            depth=1000,
            prompt="object",
            notes=tuple(layout.notes),
        )
    )


def _matlab(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        found = loadmat(path, simplify_cells=True)
    except Exception as error:  # scipy raises nearly anything for a damaged file
        raise UsageError(f"{path} cannot be read as a MATLAB file ({error}); fetch it again.") from None
    for key in ("imlist", "qimlist", "gnd"):
        if key not in found or isinstance(found[key], str | dict):
            raise UsageError(f"{path} has no list {key!r}; fetch it again.")
    return dict(found)


def _labels(layout: FileLayout, path: Path, entry: Any, names: list[str], query: str) -> dict[str, int]:
    import numpy as np

    rows = np.atleast_1d(np.asarray(entry["ok"] if isinstance(entry, dict) else None, dtype=float)).astype(int)
    if rows.size == 0 or rows.min() < 1 or rows.max() > len(names):
        layout.broken(path, f"gnd of {query}", f"'ok' to hold numbers from 1 to {len(names)}", rows.tolist())
    labels = {names[i - 1]: 1 for i in rows}
    return {**labels, query: -1} if query in names else labels
