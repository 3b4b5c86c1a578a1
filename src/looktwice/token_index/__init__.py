"""Keep a table's visual tokens, compressed, beside its images, and read them back for the second look.

    add_tokens(table, scorer, "pool2+pq16")           fill; goes on after an interruption
    compare_codecs(table, scorer, ["int8", "pq16"])   measure what each codec costs and changes
    TokenLoader(table, scorer)                        an ImageLoader that reads codes instead of image files

This package joins `codecs`, `store` and a scorer. It prints nothing.
"""

from looktwice.token_index.compare import CodecRow, compare_codecs
from looktwice.token_index.fill import TokensReport, add_tokens
from looktwice.token_index.images import Progress
from looktwice.token_index.reader import POLICIES, TokenLoader
from looktwice.token_index.sets import TokenSet, open_set

__all__ = [
    "POLICIES",
    "CodecRow",
    "Progress",
    "TokenLoader",
    "TokenSet",
    "TokensReport",
    "add_tokens",
    "compare_codecs",
    "open_set",
]
