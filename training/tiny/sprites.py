"""Collect the drawings: read every source, name each object, split by object, pack as small RGBA sprites.

    python training/tiny/sprites.py --npm node_modules --clipart /usr/share/openclipart/png --out DATA

Writes DATA/sprites.npz (pixels, offsets) and DATA/sprites.jsonl, one line per drawing:
{"vendor", "object", "label", "words", "group", "split"}. An object is what a drawing shows, not who drew it: all
vendors, skin tones and genders of one emoji share one object and so one split. What is not for training, but goes by a
name that a training drawing goes by too ("bat" and somebody's "bat jonathan"), is of the split "met": not trained on,
and not asked about. One set of emoji is of the splits "artist" and "artist validation": names that training has met, by
a hand that it has not.
"""

from __future__ import annotations

import argparse
import colorsys
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 96
CLIPART_LEFT_OUT = (
    "computer/icons",
    "shapes",
    "special",
    "signs_and_symbols/flags",
)  # icon themes, abstract shapes, patterns
GENDER = re.compile(r"\b(man|woman|men|women|male|female|person|people|boy|girl|girls|boys|adult)\b")
ICON_SETS = {"noto-v1": "noto1", "emojione": "emojione2", "flat-color-icons": "flat"}
STUDY_SETS = (  # only ever in training: more things, more hands
    "streamline-emojis", "streamline-color", "streamline-kameleon-color", "streamline-plump-color",
    "streamline-flex-color", "streamline-ultimate-color", "streamline-cyber-color", "streamline-stickies-color",
    "icon-park", "game-icons", "temaki",
)  # fmt: skip
ARTIST = "fxemoji"  # never in training
VARIANT = re.compile(r"\b(flat|duo|one|two|three|four|five|abstract|outline|fill)\b|\d+")
SKIN = re.compile(r"-?(medium-)?(light|dark|medium)-skin-tone")
NO_NAMES = "and the with you new type set david petri saint twilight entry lost states emblem park bad guy"
"""Words that emoji keywords know, too, but that name nothing in a clip-art file's name."""
LOOKS = "red orange yellow green blue purple pink brown white grey gray black small large big dark"


def object_key(label: str) -> str:
    """The identity of an object: its label without gender, skin tone, numbering, case or punctuation."""
    words = re.sub(r"[^a-z ]", " ", GENDER.sub(" ", label.lower()))
    return " ".join(sorted(set(words.split()))) or label.lower()


def fraction(text: str) -> float:
    """A number in [0, 1] that only the text decides."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF


def split_of(key: str) -> str:
    """80 % train, 6 % validation, 14 % held-out, by hash alone."""
    share = fraction(key)
    return "train" if share < 0.80 else "validation" if share < 0.86 else "heldout"


def emoji(npm: Path) -> Iterator[tuple[dict[str, object], Image.Image]]:
    keywords = json.loads((npm / "emojilib/dist/emoji-en-US.json").read_text())
    for vendor in ("google", "twitter"):
        package = npm / f"emoji-datasource-{vendor}"
        for entry in json.loads((package / "emoji.json").read_text()):
            path = package / f"img/{vendor}/64" / entry["image"]
            if not path.exists() or entry["category"] == "Component":
                continue
            label, *words = emoji_names(entry, keywords)
            group = f"emoji/{entry['subcategory']}"
            record = {"vendor": vendor, "label": label, "words": words[:5], "group": group}
            yield record, Image.open(path).convert("RGBA")


def icons(npm: Path) -> Iterator[tuple[dict[str, object], Image.Image]]:
    for name, vendor in ICON_SETS.items():
        for icon, image in drawn(npm, name):
            yield {"vendor": vendor, "label": icon.replace("-", " "), "words": [], "group": f"icons/{name}"}, image


def artist(npm: Path) -> Iterator[tuple[dict[str, object], Image.Image]]:
    """The drawings of ARTIST that are named as some emoji is, with that emoji's label, keywords and group."""
    keywords = json.loads((npm / "emojilib/dist/emoji-en-US.json").read_text())
    known: dict[str, dict[str, object]] = {}
    for entry in json.loads((npm / "emoji-datasource-google/emoji.json").read_text()):
        names = emoji_names(entry, keywords)
        record = {"vendor": ARTIST, "label": names[0], "words": names[1:6], "group": f"emoji/{entry['subcategory']}"}
        for name in filter(None, (entry["name"], *entry["short_names"], names[0])):
            known.setdefault(letters(name), record)
    for icon, image in drawn(npm, ARTIST):
        if letters(icon) in known:
            yield known[letters(icon)], image


