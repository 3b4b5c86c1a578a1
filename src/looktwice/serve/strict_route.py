"""Make routes that read JSON strictly and count large answers as held: every router of the API names StrictRoute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from looktwice.serve import strict_json
from looktwice.serve.guard import PART
from looktwice.serve.holding import hold

LONG = 100_000
"""Bodies of more bytes are parsed beside the loop, so that others do not wait."""


class StrictRequest(Request):
    """A request whose JSON is parsed strictly."""

    async def json(self) -> Any:
        """Return the value of the body. Raises Problem."""
        if not hasattr(self, "_json"):
            data = await self.body()
            parse = strict_json.parse
            self._json = parse(data) if len(data) < LONG else await asyncio.to_thread(parse, data)
        return self._json


class StrictRoute(APIRoute):
    """A route that reads StrictRequests."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See APIRoute."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            response = await handle(StrictRequest(request.scope, request.receive))
            if (size := len(getattr(response, "body", b""))) > PART:  # kept until the client has read it
                hold(size)
            return response

        return strict
