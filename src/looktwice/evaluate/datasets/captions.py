"""Read images and their captions, as queries in both directions: Flickr30K, COCO, ShareGPT4V, Urban1K.

    flickr30k   ROOT/dataset_flickr30k.json (Karpathy), ROOT/flickr30k-images/FILENAME            test: 1,000 × 5
    coco        ROOT/dataset_coco.json (Karpathy), ROOT/val2014/FILENAME (its own `filepath`)     test: 5,000 × 5
    sharegpt4v  ROOT/share-captioner_coco_lcs_sam_1246k_1107.json, ROOT/IMAGE                     first 1,000 × 1
    urban1k     ROOT/image/N.jpg, ROOT/caption/N.txt                                              1,000 × 1

Karpathy's files: {"images": [{"filename", "filepath"?, "split", "sentences": [{"raw"}]}]}; only the first five captions
count, as in RetLLM and CLIP (a few COCO images have six or seven). ShareGPT4V's: [{"image", "conversations":
[{"from", "value"}]}]; the caption is the value from "gpt". `t2i` searches images with captions, `i2t` captions with
images. Of an Urban1K file only the first line counts, as in the code of Long-CLIP and RetLLM. The papers' R@k is
`success@k`.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout, relevant
from looktwice.sources import Source

FETCH = {
    "flickr30k": "Karpathy's caption_datasets.zip holds the JSON file; the images come from the Flickr30K form.",
    "coco": "Karpathy's caption_datasets.zip holds the JSON file; val2014.zip comes from cocodataset.org.",
    "sharegpt4v": "The JSON file is in the hub dataset Lin-Chen/ShareGPT4V; its images are SA-1B's (sam/images).",
    "urban1k": "Urban1k.zip is in the hub dataset BeichenZhang/Urban1k.",
}
IMAGES = {"flickr30k": 1000, "coco": 5000, "sharegpt4v": 1000, "urban1k": 1000}
PER_PICTURE = 5
SHAREGPT4V = "share-captioner_coco_lcs_sam_1246k_1107.json"
Captioned = list[tuple[Source, list[Source]]]


def read(root: Path, which: str, direction: str = "t2i", partial: bool = False) -> Dataset:
    """Read one of the four; the queries are captions (`t2i`) or images (`i2t`)."""
    layout = FileLayout(which, root, FETCH[which], partial)
    found = {"sharegpt4v": _sharegpt4v, "urban1k": _urban}.get(which, _karpathy)(layout)
    each = PER_PICTURE if which in ("flickr30k", "coco") else 1
    images, captions = [image for image, _ in found], [text for _, texts in found for text in texts]
    layout.count("images", len(images), IMAGES[which])
    layout.count("captions", len(captions), IMAGES[which] * each)
    pairs = [(text.id, image.id) for image, texts in found for text in texts]
    asked, items = (captions, images) if direction == "t2i" else (images, captions)
    return layout.finish(
        Dataset(
            f"{which} {direction}",
            items,
            [Query(source) for source in asked],
            relevant(pairs if direction == "t2i" else [(image, text) for text, image in pairs]),
            ("success@1", "success@5", "success@10"),
            depth=10,
            notes=tuple(layout.notes),
        )
    )


def _karpathy(layout: FileLayout) -> Captioned:
    path = layout.file(f"dataset_{layout.name}.json")
    layout.check()
    images = layout.get(layout.json(path, dict), "images", list, path, "the top")
    found: Captioned = []
    for number, entry in enumerate(images):
        where = f"image {number}"
        if layout.get(entry, "split", str, path, where) != "test":
            continue
        name = layout.get(entry, "filename", str, path, where)
        folder = "flickr30k-images" if layout.name == "flickr30k" else layout.get(entry, "filepath", str, path, where)
        sentences = layout.get(entry, "sentences", list, path, where)[:PER_PICTURE]
        texts = [layout.get(sentence, "raw", str, path, where) for sentence in sentences]
        found.append(_captioned(layout, layout.root / folder / name, path, texts, number))
    return found


def _sharegpt4v(layout: FileLayout) -> Captioned:
    path = layout.file(SHAREGPT4V)
    layout.check()
    found: Captioned = []
    for number, entry in enumerate(islice(layout.json(path, list), IMAGES["sharegpt4v"])):
        where = f"entry {number}"
        turns = layout.get(entry, "conversations", list, path, where)
        said = [turn for turn in turns if isinstance(turn, dict) and turn.get("from") == "gpt"]
        if not said:
            layout.broken(path, where, "a turn from 'gpt'", turns)
        text, image = layout.get(said[0], "value", str, path, where), layout.get(entry, "image", str, path, where)
        found.append(_captioned(layout, layout.root / image, path, [text], number))
    return found


def _urban(layout: FileLayout) -> Captioned:
    images, captions = layout.folder("image"), layout.folder("caption")
    layout.check()
    found: Captioned = []
    for number, image in enumerate(sorted(images.glob("*.jpg"))):
        caption = captions / f"{image.stem}.txt"
        if caption.is_file():
            found.append(_captioned(layout, image, caption, [_first_line(caption)], number))
        else:
            layout.missing(f"caption/{caption.name}")
    return found


def _first_line(path: Path) -> str:
    """Return the first line of a caption file, which is all that Long-CLIP's and RetLLM's code reads."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline()


def _captioned(
    layout: FileLayout, file: Path, path: Path, texts: list[str], number: int
) -> tuple[Source, list[Source]]:
    image = layout.image(file)
    captions = [layout.words(path, PER_PICTURE * number + i, f"{image.id}#{i}", text) for i, text in enumerate(texts)]
    return image, captions
