"""Load encoders by name; items become float32 unit rows. Importing this loads neither torch nor transformers."""

from __future__ import annotations

from looktwice.encode.name import EncoderName, parse
from looktwice.encode.registry import demand_same_model, load_encoder, query_encoder

__all__ = ["EncoderName", "demand_same_model", "load_encoder", "parse", "query_encoder"]
