"""Store the visual tokens that a middle look needs, before a run."""

from __future__ import annotations

from looktwice.experiment.progress import Bar
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.token_choice import AUTO, IMAGES
from looktwice.sources import Urls
from looktwice.sources.loader import CandidateRef
from looktwice.store import Table
from looktwice.token_index import add_tokens
from looktwice.types import Item

CODEC, CROPS_CODEC = "int8", "opq8"


def store_tokens(
    table: Table, look: MllmReranker, codec: str, bar: Bar, urls: Urls = "refused", *, crops: bool = False
) -> bool:
    """Store the images' visual tokens; return False if the model makes none.

    `codec` "auto" means int8, and opq8 with crops, which are five times as many tokens.
    """
    from PIL import Image

    scorer = look.scorer_for(Item("", image=Image.new("RGB", (8, 8))), [CandidateRef("", "candidate")])
    if scorer.tokens() is None:
        return False
    usual = CROPS_CODEC if crops else CODEC
    name = usual if codec in (AUTO, IMAGES) else codec
    add_tokens(table, scorer, name, urls=urls, crops=crops, progress=lambda now: bar.at(now.done))
    return True
