"""RetLLM (arXiv 2602.22278), table 5: the same shortlists looked at by other MLLMs, R@1 (= success@1).

    python recipes/retllm_5_mllms.py --root DATA

DATA has the folders sharegpt4v and urban1k.

What cannot be reproduced exactly:
- Phi-3.5-V has no native class in transformers and would need code from the model hub, which looktwice never runs: its
  row shows the published figures only.
- The patched files behind the Qwen2-VL row were not released; here the same re-injection acts on every family. The
  other differences are those of table 1.
"""

from typing import Any

import retllm
from common import Row, main, run


def recipe(arguments: list[str] | None = None) -> dict[str, Any]:
    options = retllm.options(__doc__)
    options.add_argument("--qwen2", default="Qwen/Qwen2-VL-7B-Instruct", help="the second MLLM (default: %(default)s)")
    chosen = options.parse_args(arguments)
    models = {"Qwen2-VL": chosen.qwen2, "Qwen2.5-VL": chosen.mllm}
    rows = [Row(name, chosen.encoder, mllm, **retllm.AS[chosen.system]) for name, mllm in models.items()]
    return run("retllm-5", rows, retllm.columns("sharegpt4v", "urban1k"), chosen)


if __name__ == "__main__":
    main(recipe)
