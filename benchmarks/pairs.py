"""Pairs per second: the fast path from stored codes against the reference path, on the same pairs and checkpoint.

    python benchmarks/pairs.py                             # every configuration; minutes on two cores
    python benchmarks/pairs.py --only tiny-vl/k100 --repeats 1
    python benchmarks/pairs.py --clock cpu                 # count processor time: for a machine with other work on it

Configurations: the bundled tiny-vl, 100 candidates, from PQ codes and from pixels; a Qwen2.5-VL of 0.28 B random
parameters, 256 tokens per picture, 32 candidates, from PQ codes and from pooled PQ codes. Both paths are timed in
turns; the best of `--repeats` counts on both sides. Fast includes reading the codes from the table, decoding them, the
query's picture through the tower and its shared prefix. Predictions and floors come from the formulas of
docs/explanation/performance.md. Prints a table and, as its last line, one JSON object {"rows": [...], "device", …}.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import torch
from _smoke import finish, parse
from PIL import Image

from looktwice.codecs import parse_codec
from looktwice.estimate.cost import language_tokens
from looktwice.estimate.shapes import load_config, patches, shape
from looktwice.models import checkpoints
from looktwice.models.device import place, set_threads
from looktwice.score.load import load_mllm, scorer
from looktwice.score.local.engine import Engine
from looktwice.score.local.mllm import Mllm
from looktwice.score.local.reference import ReferenceScorer
from looktwice.score.prompting import built_in
from looktwice.sources.loader import CandidateRef
from looktwice.store import Row, Table
from looktwice.token_index import TokenLoader, add_tokens
from looktwice.types import EncoderInfo, Item, PairScores, TextIds

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the builder of random checkpoints lives with the tests

PROMPT = "object"
COLUMNS = (
    "config", "k", "pairs_s", "reference_pairs_s", "speedup", "predicted_speedup", "codes_share", "floor_pairs_s",
    "of_floor", "reference_of_floor", "cross_encoder_pairs_s",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What one row measures; `codec` None: candidates go through the vision tower."""

    name: str
    model: str
    k: int
    codec: str | None
    picture: int
    reference_pairs: int


CONFIGS = (
    Config("tiny-vl/k100", "tiny-vl", 100, "pq8", 192, 20),
    Config("tiny-vl/k100/pixels", "tiny-vl", 100, None, 192, 20),
    Config("qwen2.5-vl-0.3b/k32/pq8", "qwen2.5-vl-0.3b", 32, "pq8", 448, 4),
    Config("qwen2.5-vl-0.3b/k32/pool2+pq8", "qwen2.5-vl-0.3b", 32, "pool2+pq8", 448, 4),
)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    threads = set_threads(args.threads)
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(config.model for config in CONFIGS):
            wanted = [c for c in CONFIGS if c.model == name and (not args.only or c.name in args.only)]
            if wanted:
                model = load_mllm(checkpoints.resolve(checkpoint(name, Path(folder), args)), place("cpu", "float32"))
                rows += [measure(reduced(config, args), model, Path(folder), clock, args) for config in wanted]
    print("  ".join(f"{name:>22}" for name in COLUMNS))
    for row in rows:
        print("  ".join(f"{show(row[name]):>22}" for name in COLUMNS))
    record = {"rows": rows, "device": f"cpu, {threads} thread(s), {cpu_name()}", "dtype": "float32"}
    finish("pairs", args, record | {"clock": args.clock, "prompt": PROMPT, "torch": torch.__version__})


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pairs per second, fast path against reference path.")
    parser.add_argument("--only", nargs="*", choices=[config.name for config in CONFIGS])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--tiny", help="another folder for tiny-vl")
    parser.add_argument("--k", type=int, help="fewer candidates than the configuration says")
    parser.add_argument("--reference-pairs", type=int, help="how many pairs the reference path is timed on")
    parser.add_argument("--layers", type=int, default=16, help="decoder layers of the random Qwen2.5-VL; 0: a toy")
    return parse(parser, argv, k=3, reference_pairs=1, repeats=1, layers=0, threads=1)


def reduced(config: Config, args: argparse.Namespace) -> Config:
    k = args.k or config.k
    return replace(config, k=k, reference_pairs=min(k, args.reference_pairs or config.reference_pairs))


# --- checkpoints and pictures ---------------------------------------------------------------------------------------


def checkpoint(name: str, folder: Path, args: argparse.Namespace) -> str:
    if name == "tiny-vl":
        return str(args.tiny or name)
    return str(random_qwen(folder / "qwen", args.layers))


