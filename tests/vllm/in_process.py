"""Score the pairs of a JSON file with `vllm:MODEL`, and print p: runs in the environment that has vLLM."""

import json
import sys

from PIL import Image

from looktwice.score import load_scorer
from looktwice.types import Item


def item(path: str) -> Item:
    return Item(path, Image.open(path).convert("RGB"))


if __name__ == "__main__":
    query, *candidates = json.loads(sys.argv[1])
    scorer = load_scorer("vllm:tiny-vl", prompt="object", dtype="float32")
    scores = scorer.score(item(query), [item(path) for path in candidates])
    print(json.dumps({"p": scores.p.tolist(), "status": scores.status, "settings": dict(scorer.settings())}))
