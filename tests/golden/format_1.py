"""Write a small table in the on-disk format of today, and the facts that a later version must find in it.

    python tests/golden/format_1.py FOLDER     # 12 images of the bundled gallery, seen as FOLDER, and one broken file

The committed files were made by the version before any table was changed; making them anew would defeat their purpose.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

from looktwice import Table, index, load_encoder, scan
from looktwice.codecs import layout_from_json
from looktwice.experiment.demo import bundled_gallery
from looktwice.score import load_scorer
from looktwice.token_index import add_tokens
from looktwice.token_index.sets import open_set

HERE = Path(__file__).parent
PLACE = {"device": "cpu", "dtype": "float32"}


def main(folder: Path) -> None:
    folder.mkdir()
    for path in sorted((bundled_gallery() / "images").glob("*.jpg"))[:12]:
        shutil.copy(path, folder)
    (folder / "broken.jpg").write_bytes(b"no image")
    encoder, scorer = load_encoder("tiny-clip", **PLACE), load_scorer("tiny-vl", **PLACE)
    shutil.rmtree(HERE / "format-1", ignore_errors=True)
    table = Table.create(HERE / "format-1", encoder.info, columns={"year": int})
    index(table, scan([folder]), encoder)
    for codec in ("int8", "pq8"):
        add_tokens(table, scorer, codec)
    table.compact(purge=True)
    ids = sorted(row["id"] for row in table.rows())
    rows = table.get(ids)
    codes = {entry["codec"]: table.read_codes(ids, entry["tokens_key"]) for entry in table.manifest.tokens}
    first = codes["pq8"][0]
    tokens = open_set(table, scorer.tokens_info(), "pq8").codec.decode(first.codes, layout_from_json(first.layout))
    facts = {
        "ids": ids,
        "vectors": digest(row.vector.astype("<f2").tobytes() for row in rows),
        "codes": {codec: digest(row.codes for row in found) for codec, found in codes.items()},
        "ledger": [[entry.uri, entry.stage, entry.reason] for entry in table.ledger],
        "nearest": [candidate.id for candidate in table.search(rows[0].vector, 3)],
        "std": float(tokens.features.float().std()),
    }
    (HERE / "format-1.json").write_text(json.dumps(facts, indent=1) + "\n")


def digest(parts: object) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