def random_qwen(folder: Path, layers: int) -> Path:
    """Qwen2.5-VL with the proportions of the small public ones, about 0.28 B random weights at 16 layers; 0: a toy."""
    import tiny_models

    if not layers:
        return Path(tiny_models.build("qwen2_5_vl", folder))
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder.mkdir()
    config = tiny_models.qwen2_5_vl(folder)
    config["text_config"] |= {
        "hidden_size": 896, "intermediate_size": 3584, "num_hidden_layers": layers, "num_attention_heads": 14,
        "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 32_000, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6},
    }  # fmt: skip
    config["vision_config"] |= {
        "depth": 12, "hidden_size": 640, "intermediate_size": 1728, "num_heads": 10, "out_hidden_size": 896,
        "window_size": 112, "fullatt_block_indexes": [2, 5, 8, 11],
    }  # fmt: skip
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings |= {"min_pixels": 28**2, "max_pixels": 1280 * 28**2}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**config))
    model.save_pretrained(folder)
    return folder


def make_pictures(folder: Path, count: int, side: int) -> list[Path]:
    """Square PNG files of smooth noise, seeded by their number."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
        paths.append(folder / f"{number:04}.png")
        Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def fill_table(path: Path, pictures: Sequence[Path], side: int, fast: Engine, codec: str) -> Table:
    table = Table.create(path, EncoderInfo("none", "0", "none", 8))
    vector = np.eye(8, dtype=np.float32)[0]
    with table.writer():
        table.add([Row(p.name, p.as_uri(), digest(p), side, side, None, {}, vector) for p in pictures])
    report = add_tokens(table, fast, codec, train_tokens=8192)
    assert report.encoded == len(pictures) and report.failed == 0
    return table


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- one row --------------------------------------------------------------------------------------------------------


def measure(
    config: Config, model: Mllm, folder: Path, clock: Callable[[], float], args: argparse.Namespace
) -> dict[str, Any]:
    fast, slow = engine(model), ReferenceScorer(model, built_in.get(PROMPT))
    query, *shown = [Item(p.name, image=opened(p)) for p in paths_of(config, folder)[: config.k + 1]]
    read = candidates(config, fast, folder) if config.codec else lambda: iter([shown])
    some = shown[: config.reference_pairs]
    work: dict[str, Callable[[], object]] = {
        "fast": lambda: [ok(fast.score(query, items)) for items in read()],
        "slow": lambda: ok(slow.score(query, some)),
        "codes": lambda: list(read()),
    }
    if config.codec and config.model == "tiny-vl" and (cross := cross_encoder(model)) is not None:
        gap = np.abs(cross(query, some) - slow.score(query, some).p).max()
        assert gap < 1e-3, "the same question, or no comparison"
        work["cross"] = lambda: cross(query, some)
    best = in_turns(work, args.repeats, clock)
    flop, peak = costs(config, fast, slow, query, shown[0]), matmul_rate(clock)
    row = figures(config, best, len(some), flop, peak)
    row["parameters"] = sum(p.numel() for p in model.model.parameters())
    print(f"{config.name}: {row['pairs_s']:.2f} pairs/s, {row['speedup']:.2f}x", file=sys.stderr)
    return row


def engine(model: Mllm) -> Engine:
    """The fast path, with nothing remembered between calls."""
    fast = scorer(model, built_in.get(PROMPT), path="fast", cache_bytes=0)
    assert isinstance(fast, Engine)
    return fast


def paths_of(config: Config, folder: Path) -> list[Path]:
    """Query, candidates, and as many pictures more as a codebook needs."""
    enough = 32 if config.picture <= 192 else 16
    return make_pictures(folder / f"{config.picture}", 1 + max(config.k, enough), config.picture)


def candidates(config: Config, fast: Engine, folder: Path) -> Callable[[], Iterator[list[Item]]]:
    """What reads k candidates with their stored tokens, from a table that is filled for it."""
    assert config.codec is not None
    paths = paths_of(config, folder)[1:]
    table = fill_table(folder / f"{config.name.replace('/', '-')}.lt", paths, config.picture, fast, config.codec)
    entries = [CandidateRef(p.name, p.as_uri(), digest(p)) for p in paths[: config.k]]
    reader = TokenLoader(table, fast, config.codec)

    def read() -> Iterator[list[Item]]:
        for items in reader.load(entries):
            yield [item for item in items if isinstance(item, Item)]

    assert sum(map(len, read())) == config.k
    return read


def opened(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def ok(scores: PairScores) -> PairScores:
    """Stop where one pair has no score: a benchmark that skips work looks fast."""
    assert set(scores.status) == {"ok"}, scores.status
    return scores


def in_turns(work: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Least seconds of each, after a warm-up, one after another so that other work on the machine hits all alike."""
    for one in work.values():
        one()
    rounds = [{name: timed(one, clock) for name, one in work.items()} for _ in range(repeats)]
    return {name: min(taken[name] for taken in rounds) for name in work}


