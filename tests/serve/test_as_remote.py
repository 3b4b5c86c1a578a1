"""`looktwice serve` as the server of another looktwice: the same scores come back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from serving import GALLERY, Running

from looktwice import Item, load_scorer


@pytest.mark.parametrize("kind", ["rerank", "decisions"])
def test_a_looktwice_server_scores_for_another_looktwice(server: Running, kind: str) -> None:
    scenes = [
        Item(path.name, Image.open(path).convert("RGB")) for path in sorted((GALLERY / "images").glob("*.jpg"))[:5]
    ]
    scorer = load_scorer(f"{kind}+{server.url}/v1#tiny-vl", prompt="object")
    scores = scorer.score(scenes[0], scenes)
    assert scores.status == ("ok",) * 5 and int(np.argmax(scores.p)) == 0
    if kind == "rerank":  # it asks the same question of its own accord
        here = load_scorer("tiny-vl", device="cpu", prompt="object").score(scenes[0], scenes)
        np.testing.assert_allclose(scores.p, here.p, atol=1e-5)
    else:
        assert ((scores.off_mass >= 0) & (scores.off_mass < 1)).all()
