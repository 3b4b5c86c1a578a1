"""Tokens of Qwen-VL models, sent to a real vLLM with their grids and DeepStack levels, give the scores of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import qwen_models
from fakes import INSTALLED
from PIL import Image
from vllm_server import VllmServer, environment

from looktwice import Item, Scorer, load_scorer
from looktwice.score.local.engine import Engine
from looktwice.score.remote.config import RemoteConfig
from looktwice.types import PairScores

pytestmark = pytest.mark.vllm
GALLERY = INSTALLED / "looktwice" / "assets" / "tiny" / "gallery"
LOCAL = {"device": "cpu", "dtype": "float32"}
CLOSE = 1e-3  # nats
SIDE = 224  # a whole number of tokens of both families, so that neither side scales the image


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with a model, and the address of a vLLM that serves it."""
    folder = environment()
    assert folder is not None, "run it by make test-vllm, which builds the environment"
    model = qwen_models.build(request.param, tmp_path_factory.mktemp(request.param))
    log = tmp_path_factory.mktemp("vllm") / "log"
    server = VllmServer(folder, log, model, "qwen", more_options=("--enable-mm-embeds",), torchvision=True)
    try:
        server.wait()
        yield model, f"{server.url}#qwen"
    finally:
        server.kill()


def images(*sizes: tuple[int, int]) -> list[Item]:
    paths = sorted((GALLERY / "images").glob("*.jpg"))
    opened = [Image.open(path).convert("RGB").resize(size) for path, size in zip(paths, sizes, strict=False)]
    return [Item(str(number), image, sha256=f"{number}-{image.size}") for number, image in enumerate(opened)]


def asked(address: str, tokens_from: Path | None, prompt: str) -> Scorer:
    remote = RemoteConfig(tokens_from=None if tokens_from is None else str(tokens_from))
    return load_scorer(address, prompt=prompt, remote=remote, **LOCAL)


def logps(scores: PairScores) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Label log-probabilities over the whole vocabulary."""
    z = scores.label_logits.astype(np.float64)
    return z - np.log(np.exp(z).sum(1, keepdims=True)) + np.log1p(-scores.off_mass.astype(np.float64))[:, None]


@pytest.mark.parametrize("prompt", ["object", "composed-query-first"])
def test_tokens_give_the_scores_of_images(served: tuple[Path, str], prompt: str) -> None:
    folder, address = served
    query, *candidates = images(*[(SIDE, SIDE)] * 5)
    query = Item("q", query.image, "at night" if prompt != "object" else None, sha256="q")
    sender = asked(address, folder, prompt)
    pixels, tokens = asked(address, None, prompt).score(query, candidates), sender.score(query, candidates)
    local = load_scorer(str(folder), prompt=prompt, **LOCAL).score(query, candidates)
    assert pixels.status == tokens.status == ("ok",) * 4
    assert np.abs(logps(pixels) - logps(tokens)).max() <= CLOSE
    assert np.abs(logps(local) - logps(tokens)).max() <= CLOSE
    assert np.ptp(logps(tokens)[:, 0]) > 10 * CLOSE  # the candidates do differ
    assert sender.settings()["sent_as"] == "image_embeds"


def test_images_of_any_shape_keep_their_grid(served: tuple[Path, str]) -> None:
    folder, address = served
    query, *candidates = images((200, 90), (64, 200), (64, 64), (150, 150))
    tokens = asked(address, folder, "object").score(query, candidates)
    local = load_scorer(str(folder), prompt="object", **LOCAL).score(query, candidates)
    assert tokens.status == ("ok",) * 3
    assert np.abs(logps(local) - logps(tokens)).max() <= CLOSE


def test_stored_tokens_take_the_place_of_images(served: tuple[Path, str]) -> None:
    folder, address = served
    query, *candidates = images(*[(SIDE, SIDE)] * 3)
    engine = load_scorer(str(folder), prompt="object", **LOCAL)
    assert isinstance(engine, Engine)
    stored = [
        Item(item.id, tokens=one, sha256=item.sha256)
        for item, one in zip(candidates, engine.visual_tokens(candidates), strict=True)
    ]
    tokens = asked(address, folder, "object").score(query, stored)
    assert np.abs(logps(engine.score(query, candidates)) - logps(tokens)).max() <= CLOSE
