"""Store the visual tokens that a middle look needs, before a run."""

from __future__ import annotations

import logging

from looktwice.experiment.progress import Bar
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.token_choice import AUTO, IMAGES
from looktwice.sources import Urls
from looktwice.sources.loader import CandidateRef
from looktwice.store import Table
from looktwice.token_index import add_tokens
from looktwice.token_index.crops import cropped
from looktwice.token_index.sets import matching
from looktwice.types import Item, TokensInfo

log = logging.getLogger(__name__)

CODEC, CROPS_CODEC = "int8", "opq8"


def store_tokens(
    table: Table,
    look: MllmReranker,
    codec: str,
    bar: Bar,
    urls: Urls = "refused",
    *,
    crops: bool = False,
    announced: bool = False,
) -> bool:
    """Store the images' visual tokens; return False if the model makes none.

    `codec` "auto" means int8, and opq8 with crops, which are five times as many tokens. With `announced` the log says
    before the work how many images get tokens, and where.
    """
    from PIL import Image

    scorer = look.scorer_for(Item("", image=Image.new("RGB", (8, 8))), [CandidateRef("", "candidate")])
    maker = scorer.tokens()
    if maker is None:
        return False
    usual = CROPS_CODEC if crops else CODEC
    name = usual if codec in (AUTO, IMAGES) else codec
    info = cropped(maker.tokens_info()) if crops else maker.tokens_info()
    if announced and (left := _left(table, info, name)):
        what = f"visual tokens of {left:,} images{' and their crops' if crops else ''}"
        log.info("--maxsim needs stored tokens, so it first stores %s (%s) in %s.", what, name, table.path)
    add_tokens(table, scorer, name, urls=urls, crops=crops, progress=lambda now: bar.at(now.done))
    return True


def _left(table: Table, info: TokensInfo, codec: str) -> int:
    """Return how many images have no tokens of this model and codec."""
    known = matching(table, info, codec)
    if not known:
        return table.count("width > 0")
    return sum(map(len, table.pending_tokens(known[-1]["tokens_key"])))
