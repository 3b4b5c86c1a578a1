"""Compress visual tokens: a codec makes the bytes that the token index stores instead of images.

`parse_codec(name)` gives a codec; `train_codebook` and `load_codebook` give the codebook that some need.
`docs/reference/tokens.md` has the names, the rules and the bytes. This package knows neither models nor tables.
"""

from looktwice.codecs.codebook import Codebook, codebook_from_bytes, load_codebook
from looktwice.codecs.codec import Codec, CodecRecord
from looktwice.codecs.layout import from_json as layout_from_json
from looktwice.codecs.layout import to_json as layout_to_json
from looktwice.codecs.layout import token_count
from looktwice.codecs.spec import EXAMPLES, parse_codec
from looktwice.codecs.training import train_codebook

__all__ = [
    "EXAMPLES",
    "Codebook",
    "Codec",
    "CodecRecord",
    "codebook_from_bytes",
    "layout_from_json",
    "layout_to_json",
    "load_codebook",
    "parse_codec",
    "token_count",
    "train_codebook",
]
