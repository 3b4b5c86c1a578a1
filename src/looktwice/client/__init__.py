"""Ask a `looktwice serve` from Python: the library's records, without its models. Loads neither torch nor NumPy.

from looktwice import Client

with Client("http://127.0.0.1:8765") as client:
    for hit in client.search("query.jpg", k=3).hits:
        print(hit.rank, hit.id, hit.p)
"""

from looktwice.client.answers import RemoteAnswer
from looktwice.client.http import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "RemoteAnswer"]
