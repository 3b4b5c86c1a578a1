"""Codecs for visual tokens: what the token index stores instead of pictures.

`parse_codec(name)` gives a codec, `train_codebook` and `load_codebook` what some of them need.
`docs/reference/tokens.md` has the names, the rules and the bytes. Knows no model and no table.
"""

from looktwice.codecs.codebook import Codebook, codebook_from_bytes, load_codebook, train_codebook
from looktwice.codecs.codec import Codec
from looktwice.codecs.layout import from_json as layout_from_json
from looktwice.codecs.layout import to_json as layout_to_json
from looktwice.codecs.layout import token_count
from looktwice.codecs.spec import EXAMPLES, parse_codec

__all__ = [
    "EXAMPLES",
    "Codebook",
    "Codec",
    "codebook_from_bytes",
    "layout_from_json",
    "layout_to_json",
    "load_codebook",
    "parse_codec",
    "token_count",
    "train_codebook",
]
