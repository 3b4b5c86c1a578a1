"""Answer calls of a cluster's workers in this process, which may be no part of the cluster.

Nothing in a cluster can call this process, so the calls wait in a mailbox there until a thread of this process fetches
and answers them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from threading import Thread
from typing import Any


class Mailbox:
    """What runs in the cluster: calls that wait for their answers."""

    def __init__(self) -> None:
        self._calls: asyncio.Queue[tuple[int, str, tuple[Any, ...]]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count()

    async def call(self, name: str, *given: Any) -> Any:
        """Return what the method `name` returns in the process that answers; raise what it raises."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._calls.put((number, name, given))
        return await self._answers[number]

    async def take(self) -> tuple[int, str, tuple[Any, ...]]:
        """Wait for a call and return it, with its number."""
        return await self._calls.get()

    async def answer(self, number: int, result: Any, error: Exception | None) -> None:
        """Hand the answer of a call to its caller."""
        waiting = self._answers.pop(number)
        if error is None:
            waiting.set_result(result)
        else:
            waiting.set_exception(error)


def answering(ray: Any, make: Callable[[], Any]) -> Any:
    """Return a mailbox whose calls go to the object that `make` returns, in a thread of this process."""
    box = ray.remote(num_cpus=0)(Mailbox).remote()
    Thread(target=_answer, args=(ray, box, make), daemon=True).start()
    return box


def _answer(ray: Any, box: Any, make: Callable[[], Any]) -> None:
    """Answer calls until the mailbox or the connection is gone."""
    served = make()
    while True:
        try:
            number, name, given = ray.get(box.take.remote())
            ray.get(box.answer.remote(number, *_outcome(served, name, given)))
        except (ConnectionError, ray.exceptions.RayError):
            return


def _outcome(served: Any, name: str, given: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    """Return what a method returned, or the error that it raised."""
    try:
        return getattr(served, name)(*given), None
    except Exception as error:
        return None, error