def letters(name: str) -> str:
    """A name without case, spaces and punctuation, as this set spells them."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def emoji_names(entry: dict[str, str], keywords: dict[str, list[str]]) -> list[str]:
    """The label of an emoji and then its keywords; its Unicode name where it has none."""
    char = "".join(chr(int(code, 16)) for code in entry["unified"].split("-"))
    known = keywords.get(char) or keywords.get(char.rstrip("\ufe0f")) or [entry["name"]]
    return [known[0].replace("_", " ").replace("-", " ").lower(), *(word.replace("_", " ") for word in known[1:])]


def study(npm: Path) -> Iterator[tuple[dict[str, object], Image.Image]]:
    for name in STUDY_SETS:
        for icon, image in drawn(npm, name):
            label = " ".join(VARIANT.sub(" ", icon.replace("-", " ")).split()[:3])
            if label:
                yield {"vendor": name, "label": label, "words": [], "group": f"icons/{name}"}, image


def drawn(npm: Path, name: str) -> Iterator[tuple[str, Image.Image]]:
    """(name, picture) of every icon of a set but skin tones; one that leaves its colour open gets one by its name."""
    import resvg_py

    data = json.loads((npm / f"@iconify-json/{name}/icons.json").read_text())
    for icon, entry in data["icons"].items():
        if SKIN.search(icon):
            continue
        w, h = entry.get("width", data.get("width", 16)), entry.get("height", data.get("height", 16))
        red, green, blue = colorsys.hsv_to_rgb(fraction(icon), 0.8, 0.3 + 0.6 * fraction(icon[::-1]))
        body = entry["body"].replace("currentColor", f"rgb({255 * red:.0f},{255 * green:.0f},{255 * blue:.0f})")
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}">{body}</svg>'
        png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE)
        yield icon, Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def clipart(root: Path) -> Iterator[tuple[dict[str, object], Image.Image]]:
    Image.MAX_IMAGE_PIXELS = None  # our own sources, not a stranger's
    for path in sorted(root.rglob("*.png")):
        folder = path.parent.relative_to(root).as_posix()
        if folder.startswith(CLIPART_LEFT_OUT):
            continue
        stem = re.sub(r"[_-]+", " ", path.stem.lower())
        label = " ".join(re.sub(r"\d+", " ", re.sub(r"\s[a-z]{1,2}\b", " ", stem)).split()[:3])
        image = Image.open(path)
        image.thumbnail((SIDE * 2, SIDE * 2))
        words = [] if folder == "unsorted" else folder.replace("_", " ").split("/")
        yield (
            {"vendor": "openclipart", "label": label or folder, "words": words, "group": f"clipart/{folder}"},
            image.convert("RGBA"),
        )


def trim(image: Image.Image) -> Image.Image | None:
    """Cut to what is drawn and shrink to SIDE; None for a drawing that is empty or a sliver."""
    box = image.getchannel("A").point(lambda a: 255 if a > 16 else 0).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    if min(image.size) * 6 < max(image.size):
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def stems(key: str) -> frozenset[str]:
    return frozenset(word.rstrip("s") for word in key.split())


def without_strays(records: list[dict[str, object]]) -> list[int]:
    """Rows to keep. An icon set spells some emoji otherwise; unmatched ones could hide in another split, so they go.
    So does every drawing for study that names, among other words, what another split shows. Of the set that is never
    in training, what training knows by name stays."""
    known = {r["object"] for r in records if r["vendor"] in ("google", "twitter")}
    others = [r for r in records if r["vendor"] not in (*STUDY_SETS, ARTIST)]
    kept_back = {stems(str(r["object"])) for r in others if r["split"] != "train"}

    def stays(record: dict[str, object]) -> bool:
        if record["vendor"] in STUDY_SETS:
            return record["split"] == "train" and not reveals(stems(str(record["object"])), kept_back)
        if record["vendor"] == ARTIST:
            return record["split"] == "train" and record["object"] in known
        return record["vendor"] not in ("noto1", "emojione2") or record["object"] in known

    return [row for row, record in enumerate(records) if stays(record)]


def reveals(words: frozenset[str], kept_back: set[frozenset[str]]) -> bool:
    """Whether some of these words are all of a name that is kept back."""
    return any(frozenset(some) in kept_back for n in range(1, len(words) + 1) for some in combinations(words, n))


def named_words(records: list[dict[str, object]]) -> frozenset[str]:
    """The words that name things, as far as emoji know: of a clip-art file's name, the rest says who drew it."""
    emoji = [r for r in records if r["vendor"] in ("google", "twitter")]
    texts = [text for r in emoji for text in (r["label"], *r["words"])]  # type: ignore[misc]
    return frozenset(word for text in texts for word in text.lower().split() if len(word) > 2) - set(NO_NAMES.split())


