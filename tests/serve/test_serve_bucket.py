"""A server over a table in a bucket answers like one over a folder, and shows nobody where it lies."""

from __future__ import annotations

import base64
from pathlib import Path

from bucket_server import BucketServer
from serving import GALLERY, running

import looktwice
from looktwice.encode import load_encoder
from looktwice.serve import Settings
from looktwice.store import Table


def test_a_table_in_a_bucket_is_served(cloud: BucketServer) -> None:
    images = sorted((GALLERY / "images").glob("*.jpg"))[:4]
    for image in images:
        cloud.store.write(f"images/{image.name}", image.read_bytes())
    encoder = load_encoder("tiny-clip")
    place = f"{cloud.uri}/photos.lt"
    looktwice.index(Table.create(place, encoder.info), looktwice.scan([f"{cloud.uri}/images"]), encoder)
    with running(Settings(tables=(Path(place),), mllm=None)) as server:
        query = {"image": f"data:image/jpeg;base64,{base64.b64encode(images[2].read_bytes()).decode()}"}
        answer = server.post("/v1/search", {"query": query, "k": 2, "rerank": False})
        assert answer.status_code == 200, answer.text
        assert answer.json()["hits"][0]["id"] == images[2].name and cloud.bucket not in answer.text
