"""MLLM-ILR (arXiv 2604.13268) on INSTRE: from pixels and from PQ codes, at full and at reduced resolution.

    python recipes/mllm_ilr_instre.py --root DATA/instre

The folder holds gnd_instre.mat, INSTRE-S1, INSTRE-S2 and INSTRE-M.

What cannot be reproduced exactly, beside what `mllm_ilr.py` says of both data sets:
- Whether its lists are cut at 100 or at 1,000, and whether `object` is the prompt there, is not known: both cuts are
  printed, the prompt is `object`.
"""

from typing import Any

import mllm_ilr
from common import main

COLUMNS = ("mAP@1k", "mAP@100", "oracle@1k")


def recipe(arguments: list[str] | None = None) -> dict[str, Any]:
    chosen = mllm_ilr.options(__doc__).parse_args(arguments)
    return mllm_ilr.table("mllm-ilr-instre", "instre", COLUMNS, chosen)


if __name__ == "__main__":
    main(recipe)