def figures(
    config: Config, best: Mapping[str, float], some: int, flop: Mapping[str, float], peak: float
) -> dict[str, Any]:
    rate, reference = config.k / best["fast"], some / best["slow"]
    return {
        "config": config.name,
        "k": config.k,
        "pairs_s": rate,
        "reference_pairs_s": reference,
        "speedup": rate / reference,
        "predicted_speedup": flop["reference"] / flop["fast"],
        "codes_share": best["codes"] / best["fast"] if config.codec else 0.0,
        "floor_pairs_s": peak / flop["fast"],
        "of_floor": rate * flop["fast"] / peak,
        "reference_of_floor": reference * flop["reference"] / peak,
        "cross_encoder_pairs_s": some / best["cross"] if "cross" in best else None,
        "gflop_per_pair": flop["fast"] / 1e9,
        "reference_gflop_per_pair": flop["reference"] / 1e9,
        "matmul_gflops_s": peak / 1e9,
    }


def costs(config: Config, fast: Engine, slow: ReferenceScorer, query: Item, candidate: Item) -> dict[str, float]:
    """FLOP per pair of both paths, by the formulas of docs/explanation/performance.md."""
    sizes = shape(load_config(fast.mllm.model.config.to_dict()))
    own, other = (tokens.layout for tokens in fast.visual_tokens([query, candidate]))
    ids = slow.inputs(query, candidate)["input_ids"][0]
    slots = (ids == fast.family.image_token_id).nonzero()[:, 0].tolist()
    leading = len(other[0].ids) if isinstance(other[0], TextIds) else 0
    shared = slots[len(slots) // 2] - leading
    text = len(ids) - shared - language_tokens(other)
    new = text + language_tokens(parse_codec(config.codec).shown(other) if config.codec else other)
    tower = sum(map(sizes.tower, patches(sizes, other)))
    query_side = (sum(map(sizes.tower, patches(sizes, own))) + sizes.forward(shared)) / config.k
    return {
        "reference": 2 * tower + sizes.forward(len(ids)) + sizes.head(),
        "fast": query_side + (0 if config.codec else tower) + sizes.forward(new, shared) + sizes.head(),
    }


def matmul_rate(clock: Callable[[], float]) -> float:
    """FLOP/s of a large matrix product in this process: what this machine gives at best, now."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 4096)
    a @ b
    return 2 * 1024 * 1024 * 4096 / min(timed(lambda: a @ b, clock) for _ in range(10))


def cross_encoder(model: Mllm) -> Callable[[Item, Sequence[Item]], Any] | None:
    """sentence-transformers' CrossEncoder over the same checkpoint and question, where that package is installed."""
    try:
        from sentence_transformers import CrossEncoder
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.cross_encoder.modules import LogitScore
    except ImportError:
        return None
    question = built_in.get(PROMPT).segments[-1].text
    template = (
        "<|im_start|>User:{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}{% endfor %}" + question + "<end_of_utterance>\nAssistant:"
    )
    with plain_folder(model, template) as folder:
        body = Transformer(folder, transformer_task="any-to-any")
    zero, one = (model.processor.tokenizer.convert_tokens_to_ids(digit) for digit in "01")
    judge = CrossEncoder(modules=[body, LogitScore(one, zero)], device="cpu")
    return lambda query, items: judge.predict([(query.image, item.image) for item in items], batch_size=32)


@contextmanager
def plain_folder(model: Mllm, template: str) -> Iterator[str]:
    """The checkpoint with a chat template for the roles that sentence-transformers gives the two sides of a pair."""
    with tempfile.TemporaryDirectory() as folder:
        model.model.save_pretrained(folder)
        model.processor.save_pretrained(folder)
        (Path(folder) / "chat_template.jinja").write_text(template)
        yield folder


def timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def show(value: object) -> str:
    return f"{value:,.3g}" if isinstance(value, float) else "–" if value is None else str(value)


if __name__ == "__main__":
    main()
