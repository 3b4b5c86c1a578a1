"""Keep candidates that nobody could look at where the first look had placed them.

A file that is gone says nothing about its image: it must not send the best match to the last place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from looktwice.types import Hit


def keep_places(hits: Sequence[Hit], places: Mapping[str, int]) -> list[Hit]:
    """Return a ranking with some hits at fixed places: `places` maps their ids to ranks from 1.

    Their scores lie between those of their neighbours, so that scores never rise; the other hits keep theirs. Without a
    scored hit the ranking stays as it is.
    """
    if not places or not any(hit.scored for hit in hits):
        return list(hits)
    made = [hit for hit in hits if hit.id not in places]
    for hit in sorted((hit for hit in hits if hit.id in places), key=lambda hit: (places[hit.id], hit.id)):
        made.insert(places[hit.id] - 1, hit)
    return [replace(hit, rank=rank) for rank, hit in enumerate(_levelled(made, places), start=1)]


def _levelled(hits: Sequence[Hit], places: Mapping[str, int]) -> list[Hit]:
    """Return the hits with scores for those at fixed places, run by run of neighbours."""
    done: list[Hit] = []
    run: list[Hit] = []
    for hit in [*hits, None]:
        if hit is not None and hit.id in places:
            run.append(hit)
            continue
        done += _between(done[-1].score if done else None, run, None if hit is None else hit.score)
        run = []
        if hit is not None:
            done.append(hit)
    return done


def _between(above: float | None, run: Sequence[Hit], under: float | None) -> list[Hit]:
    """Return neighbours with evenly falling scores between two bounds; an open end is 1 away, or the best cosine."""
    if not run:
        return []
    low = under if under is not None else (above or 0.0) - 1
    high = above if above is not None else max(run[0].coarse, low + 1)
    steps = len(run) + 1
    levels = [low + (high - low) * (steps - n) / steps for n in range(1, steps)]
    return [replace(hit, score=max(low, min(high, level))) for hit, level in zip(run, levels, strict=True)]
