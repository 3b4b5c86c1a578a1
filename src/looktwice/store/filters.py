"""Check a user's filter before any SQL parser sees it.

The database's parser stops at the end of the first complete expression and ignores the rest. Its planner overflows the
stack on long chains of operators. So only known tokens pass, brackets must pair up, and there are limits. A filter that
passes is, in parentheses, one expression or an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MOST_CHARACTERS = 4_000_000
"""Longest filter. An IN list of 100,000 ids (0.9 million characters) takes one second."""

MOST_OPERATORS = 250
"""Most names, keywords and operators in a filter; values and commas do not count, so that an IN list may be long.

The shortest chain that ended the process (signal 11) held between 400 and 800 of these; with 200 nothing took more than
three seconds.
"""

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<comment>--|/\*)
    | (?P<text>'[^']*+(?:''[^']*+)*+')
    | (?P<name>"[^"]*+(?:""[^"]*+)*+"|`[^`]*+(?:``[^`]*+)*+`)
    | (?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<word>[^\W\d]\w*)
    | (?P<open>[(\[])
    | (?P<close>[)\]])
    | (?P<comma>,)
    | (?P<operator>::|<=|>=|<>|!=|==|\|\||<<|>>|[=<>+\-*/%.])
    """,
    re.VERBOSE,
)
_VALUES = ("text", "number", "comma", "open", "close")


def check(where: str) -> None:
    """Raise ValueError, with the cause, unless a filter is one expression within the limits."""
    if len(where) > MOST_CHARACTERS:
        raise ValueError(f"it has {len(where):,} characters, but at most {MOST_CHARACTERS:,} are allowed")
    opened: list[str] = []
    operators, before = 0, ""
    for kind, token, place in _tokens(where):
        if kind == "open":
            opened.append(token)
        elif kind == "close" and (not opened or opened.pop() + token not in ("()", "[]")):
            raise ValueError(f"the {token} at character {place} has no opening bracket")
        sign = token in "+-" and before in ("open", "comma")  # of a value in a list
        operators += kind not in _VALUES and not sign
        before = kind
    if opened:
        raise ValueError(f"a {opened[-1]} is not closed")
    if operators > MOST_OPERATORS:
        raise ValueError(
            f"it has {operators:,} names, keywords and operators, but at most {MOST_OPERATORS} are allowed; "
            "match many values with id IN ('a', 'b')"
        )


def split_and(where: str) -> list[str]:
    """Return the conditions that a checked filter joins by AND; the whole filter if OR or BETWEEN stand beside it.

    >>> split_and("year > 2020 and (a = 1 OR b = ' and ')"), split_and("a = 1 OR b = 2 AND c")
    (['year > 2020', "(a = 1 OR b = ' and ')"], ['a = 1 OR b = 2 AND c'])
    """
    depth, begin, parts = 0, 0, []
    for kind, token, place in _tokens(where):
        depth += (kind == "open") - (kind == "close")
        word = token.upper() if kind == "word" and not depth else ""
        if word in ("OR", "BETWEEN", "CASE", "NOT"):
            return [where.strip()]
        if word == "AND":
            parts.append(where[begin : place - 1].strip())
            begin = place + len(token) - 1
    return [*parts, where[begin:].strip()]


def quote(value: str) -> str:
    """Return a SQL string literal; a quote is doubled and nothing else is special.

    >>> print(quote("it's a \\\\ "))
    'it''s a \\ '
    """
    return "'" + value.replace("'", "''") + "'"


def _tokens(where: str) -> Iterator[tuple[str, str, int]]:
    """Yield kind, text and place (from 1) of each token except space. Raises ValueError for an unknown token."""
    end, touches = 0, False
    while end < len(where):
        start, found = end, _TOKEN.match(where, end)
        kind = (found.lastgroup if found else None) or ""
        if found is None or kind == "comment" or (touches and where[start] in "'\"`"):
            raise ValueError(_unknown(where, start, kind))
        end = found.end()
        touches = kind in ("text", "name", "number", "word")
        if kind != "space":
            yield kind, found[0], start + 1


def _unknown(where: str, start: int, kind: str) -> str:
    place = f"at character {start + 1}"
    if kind == "comment":
        return f"the {where[start : start + 2]} {place} begins a comment; remove it"
    if kind in ("text", "name"):
        return f"the quote {place} needs a space before it"
    if where[start] in "'\"`":
        return f"the quote {place} is not closed"
    return f"{where[start]!r} {place} is not allowed outside quotes"
