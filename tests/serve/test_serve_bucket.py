"""A server over a table in a bucket answers like one over a folder, and shows nobody where it lies."""

from __future__ import annotations

import base64
from pathlib import Path

from bucket_server import BucketServer, bucket_fixture, server_fixture  # noqa: F401
from serving import GALLERY, running

import looktwice
from looktwice.buckets import Bucket
from looktwice.encode import load_encoder
from looktwice.serve import Settings
from looktwice.store import Table


def test_a_table_in_a_bucket_is_served(s3: BucketServer) -> None:
    images = sorted((GALLERY / "images").glob("*.jpg"))[:4]
    for image in images:
        Bucket("s3", s3.bucket).write(f"images/{image.name}", image.read_bytes())
    encoder = load_encoder("tiny-clip")
    place = f"{s3.uri}/photos.lt"
    looktwice.index(Table.create(place, encoder.info), looktwice.scan([f"{s3.uri}/images"]), encoder)
    with running(Settings(tables=(Path(place),), mllm=None)) as server:
        query = {"image": f"data:image/jpeg;base64,{base64.b64encode(images[2].read_bytes()).decode()}"}
        answer = server.post("/v1/search", {"query": query, "k": 2, "rerank": False})
        assert answer.status_code == 200, answer.text
        assert answer.json()["hits"][0]["id"] == images[2].name and s3.bucket not in answer.text
