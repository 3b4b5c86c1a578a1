"""Summarise a run on stderr: models, counts, speed, and what would make a slow one faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from looktwice.cli.console import note, plural

SLOW = 5.0
"""Seconds of the second look per query from which on a remedy is named."""


def summarise(manifest: Mapping[str, Any]) -> None:
    """Print models, counts and speed to stderr."""
    looks = manifest.get("second_look") or []
    for look in looks:
        name = f"{look.get('mllm', 'scorer')}@{str(look.get('revision', ''))[:12]}"
        prompt = f"prompt {look.get('prompt')} ({look.get('prompt_hash')})"
        note(f"{name} · {prompt} · {look.get('dtype')} on {look.get('device')} · {look.get('path')} path")
    counts = manifest["candidates"]
    for one in manifest.get("middle_look") or []:
        seen = counts.get("middle_look", {})
        note(f"middle look · {one['codec']} tokens · " + ", ".join(f"{n:,} {what}" for what, n in seen.items()))
    spent = sum(manifest["seconds"].values())
    second = manifest["seconds"].get("read", 0.0) + manifest["seconds"].get("score", 0.0)  # the span of pairs/s
    looked = f"{counts['scored']:,} of {counts['requested']:,} candidates reranked, fusion {manifest.get('fusion')}"
    rate = f" · second look {second:.2f} s, {_rate(manifest)}" if manifest["pairs_per_second"] else ""
    if counts["parse_errors"]:
        looked += f", {counts['parse_errors']:,} answers without a number"
    if counts.get("bounded"):
        looked += f", {counts['bounded']:,} known as an interval only"
    if counts["asked_again"]:
        looked += f", {counts['asked_again']:,} tie questions"
    what = f"{' and '.join(manifest['directions'])}: {looked}" if looks else "no second look"
    note(f"{plural(manifest['queries'], 'query', 'queries')} · {what} · {spent:.2f} s in all{rate}")
    tell_spending(looks)


def tell_spending(looks: Sequence[Mapping[str, Any]]) -> None:
    """Print what servers read and what it cost; the looks of one run share a count."""
    counted = [look["requests"] for look in looks if look.get("requests")]
    counts: Mapping[str, Any] = max(counted, key=lambda one: one.get("prompt_tokens", 0), default={})
    if counts.get("prompt_tokens"):
        money = f", which cost {counts['cost']:.4g}" if "cost" in counts else ""
        note(f"The server read {counts['prompt_tokens']:,} tokens in {counts['requests']:,} requests{money}.")


def advise(manifest: Mapping[str, Any]) -> None:
    """Name remedies if the second look took more than SLOW seconds per query."""
    looks, queries = manifest.get("second_look") or [], max(1, manifest["queries"])
    second = (manifest["seconds"].get("read", 0.0) + manifest["seconds"].get("score", 0.0)) / queries
    if not looks or second <= SLOW:
        return
    mllm, depth = looks[0].get("mllm", "NAME"), manifest.get("shortlist") or manifest.get("k") or 0
    stored = any("tokens_key" in source for source in manifest.get("candidates_from", ()))
    ways = [] if stored else [f"store visual tokens (looktwice add-tokens TABLE --mllm {mllm})"]
    ways += [f"use a smaller --shortlist than {depth}"] if depth > 10 else []
    ways += ["run the model on a GPU or a server (--mllm http://HOST:8000/v1#MODEL)"]
    note(f"The second look took {second:.1f} s a query. To make it faster: {'; '.join(ways)}.")


def _rate(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['pairs_per_second']:,} pairs/s"
