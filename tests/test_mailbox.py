"""Calls to an object outside a cluster are answered by it; test_ray.py has a real cluster and Ray's client."""

from __future__ import annotations

import asyncio

from looktwice.errors import UsageError
from looktwice.models.mailbox import Mailbox, _outcome


class Adder:
    """An object with one method."""

    def add(self, left: int, right: int) -> int:
        if left < 0:
            raise UsageError("no")
        return left + right


def test_calls_wait_for_their_own_answers() -> None:
    async def talk() -> list[object]:
        box, served = Mailbox(), Adder()
        calls = [asyncio.create_task(box.call("add", number, 10)) for number in (1, 2, -1)]
        taken = [await box.take() for _ in calls]
        for number, name, given in reversed(taken):
            await box.answer(number, *_outcome(served, name, given))
        return await asyncio.gather(*calls, return_exceptions=True)

    *sums, error = asyncio.run(talk())
    assert sums == [11, 12] and isinstance(error, UsageError) and str(error) == "no"
