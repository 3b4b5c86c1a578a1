"""Score pairs by `/v1/systemone`, the decisions route of vLLM, SGLang and `transformers serve`: one pair a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from looktwice.errors import ServerError
from looktwice.score.remote.direct import DirectAnswer, DirectScorer, Form, probability
from looktwice.score.remote.questions import question
from looktwice.score.remote.wording import clean
from looktwice.types import Item

IMAGES, ASSETS = "images", "assets"
NAME = "pair"


class SystemOneScorer(DirectScorer):
    """Asks one yes-or-no question about query and candidate.

    vLLM takes the images of a request in one list; transformers puts each where its name stands in the text.
    """

    path = "systemone"
    forms = (IMAGES, ASSETS)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for a run's manifest; see Scorer."""
        return {**super().settings(), "question": question(self.prompt)}

    def body(self, form: Form, model: str, query: Item, candidates: Sequence[Item]) -> tuple[str, dict[str, Any]]:
        """Return a request for one candidate; see DirectScorer."""
        (candidate,) = candidates
        sides = {"Query": query, "Candidate": candidate}
        shown = {title: self.images.encode(item).url for title, item in sides.items() if item.image is not None}
        ask = {NAME: {"type": "noul", "instructions": question(self.prompt)}}
        if form == ASSETS:
            state = "\n".join(_line(title, item, f"[[{title}]]") for title, item in sides.items())
            assets = {f"[[{title}]]": _asset(url) for title, url in shown.items()}
            return "/systemone", {"model": model, "state": state, "questions": ask, "assets": assets}
        places = {title: f"image {number}" for number, title in enumerate(shown, start=1)}
        state = "\n".join(_line(title, item, places.get(title, "")) for title, item in sides.items())
        body = {"model": model, "state": state, "questions": ask} | ({"images": list(shown.values())} if shown else {})
        return "/systemone", body

    def answers(self, reply: Mapping[str, Any], n: int) -> Sequence[DirectAnswer]:
        """Return the probability of yes; see DirectScorer."""
        rows = reply.get("answers")
        if not isinstance(rows, Mapping):
            raise ServerError("The server's answer holds no decisions; check the address.", stops=True)
        row = rows.get(NAME)
        value = row.get("noul") if isinstance(row, Mapping) else None
        return [probability(value, "probability")]

    def off_masses(self, reply: Mapping[str, Any], n: int) -> Sequence[float]:
        """Return what the model puts beside yes and no, where the server diagnoses it; see DirectScorer."""
        notes = reply.get("diagnostics")
        own = notes.get(NAME) if isinstance(notes, Mapping) else None
        mass = own.get("label_mass") if isinstance(own, Mapping) else None
        return [1 - float(mass) if isinstance(mass, int | float) and 0 <= mass <= 1 else np.nan]


def _line(title: str, item: Item, place: str) -> str:
    """Return one side of the pair as a line: the place of its image, and its text."""
    parts = [place if item.image is not None else "", clean(item.text) if item.text else ""]
    return " ".join([f"{title}:", *(part for part in parts if part)])


def _asset(url: str) -> dict[str, str]:
    return {"type": "image", "format": "png", "data_base64": url.partition(",")[2]}
