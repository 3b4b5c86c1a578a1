"""Ask a server: `Client` waits, `AsyncClient` is awaited; both have the same methods."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from looktwice.checked import read_json
from looktwice.client import requests
from looktwice.client.answers import MOST_BYTES, RemoteAnswer, in_our_form, raise_for, too_long
from looktwice.client.events import EventReader
from looktwice.client.requests import Call
from looktwice.errors import ServerError

R = TypeVar("R")
SECONDS = 600.0


class _Settings:
    """The address of a server and the key for it, which LOOKTWICE_API_KEY may hold."""

    def __init__(self, url: str, api_key: str | None = None, timeout: float = SECONDS) -> None:
        key = api_key or os.environ.get("LOOKTWICE_API_KEY")
        self.url = url.rstrip("/")
        self.options: dict[str, Any] = {"base_url": self.url, "timeout": httpx.Timeout(timeout, connect=10)}
        self.options["verify"] = self.url.lower().startswith("https:")  # reading certificates takes long
        self.options["headers"] = {"Authorization": f"Bearer {key}"} if key else {}

    def lost(self, error: httpx.HTTPError) -> ServerError:
        """Return the error for a server that does not answer."""
        why = str(error) or type(error).__name__
        return ServerError(
            f"No answer from {self.url} ({why}); start a server with: looktwice serve TABLE", code="lost"
        )


class Client:
    """A client of one server. `api_key` defaults to LOOKTWICE_API_KEY; `timeout` is in seconds.

    Queries and documents are paths, bytes, PIL images, texts, or dicts of "image" and "text". Raises UsageError for
    refused requests, ServerError for a server that fails, is full or does not answer.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float = SECONDS) -> None:
        self._settings = _Settings(url, api_key, timeout)
        self._http = httpx.Client(**self._settings.options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def search(self, query: Any = None, **options: Any) -> RemoteAnswer:
        """Return the answer to one search. `options`: table, k, shortlist, where, rerank, like, unlike, prompt, …"""
        return self._run(requests.search(query, options))

    def search_stream(self, query: Any = None, **options: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the events of one search as they happen: first, scores …, end. Raises what an error event says."""
        body = {**requests.search_body(query, options), "stream": True}
        try:
            with self._http.stream("POST", "/v1/search", json=body) as response:
                if response.status_code >= 400:
                    raise_for(response.status_code, _whole(response), response.headers.get("retry-after"))
                events = EventReader()
                for piece in response.iter_bytes():
                    yield from events.feed(piece)
        except httpx.HTTPError as error:
            raise self._settings.lost(error) from None

    def rerank(
        self,
        query: Any,
        documents: Sequence[Any],
        top_k: int | None = None,
        return_documents: bool = False,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Return documents, best first, as {"corpus_id", "score"}; see `looktwice.Reranker.rank`."""
        return self._run(requests.rerank(query, documents, top_k, return_documents, options))

    def score(self, queries: Any, documents: Any, **options: Any) -> list[float]:
        """Return scores of one with one, one with many, or pair by pair; NaN for a pair without one."""
        return self._run(requests.score(queries, documents, options))

    def decide(self, evidence: Any, questions: Mapping[str, str], **options: Any) -> dict[str, float]:
        """Return P(yes) by the name of each question."""
        return self._run(requests.decide(evidence, questions, options))

    def explain(self, query: Any, candidate: Any, **options: Any) -> dict[str, Any]:
        """Return one pair, taken apart."""
        return self._run(requests.explain(query, candidate, options))

    def tables(self) -> list[dict[str, Any]]:
        """Return the tables of the server."""
        return self._run(requests.tables())

    def get(self, id_: str, table: str) -> dict[str, Any]:
        """Return an item."""
        return self._run(requests.get_item(id_, table))

    def put(self, id_: str, value: Any, metadata: Mapping[str, Any] | None = None, *, table: str) -> dict[str, Any]:
        """Add or replace an item."""
        return self._run(requests.put_item(id_, value, metadata, table))

    def delete(self, id_: str, table: str) -> dict[str, Any]:
        """Delete an item."""
        return self._run(requests.delete_item(id_, table))

    def _run(self, call: Call[R]) -> R:
        try:
            with self._http.stream(call.method, call.path, json=call.body) as response:
                data = _whole(response)
        except httpx.HTTPError as error:
            raise self._settings.lost(error) from None
        return _read(call, response, data)


class AsyncClient:
    """The same as Client, with methods that are awaited."""

    def __init__(self, url: str, api_key: str | None = None, timeout: float = SECONDS) -> None:
        self._settings = _Settings(url, api_key, timeout)
        self._http = httpx.AsyncClient(**self._settings.options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def search(self, query: Any = None, **options: Any) -> RemoteAnswer:
        """See Client."""
        return await self._run(requests.search(query, options))

    async def search_stream(self, query: Any = None, **options: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """See Client."""
        body = {**requests.search_body(query, options), "stream": True}
        try:
            async with self._http.stream("POST", "/v1/search", json=body) as response:
                if response.status_code >= 400:
                    raise_for(response.status_code, await _awaited(response), response.headers.get("retry-after"))
                events = EventReader()
                async for piece in response.aiter_bytes():
                    for event in events.feed(piece):
                        yield event
        except httpx.HTTPError as error:
            raise self._settings.lost(error) from None

    async def rerank(
        self,
        query: Any,
        documents: Sequence[Any],
        top_k: int | None = None,
        return_documents: bool = False,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """See Client."""
        return await self._run(requests.rerank(query, documents, top_k, return_documents, options))

    async def score(self, queries: Any, documents: Any, **options: Any) -> list[float]:
        """See Client."""
        return await self._run(requests.score(queries, documents, options))

    async def decide(self, evidence: Any, questions: Mapping[str, str], **options: Any) -> dict[str, float]:
        """See Client."""
        return await self._run(requests.decide(evidence, questions, options))

    async def explain(self, query: Any, candidate: Any, **options: Any) -> dict[str, Any]:
        """See Client."""
        return await self._run(requests.explain(query, candidate, options))

    async def tables(self) -> list[dict[str, Any]]:
        """See Client."""
        return await self._run(requests.tables())

    async def get(self, id_: str, table: str) -> dict[str, Any]:
        """See Client."""
        return await self._run(requests.get_item(id_, table))

    async def put(
        self, id_: str, value: Any, metadata: Mapping[str, Any] | None = None, *, table: str
    ) -> dict[str, Any]:
        """See Client."""
        return await self._run(requests.put_item(id_, value, metadata, table))

    async def delete(self, id_: str, table: str) -> dict[str, Any]:
        """See Client."""
        return await self._run(requests.delete_item(id_, table))

    async def _run(self, call: Call[R]) -> R:
        try:
            async with self._http.stream(call.method, call.path, json=call.body) as response:
                data = await _awaited(response)
        except httpx.HTTPError as error:
            raise self._settings.lost(error) from None
        return _read(call, response, data)


def _whole(response: httpx.Response) -> bytes:
    """Return the bytes of an answer. Raises ServerError for too many."""
    data = bytearray()
    for piece in response.iter_bytes():
        data += piece
        if len(data) > MOST_BYTES:
            raise too_long()
    return bytes(data)


async def _awaited(response: httpx.Response) -> bytes:
    """Do what `_whole` does."""
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > MOST_BYTES:
            raise too_long()
    return bytes(data)


def _read(call: Call[R], response: httpx.Response, data: bytes) -> R:
    raise_for(response.status_code, data, response.headers.get("retry-after"))
    with in_our_form():
        return call.read(read_json(data))
