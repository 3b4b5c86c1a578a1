"""Find the token ids of a prompt's labels in the tokenizer of a server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from looktwice.errors import ServerError
from looktwice.score.prompting.prompt import Prompt
from looktwice.score.readout import labels
from looktwice.score.readout.probability import LabelIds
from looktwice.score.remote.endpoint import Endpoint


async def resolve(server: Endpoint, model: str, prompt: Prompt) -> LabelIds | None:
    """Return the labels' ids as the server spells them; None if it has no /tokenize.

    Raises UsageError as `readout.labels.resolve` does.
    """
    known: dict[str, tuple[list[int], list[str]]] = {}
    for text in (variant for label in prompt.labels for variant in label.variants):
        found = await _tokenize(server, model, text)
        if found is None:
            return None
        known[text] = found
    return labels.resolve(prompt, _Spelled(known))


async def _tokenize(server: Endpoint, model: str, text: str) -> tuple[list[int], list[str]] | None:
    body = {"model": model, "prompt": text, "add_special_tokens": False, "return_token_strs": True}
    try:
        reply = await server.ask("POST", f"{server.address.root}/tokenize", json.dumps(body).encode())
    except ServerError as error:
        if server.away or error.status in (401, 402, 403):
            raise
        return None
    ids, strings = reply.get("tokens"), reply.get("token_strs")
    if not isinstance(ids, list) or not ids or not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        return None
    known = isinstance(strings, list) and len(strings) == len(ids) and all(isinstance(s, str) for s in strings)
    return ids, list(strings) if known and isinstance(strings, list) else [text] * len(ids)


class _Spelled:
    """As much of a tokenizer as `readout.labels` asks, from what a server said."""

    unk_token_id = None

    def __init__(self, known: Mapping[str, tuple[Sequence[int], Sequence[str]]]) -> None:
        self._known = known
        self._strings = {i: s for ids, strings in known.values() for i, s in zip(ids, strings, strict=True)}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return list(self._known[text][0])

    def convert_ids_to_tokens(self, token: int) -> str:
        return self._strings[token]

    def get_vocab(self) -> dict[str, int]:
        return {string: i for i, string in self._strings.items()}
