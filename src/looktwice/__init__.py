"""Look once to find candidates, look twice to rank them.

    from looktwice import Item, MllmReranker, Reranker, Retriever, Table, index, load_encoder, load_scorer, scan

Names load when they are first used, so that `import looktwice` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from looktwice.client import AsyncClient, Client
    from looktwice.encode import load_encoder
    from looktwice.indexing import index
    from looktwice.score import Scorer, ScorerConfig, load_scorer
    from looktwice.search.mllm_reranker import MllmReranker
    from looktwice.search.reranker import Reranker
    from looktwice.search.retriever import Retriever
    from looktwice.sources import scan
    from looktwice.store import Table
    from looktwice.types import Item

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "Client",
    "Item",
    "MllmReranker",
    "Reranker",
    "Retriever",
    "Scorer",
    "ScorerConfig",
    "Table",
    "__version__",
    "index",
    "load_encoder",
    "load_scorer",
    "scan",
]

_HOME = {
    "AsyncClient": "client",
    "Client": "client",
    "Item": "types",
    "Reranker": "search.reranker",
    "Retriever": "search.retriever",
    "Scorer": "score",
    "ScorerConfig": "score",
    "MllmReranker": "search.mllm_reranker",
    "Table": "store",
    "index": "indexing",
    "load_encoder": "encode",
    "load_scorer": "score",
    "scan": "sources",
}


_RENAMED = {"SecondLook": "MllmReranker"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from looktwice.errors import warn_renamed

        warn_renamed(f"looktwice.{name}", new := _RENAMED[name])
        name = new
    if name in _HOME:
        return getattr(import_module(f"looktwice.{_HOME[name]}"), name)
    raise AttributeError(f"module 'looktwice' has no attribute {name!r}")
