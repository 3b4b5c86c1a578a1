"""MLLM-ILR (arXiv 2604.13268) on ILIAS: from pixels and from PQ codes, at full and at reduced resolution.

    python recipes/mllm_ilr_ilias.py --root DATA --encoder pe-l@512+linear:ilias_pe.pt

DATA is as docs of the reader `ilias` say: ilias_core, image_ids, mini_ilias (or yfcc100m for --dataset ilias).

What cannot be reproduced exactly, beside what `mllm_ilr.py` says of both data sets:
- Whether its tables are over 5 million distractors (mini-ILIAS, the default) or 100 million is not known.
- The adapted PE-L needs the linear layer from the ILIAS repository (+linear:FILE); without it the shortlist is weaker.
"""

from typing import Any

import mllm_ilr
from common import main

COLUMNS = ("mAP@1k", "oracle@1k", "success@1")


def recipe(arguments: list[str] | None = None) -> dict[str, Any]:
    options = mllm_ilr.options(__doc__)
    options.add_argument("--dataset", default="ilias-mini", choices=("ilias", "ilias-mini", "ilias-core"))
    chosen = options.parse_args(arguments)
    return mllm_ilr.table("mllm-ilr-ilias", chosen.dataset, COLUMNS, chosen)


if __name__ == "__main__":
    main(recipe)
