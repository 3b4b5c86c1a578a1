"""Put into words how a hit got its score; `--json` has the same as numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from looktwice.cli.console import number
from looktwice.types import Hit


def in_words(hit: Hit) -> str:
    """Return sentences on both looks, the score, and what else is known, on one line."""
    made_of = dict(hit.explain or {})
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in _parts(hit, made_of))


def _parts(hit: Hit, made_of: Mapping[str, Any]) -> Iterator[str]:
    yield f"first look: cosine {number(hit.coarse)}, place {made_of.get('coarse_rank', '?')}"
    if hit.maxsim is not None:
        yield f"middle look: {number(hit.maxsim)}, place {made_of.get('maxsim_rank', '?')}{_matches(made_of)}"
    if hit.folded:
        yield f"near-duplicates: {', '.join(hit.folded)}"
    if hit.p is None:
        yield f"second look: none ({made_of.get('status', 'not scored')})"
        return
    yield f"second look: p = {number(hit.p)}{_answers(made_of)}"
    yield from _score(hit, made_of)
    if "calibrated" in made_of:
        yield f"relevant with probability {number(made_of['calibrated'])}, by the calibration"
    if "rough_p" in made_of:
        yield f"from the coarse tokens p was {number(made_of['rough_p'])}"
    elif made_of.get("look") == "rough":
        yield "scored from the coarse tokens only"
    if "ties" in made_of:
        yield f"tied with others, ordered by the rule {made_of['ties']}{_again(made_of)}"


def _matches(made_of: Mapping[str, Any]) -> str:
    """Return where the heaviest tokens of the query found their matches, as places in shares of width and height."""
    rows = [
        f"{_middle_of(one['query'])} found {_middle_of(one['image'])} with {number(one['cosine'])} (weight "
        f"{one['weight']:.0%})"
        for one in list(made_of.get("matches") or ())[:3]
    ]
    return f"; its heaviest tokens: {', '.join(rows)}" if rows else ""


def _middle_of(box: Sequence[float]) -> str:
    return f"({(box[0] + box[2]) / 2:.0%}, {(box[1] + box[3]) / 2:.0%})"


def _answers(made_of: Mapping[str, Any]) -> str:
    """Return how the probability was shared out among the answers, and how much went to none of them."""
    shares = ", ".join(f"{share:.1%}" for share in made_of.get("labels") or ())
    told = f" (the prompt's answers got {shares}, in their order)" if shares else ""
    off, entropy = made_of.get("off_mass"), made_of.get("entropy")
    told += "" if off is None else f"; {off:.1%} of the probability went to other tokens"
    return told + ("" if entropy is None else f"; entropy {number(entropy)} nats")


def _score(hit: Hit, made_of: Mapping[str, Any]) -> Iterator[str]:
    if "from_coarse" in made_of:
        parts = f"{number(made_of['from_coarse'])} from the first look + "
        if "from_maxsim" in made_of:
            parts += f"{number(made_of['from_maxsim'])} from the middle look + "
        parts += f"{number(made_of['from_p'])} from the second"
        yield f"score {number(hit.score)} = {parts} (fusion {made_of.get('fusion')})"
    else:
        yield f"score {number(hit.score)} by the fusion {made_of.get('fusion')}"


def _again(made_of: Mapping[str, Any]) -> str:
    if "second_p" not in made_of:
        return ""
    entropy = made_of.get("second_entropy")
    told = "unknown" if entropy is None else f"{number(entropy)} nats"
    return f"; a second question gave p = {number(made_of['second_p'])}, entropy {told}"
