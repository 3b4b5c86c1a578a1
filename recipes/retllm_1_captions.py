"""RetLLM (arXiv 2602.22278), table 1: Flickr30K, COCO, ShareGPT4V, Urban1K and SugarCrepe, R@1 (= success@1).

    python recipes/retllm_1_captions.py --root DATA [--as released]

DATA has the folders flickr30k, coco, sharegpt4v, urban1k and sugarcrepe.

What cannot be reproduced exactly:
- The paper writes numbers and breaks ties by a second question; its code reads P("True"), and picture → text is one
  question over all captions. Which of the two gave the printed figures is not known: --as paper, released or ours.
- Layer and trigger of the re-injection, decoding settings and seeds of the reported runs are not stated.
- The released pixel budget (256 to 512 tokens a picture) is not set; the checkpoint's own holds.
- CLIP ViT-L at 336 px is published as pickled weights only; give a converted folder with --encoder.
- EVA-CLIP, E5-V, VLM2Vec and UniME are printed as published; they are not run.
"""

from typing import Any

import retllm
from common import Column, Row, main, run


def recipe(arguments: list[str] | None = None) -> dict[str, Any]:
    chosen = retllm.options(__doc__).parse_args(arguments)
    rows = [
        Row("CLIP ViT-L", chosen.encoder),
        Row("RetLLM", chosen.encoder, chosen.mllm, **retllm.AS[chosen.system]),
    ]
    parts = [Column(f"SugarCrepe {g}", "sugarcrepe", "sugarcrepe", group=g) for g in ("Replace", "Swap", "Add")]
    return run("retllm-1", rows, [*retllm.columns(), *parts], chosen)


if __name__ == "__main__":
    main(recipe)