def without_met(records: list[dict[str, object]]) -> list[dict[str, object]]:
    """The records, with the split "met" where a training drawing goes by the same name, colour and size aside."""
    known = stems(" ".join(named_words(records))) - set(LOOKS.split())

    def name(record: dict[str, object]) -> frozenset[str]:
        words = stems(str(record["object"]))
        return words & known or words

    trained = {name(r) for r in records if r["split"] == "train"}
    return [{**r, "split": "met"} if r["split"] != "train" and name(r) in trained else r for r in records]


def with_artist(records: list[dict[str, object]]) -> list[dict[str, object]]:
    """The records, with splits of its own for the set that is never in training: half to choose by, half to report."""

    def split(record: dict[str, object]) -> str:
        return "artist" if fraction(f"artist {record['object']}") < 0.5 else "artist validation"

    return [{**r, "split": split(r)} if r["vendor"] == ARTIST else r for r in records]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--npm", type=Path, required=True)
    parser.add_argument("--clipart", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if not any(args.clipart.rglob("*.png")):
        sys.exit(f"No clip art below {args.clipart}: apt-get install openclipart-png")
    args.out.mkdir(parents=True, exist_ok=True)
    chunks: list[np.ndarray] = []
    shapes: list[tuple[int, ...]] = []
    records: list[dict[str, object]] = []
    seen = set()
    sources = (emoji(args.npm), icons(args.npm), clipart(args.clipart), study(args.npm), artist(args.npm))
    for source in sources:
        for record, image in source:
            sprite = trim(image)
            if sprite is None:
                continue
            pixels = np.asarray(sprite)
            digest = hashlib.sha256(pixels.tobytes()).digest()
            if digest in seen:
                continue
            seen.add(digest)
            key = object_key(str(record["label"]))
            chunks.append(pixels.reshape(-1))
            shapes.append(pixels.shape[:2])
            records.append({**record, "object": key, "split": split_of(key)})
    keep = without_strays(records)
    chunks, shapes, records = ([rows[i] for i in keep] for rows in (chunks, shapes, records))
    offsets = np.cumsum([0] + [c.size for c in chunks])
    records = with_artist(without_met(records))
    (args.out / "sprites.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    draft = args.out / "sprites.part.npz"
    np.savez(draft, pixels=np.concatenate(chunks), shapes=np.array(shapes), offsets=offsets)
    draft.replace(args.out / "sprites.npz")


if __name__ == "__main__":
    main()
