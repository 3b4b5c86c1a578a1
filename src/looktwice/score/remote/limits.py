"""Find what only `models --probe` tells: the largest image a server takes, and how its prefix cache is cut."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from looktwice.errors import ServerError
from looktwice.score.remote.endpoint import Endpoint
from looktwice.score.remote.probe import Facts

SIDES = (1536, 1024, 768, 512, 224)
SideToBody: TypeAlias = Callable[[int], Mapping[str, Any]]
_BLOCK = re.compile(r'^vllm:cache_config_info\{(?:[^}]*,)?block_size="(\d+)"', re.MULTILINE)


async def more_facts(server: Endpoint, facts: Facts, body: SideToBody) -> dict[str, Any]:
    """Return the longer side of the largest square that the server takes, and the block size of its prefix cache."""
    found: dict[str, Any] = {"largest_image": await _largest(server, body)}
    if facts.served.engine.startswith("vllm"):
        size = _BLOCK.search(await server.text(f"{server.address.root}/metrics"))
        found["cache_block"] = int(size[1]) if size else None
    return found


async def _largest(server: Endpoint, body: SideToBody) -> int | None:
    for side in SIDES:
        try:
            await server.ask("POST", server.address.base + "/chat/completions", json.dumps(body(side)).encode())
        except ServerError as error:
            if error.stops:
                raise
            continue
        return side
    return None
