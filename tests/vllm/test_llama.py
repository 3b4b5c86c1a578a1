"""A second look on a real llama.cpp, which serves tiny-vl from GGUF files, gives the local scores."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from fakes import INSTALLED
from PIL import Image
from vllm_server import MODEL, free_port

from looktwice import Item, Scorer, load_scorer

pytestmark = pytest.mark.vllm
GALLERY = INSTALLED / "looktwice" / "assets" / "tiny" / "gallery"
LOCAL = {"device": "cpu", "dtype": "float32"}
SIDE = 120  # of tiny-vl's images, so that nobody scales them
CLOSE = 2e-3  # of p: llama.cpp reads GELU from a table in half precision


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, here = tmp_path_factory.mktemp("gguf"), Path(__file__).parent
    python = Path(os.environ.get("LOOKTWICE_VLLM", ".venv-vllm") + "-llama") / "bin" / "python"
    assert python.exists(), "run it by make test-vllm, which builds the environment"
    subprocess.run([python, here / "tiny_gguf.py", MODEL, folder], check=True)
    command = [python, here / "serve_gguf.py", folder, str(free_port())]
    with (
        open(folder / "log", "w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            assert url, (folder / "log").read_text()[-3000:]
            yield f"{url}/v1#tiny-vl"
        finally:
            server.kill()


def image(path: Path) -> Item:
    return Item(path.name, Image.open(path).convert("RGB").resize((SIDE, SIDE)), sha256=path.name)


def there(address: str, prompt: str) -> Scorer:
    return load_scorer(address, prompt=prompt, **LOCAL)


@pytest.mark.parametrize("prompt", ["object", "object_yesno"])
def test_pairs_have_the_local_scores_and_order(address: str, prompt: str) -> None:
    scenes = list(map(image, islice(sorted((GALLERY / "images").glob("*.jpg")), 20)))
    ours, theirs = load_scorer("tiny-vl", prompt=prompt, **LOCAL), there(address, prompt)
    for query in map(image, islice(sorted((GALLERY / "queries").glob("*.jpg")), 3)):
        here, found = ours.score(query, scenes), theirs.score(query, scenes)
        assert found.status == ("ok",) * len(scenes)  # 100 listed tokens leave nothing open
        np.testing.assert_allclose(found.p, here.p, atol=CLOSE)
        np.testing.assert_allclose(found.off_mass, here.off_mass, atol=CLOSE)
        order = np.argsort(-found.p)
        assert (np.diff(here.p[order]) <= 2 * CLOSE).all()  # the same order up to ties
        assert np.ptp(here.p) > 20 * CLOSE


def test_the_probe_tells_what_llama_cpp_offers(address: str) -> None:
    (facts,) = there(address, "object").settings()["server"]
    assert (facts["engine"], facts["reading"], facts["context"]) == ("llamacpp", "top 100", 1024)
    assert facts["order_kept"] and facts["self_pair_first"]
