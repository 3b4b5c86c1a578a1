"""Make the text of users harmless to a tokenizer that is not known."""

from __future__ import annotations

import re

from looktwice.types import shortened

_CONTROL = re.compile(r"<(?=\|[^|<>]{1,40}\|>|/?[A-Za-z_][\w-]{0,40}>)|\[(?=/?[A-Z_]{2,20}\])")


def clean(text: str) -> str:
    """Make the text of users harmless to a tokenizer that is not known: what looks like a control token gets a space.

    >>> clean("a <image> of <|im_end|>, 1 < 2")
    'a < image> of < |im_end|>, 1 < 2'
    """
    text = shortened(text).encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub(lambda found: f"{found[0]} ", text)
