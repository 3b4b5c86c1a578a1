"""What MLLM-ILR's recipes share (arXiv 2604.13268): five rows, from the shortlist alone to PQ at 560 px.

A sixth row is ours and not the paper's: the codes of "MLLM + PQ" are also compared token by token (`--maxsim`), and the
score joins both. It asks the MLLM about the same pairs.

What cannot be reproduced exactly on either data set:
- No table of the paper was available to us; published figures are baselines from other people's summaries.
- The details of its PQ are not known: training set, number of tokens, bits, rotation. Here 8-bit codes over sub-vectors
  of 8 dimensions (M = 448 of 3,584, as the name of a released file says) and, reduced, of 16, trained on the table's
  own pictures.
- Everything in the table gets tokens, where the paper needs those of shortlisted pictures only.
- The released script drops what it did not score; here the tail stays below. --as-released applies the checkpoint's
  repetition penalty as the released code does.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from common import Column, Row, parser, run


def options(doc: str | None) -> ArgumentParser:
    """Options of both recipes, with the paper's models and depth."""
    made = parser(doc, encoder="pe-l@512", mllm="qwen2.5-vl-7b", shortlist=1000)
    made.add_argument("--pixels", type=int, nargs=2, default=(756, 560), help="longer sides; 0: the model's own")
    made.add_argument("--codecs", nargs=2, default=("pq8", "pq16"), help="at full and at reduced resolution")
    made.add_argument("--fusion", default="0.5")
    made.add_argument("--as-released", action="store_true", help="with the checkpoint's repetition penalty")
    return made


def table(name: str, dataset: str, measures: Sequence[str], chosen: Namespace) -> dict[str, Any]:
    """Run the rows and print them beside what is known."""
    model, rule = (chosen.encoder, chosen.mllm), {"fusion": chosen.fusion}
    full, reduced = ({"resolution": pixels or None, "as_released": chosen.as_released} for pixels in chosen.pixels)
    rows = [
        Row("shortlist", *model),
        Row("MLLM", *model, full, **rule),
        Row("MLLM + PQ", *model, full, **rule, codec=chosen.codecs[0]),
        Row("ours: with a middle look", *model, full, fusion="auto", codec=chosen.codecs[0], maxsim=chosen.shortlist),
        Row("MLLM, reduced", *model, reduced, **rule),
        Row("MLLM + PQ, reduced", *model, reduced, **rule, codec=chosen.codecs[1]),
    ]
    return run(name, rows, [Column(measure, dataset, measure=measure) for measure in measures], chosen)
