"""Serve tables over HTTP: search with a second look, rerank, score, decide, explain, and change items.

from looktwice.serve import Settings, create_app

app = create_app(Settings(tables=("photos.lt",)))   # an ASGI app, which may be mounted in another one
"""

from looktwice.serve.app import create_app
from looktwice.serve.settings import Settings

__all__ = ["Settings", "create_app"]
