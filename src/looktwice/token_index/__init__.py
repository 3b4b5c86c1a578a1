"""The token index: visual tokens of a table's pictures, compressed, stored beside them, read back for the second look.

    add_tokens(table, scorer, "pool2+pq16")           fill; goes on after an interruption
    compare_codecs(table, scorer, ["int8", "pq16"])   what each codec costs and what it changes, before anybody commits
    TokenLoader(table, scorer)                        stands in for `candidates.Reader`: codes instead of picture files

Joins `codecs`, `store` and a scorer; nothing here prints.
"""

from looktwice.token_index.compare import CodecRow, compare_codecs
from looktwice.token_index.fill import TokensReport, add_tokens
from looktwice.token_index.pictures import Progress
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
