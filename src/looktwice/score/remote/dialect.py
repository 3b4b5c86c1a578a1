"""Ask a chat server for log-probabilities, and read them: what differs from server to server."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

from looktwice.errors import ServerError
from looktwice.score.remote.reading import ListedLogprobs

MOST_NAMED = 128  # vLLM's limit of named tokens
TOPS = (100, 20, 8, 5)  # llama.cpp lists as many as it is asked for, others refuse more than 20 or 5
_ID = re.compile(r"token_id:([0-9]{1,18})")
UNLIKELY = -9998.0  # some servers write -9999 for a token of which they know no log-probability


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one server wants to be asked.

    `named`: it gives the log-probabilities of the ids in a request. `top`: how many of the likeliest tokens it lists.
    `limit`: its name for the number of tokens to write. `switch`: it takes arguments for the chat template.
    """

    named: bool
    top: int
    limit: str = "max_tokens"
    switch: bool = True
    temperature: float = 0.0

    def fields(self, ids: Sequence[int]) -> dict[str, Any]:
        """Return the fields of a request beside model and messages; `ids`: the tokens to name, if it takes them."""
        asked: dict[str, Any] = {self.limit: 1, "temperature": self.temperature, "logprobs": True}
        if self.named:
            asked |= {"logprob_token_ids": list(ids), "return_tokens_as_token_ids": True}
        else:
            asked["top_logprobs"] = self.top
        if self.switch:  # a template that knows no thinking ignores it
            asked["chat_template_kwargs"] = {"enable_thinking": False}
        return asked

    def listed(self, reply: Mapping[str, Any], ids: Sequence[int]) -> ListedLogprobs:
        """Return what an answer lists. Raises ServerError for an answer of another shape, or without the ids asked."""
        entries = top_entries(reply)
        if self.named:
            return _named(entries, ids)
        if not entries:
            raise ServerError("The server lists no token with a log-probability; use another server.")
        together: defaultdict[Hashable, list[float]] = defaultdict(list)
        for text, value in dict.fromkeys(entries):  # the drawn token may be listed twice
            together[text].append(value)
        logps = {text: _log_sum(values) for text, values in together.items()}  # two ids may spell one text
        return ListedLogprobs(logps, min(value for _, value in entries))


def dialects(named: bool) -> Iterator[Dialect]:
    """Yield dialects, the most telling one first; `named`: the labels' ids are known."""
    ways = [(True, 0)] if named else []
    for (names, top), switch, limit in product(
        [*ways, *((False, top) for top in TOPS)], (True, False), ("max_tokens", "max_completion_tokens")
    ):
        yield Dialect(names, top, limit, switch)


def top_entries(reply: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the tokens of the first position's list with their log-probabilities. Raises ServerError without one."""
    choice = only_choice(reply)
    found = choice.get("logprobs")
    named = _first(found, "top_logprobs")  # the form of completions
    if isinstance(named, Mapping):
        entries: Any = [{"token": token, "logprob": value} for token, value in named.items()]
    else:
        first = _first(found, "content")
        entries = first.get("top_logprobs") if isinstance(first, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise ServerError("The server answers without log-probabilities; use another server.")
    return [entry for entry in map(_entry, entries) if not entry[1] <= UNLIKELY]


def _first(found: object, name: str) -> Any:
    """Return the first entry of a list in a mapping, None if it is not one."""
    entries = found.get(name) if isinstance(found, Mapping) else None
    return entries[0] if isinstance(entries, list) and entries else None


def only_choice(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the one choice of an answer. Raises ServerError for none or several."""
    choices = reply.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        count = len(choices) if isinstance(choices, list) else "no"
        raise ServerError(f"The server gave {count} choices where one was asked for; use another server.")
    return choices[0]


def chosen(reply: Mapping[str, Any]) -> str:
    """Return the token that the server chose, as it names it; "" if it does not say."""
    found = only_choice(reply).get("logprobs")
    token, first = _first(found, "tokens"), _first(found, "content")
    if token is None and isinstance(first, Mapping):
        token = first.get("token")
    return "" if token is None else str(token)


def token_id(text: str) -> int | None:
    """Return the id in a token's name such as "token_id:42"."""
    found = _ID.fullmatch(text)
    return int(found[1]) if found else None


def _named(entries: Sequence[tuple[str, float]], ids: Sequence[int]) -> ListedLogprobs:
    logps: dict[Hashable, float] = {}
    for text, value in entries:
        found = token_id(text)
        if found is None:
            raise ServerError("The server does not name tokens by their ids; use another server.")
        if abs(logps.setdefault(found, value) - value) > 1e-3:
            raise ServerError(f"The server gives two log-probabilities for the token {found}; use another server.")
    if set(ids) - set(logps):
        raise ServerError("The server leaves out tokens that were asked for; use another server.")
    ListedLogprobs(logps)  # refuses numbers that are no log-probabilities, also of the token that was drawn
    return ListedLogprobs({token: logps[token] for token in ids})


def _entry(entry: object) -> tuple[str, float]:
    if isinstance(entry, Mapping):
        text, value = entry.get("token"), entry.get("logprob")
        if isinstance(text, str) and isinstance(value, float | int) and not isinstance(value, bool):
            with suppress(OverflowError):  # JSON has integers of any length
                return text, float(value)
    raise ServerError("The server lists log-probabilities in a form that is not OpenAI's; use another server.")


def _log_sum(values: Sequence[float]) -> float:
    most = max(values)
    return most if math.isinf(most) else most + math.log(math.fsum(math.exp(x - most) for x in values))
