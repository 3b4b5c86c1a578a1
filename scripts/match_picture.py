"""Draw which tokens of a gallery query found what, for docs/explanation/middle-look.md.

python scripts/match_picture.py docs/explanation/plots/matches.svg            # the shipped picture
python scripts/match_picture.py out.svg --query p05 --gallery-table demo-out/gallery.lt
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from looktwice.encode import load_encoder
from looktwice.evaluate import read_qrels
from looktwice.experiment.demo import bundled_gallery
from looktwice.indexing import index
from looktwice.report.match_drawing import data_url, match_svg
from looktwice.score import load_scorer
from looktwice.search.match_map import matches_of
from looktwice.search.retriever import Retriever
from looktwice.sources import images, scan
from looktwice.sources.queries import Queries
from looktwice.store import Table
from looktwice.token_index import add_tokens

SIDE = 144


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw which tokens of a gallery query found what.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--query", default="p00")
    parser.add_argument("--gallery-table", type=Path, help="a table of the bundled gallery with tokens")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = Table.open(args.gallery_table) if args.gallery_table else filled(Path(folder) / "gallery.lt")
        args.out.write_text(drawn(table, args.query))


def filled(path: Path) -> Table:
    encoder = load_encoder("tiny-clip", device="cpu", dtype="float32")
    table = Table.create(path, encoder.info)
    index(table, scan([bundled_gallery() / "images"]), encoder)
    add_tokens(table, load_scorer("tiny-vl", device="cpu", dtype="float32"), "int8")
    return table


def drawn(table: Table, name: str) -> str:
    """The relevant hit that the middle look lifted most."""
    gallery = bundled_gallery()
    query = next(query for query in Queries(gallery / "queries.jsonl") if query.id == name)
    relevant = {id_ for id_, grade in read_qrels(gallery / "qrels.txt")[name].items() if grade > 0}
    retriever = Retriever(table, mllm="tiny-vl", maxsim=1000, device="cpu", dtype="float32")
    answer = retriever.search(query, rerank=False)
    before = {hit.id: (hit.explain or {})["coarse_rank"] for hit in answer.ranking}
    best = max((hit for hit in answer.hits if hit.id in relevant), key=lambda hit: before[hit.id] - hit.rank)
    assert retriever.middle is not None and query.image is not None
    matches = matches_of(retriever.middle, query, [best.id])[best.id]
    found, _ = images.load((gallery / "images" / best.id).read_bytes())
    asked, shown = (data_url(images.thumbnail(image, SIDE)) for image in (query.image, found))
    caption = f"{best.id}: place {before[best.id]} of the first look, {best.rank} of the middle look"
    return match_svg(asked, shown, matches, caption)


if __name__ == "__main__":
    main()
