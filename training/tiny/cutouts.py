"""Pack the cut-outs of `looktwice eval run scenes`: drawings of held-out objects from the Open Clip Art Library (CC0).

    python training/tiny/cutouts.py --data DATA --out src/looktwice/assets/tiny/cutouts

Writes cutouts.jsonl (one {"id", "group", "label", "met"} per line), cutouts.npz (their PNG bytes) and LICENCE.md. Of
a label, only words are kept that emoji keywords know too: the rest is file name. Labels of more than MOST_ALIKE
drawings are left out; where some training drawing goes by the same name, the line says "met". Look-alikes of one
series stay, since telling them apart is the task.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from sprites import named_words, split_of

COLOURS = 64  # of a palette with transparency
MOST_ALIKE = 6
BROKEN = ("stylized yoga person", "trumpet")  # drawn without their pictures in this release of the library
FEWEST, MOST = 0.15, 0.97  # share of the box that is drawn: no scratches, no plain rectangles
LICENCE = """# Licence of the cut-outs

The drawings are from the Open Clip Art Library, whose contributors have dedicated them to the public domain (CC0 1.0).
They were trimmed, reduced to 96 pixels and to {colours} colours.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vendor", default="openclipart")
    parser.add_argument("--limit", type=int, default=400)
    args = parser.parse_args()
    archive = np.load(args.data / "sprites.npz")
    pixels, offsets, shapes = archive["pixels"], archive["offsets"], archive["shapes"]
    records = [json.loads(line) for line in (args.data / "sprites.jsonl").read_text().splitlines()]
    known = named_words(records)
    lines, files = [], {}
    for row, r in enumerate(records):
        if split_of(r["object"]) != "heldout" or r["vendor"] != args.vendor or len(files) >= args.limit:
            continue
        if r["label"].startswith(BROKEN):
            continue
        h, w = shapes[row]
        image = Image.fromarray(pixels[offsets[row] : offsets[row + 1]].reshape(h, w, 4), "RGBA")
        drawn = float((np.asarray(image)[..., 3] > 96).mean())
        if not FEWEST <= drawn <= MOST or min(h, w) < 32:
            continue
        name = f"c{len(files):03d}"
        files[name] = png(image)
        label = " ".join(word for word in r["label"].split() if word in known)
        lines.append({"id": name, "group": r["group"], "label": label or None, "met": r["split"] == "met"})
    count = Counter(line["label"] for line in lines)
    lines = [{**line, "label": line["label"] if count[line["label"]] <= MOST_ALIKE else None} for line in lines]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "cutouts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sizes = np.cumsum([0] + [len(data) for data in files.values()])
    np.savez(args.out / "cutouts.npz", bytes=np.frombuffer(b"".join(files.values()), np.uint8), offsets=sizes)
    (args.out / "LICENCE.md").write_text(LICENCE.format(colours=COLOURS))
    labelled = sum(line["label"] is not None for line in lines)
    print(f"{len(files)} cut-outs, {sizes[-1]:,} bytes, {labelled} to ask for with words")


def png(image: Image.Image) -> bytes:
    """A palette PNG with transparency."""
    out = io.BytesIO()
    image.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    main()
