"""Damage bytes at random, the same way for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

EVIL_NUMBERS = (0, -1, 1, 255, 2**16, 2**31 - 1, 2**31, 2**63, 2**64, 10**400, 0.5, float("nan"), float("inf"), -0.0)
EVIL_TEXTS = ("", " ", "\0", "a" * 70_000, "../../etc/passwd", "\ud800", "\u202e", "file:///dev/zero", "' OR 1=1 --")
EVIL = (None, True, [], {}, [[]], *EVIL_NUMBERS, *EVIL_TEXTS)


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Return other bytes: bits flipped, cut, doubled, overwritten with extremes, or another value in its JSON."""
    ways: list[Callable[[bytearray, random.Random], bytes]] = [flip, cut, drop, double, extreme, swap]
    if data[:1] in (b"{", b"["):
        return json_damaged(data, dice) if dice.random() < 0.7 else dice.choice(ways)(bytearray(data), dice)
    return dice.choice(ways)(bytearray(data), dice)


def place(data: bytearray, dice: random.Random) -> int:
    """Return a place, in the first 256 bytes half of the time: headers are there."""
    most = len(data) if dice.random() < 0.5 else min(len(data), 256)
    return dice.randrange(most) if most else 0


def flip(data: bytearray, dice: random.Random) -> bytes:
    for _ in range(dice.choice((1, 1, 4, 32))):
        if data:
            data[place(data, dice)] ^= 1 << dice.randrange(8)
    return bytes(data)


def cut(data: bytearray, dice: random.Random) -> bytes:
    return bytes(data[: place(data, dice)])


def drop(data: bytearray, dice: random.Random) -> bytes:
    start = place(data, dice)
    return bytes(data[:start] + data[start + dice.choice((1, 2, 8, 100)) :])


def double(data: bytearray, dice: random.Random) -> bytes:
    start = place(data, dice)
    return bytes(data[:start] + data[start : start + dice.choice((1, 16, 1000))] * dice.choice((2, 50)) + data[start:])


def extreme(data: bytearray, dice: random.Random) -> bytes:
    start = place(data, dice)
    data[start : start + 8] = dice.choice((b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 4, b"\x80\0\0\0"))
    return bytes(data)


def swap(data: bytearray, dice: random.Random) -> bytes:
    first, second = sorted((place(data, dice), place(data, dice)))
    return bytes(data[second:] + data[first:second] + data[:first])


def json_damaged(data: bytes, dice: random.Random) -> bytes:
    """Replace, remove or nest one value of a JSON text; of JSON Lines one line is damaged."""
    lines = data.split(b"\n")
    number = dice.randrange(len(lines))
    try:
        value = json.loads(data)
    except ValueError:
        try:
            lines[number] = json_damaged(lines[number], dice) if b"\n" in data else bytes(reversed(data))
        except RecursionError:
            return data[::-1]
        return b"\n".join(lines)
    holders = [holder for holder in walk(value) if holder]
    if not holders or dice.random() < 0.05:
        return b"[" * 100_000
    holder = dice.choice(holders)
    key = dice.choice(list(holder)) if isinstance(holder, dict) else dice.randrange(len(holder))
    if dice.random() < 0.2:
        del holder[key]
    else:
        holder[key] = dice.choice(EVIL)
    return json.dumps(value, allow_nan=True).encode("utf-8", "surrogatepass")


def walk(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(found for one in inner for found in walk(one))]
