"""RetLLM (arXiv 2602.22278), table 4: the same second look on shortlists of other encoders, R@1 (= success@1).

    python recipes/retllm_4_encoders.py --root DATA --long-clip ./long-clip-l

DATA has the folders sharegpt4v and urban1k.

What cannot be reproduced exactly:
- Long-CLIP-L has code of its own: it runs where a checkpoint that transformers reads as CLIP is given, and is left
  out otherwise. The other differences are those of table 1.
"""

from typing import Any

import retllm
from common import Row, main, run


def recipe(arguments: list[str] | None = None) -> dict[str, Any]:
    options = retllm.options(__doc__)
    options.add_argument("--small", default="clip-b", help="what stands for CLIP ViT-B (default: %(default)s)")
    options.add_argument("--long-clip", help="a folder with Long-CLIP-L in CLIP's layout")
    chosen = options.parse_args(arguments)
    encoders = {"CLIP ViT-B": chosen.small, "CLIP ViT-L": chosen.encoder, "Long-CLIP-L": chosen.long_clip}
    system = retllm.AS[chosen.system]
    rows = [Row(name, encoder, chosen.mllm, **system) for name, encoder in encoders.items() if encoder]
    return run("retllm-4", rows, retllm.columns("sharegpt4v", "urban1k"), chosen)


if __name__ == "__main__":
    main(recipe)
