"""Identify what an item shows to a scorer, so that a score can be found again."""

from __future__ import annotations

import hashlib
import json

from looktwice.types import Item, VisualTokens


def fingerprint(item: Item, tokens_key: str = "") -> bytes:
    """Return 32 bytes that identify what an item shows: an image as pixels or as tokens, its text, or both.

    Pixels are identified by the `sha256` of their file. Tokens are identified by that and by `tokens_key`, which says
    how they were made. If one of these is missing, the content itself is hashed. The hash of an image that is not shown
    does not count.
    """
    if item.tokens is not None:
        if tokens_key and item.sha256 is not None:
            return unread(item.sha256, item.text, tokens_key)
        return _digest("tokens", _of_tokens(item.tokens), item.text)
    if item.image is not None and item.sha256 is None:
        pixels = f"{item.image.mode} {item.image.size}".encode() + item.image.tobytes()
        return _digest("pixels", hashlib.sha256(pixels).hexdigest(), item.text)
    return unread(item.sha256 if item.image is not None else None, item.text)


def unread(sha256: str | None, text: str | None, tokens_key: str = "") -> bytes:
    """Return the `fingerprint` of an item; `sha256` None: without an image; `tokens_key` "": shown as pixels."""
    if sha256 is None:
        return _digest("words", text)
    return _digest("stored", tokens_key, sha256, text) if tokens_key else _digest("file", sha256, text)


def _digest(*parts: str | None) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def _of_tokens(tokens: VisualTokens) -> str:
    digest = hashlib.sha256(repr(tokens.layout).encode())
    for tensor in (tokens.features, tokens.levels):
        if tensor is not None:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()
