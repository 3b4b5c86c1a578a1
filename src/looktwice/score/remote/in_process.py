"""Score pairs with vLLM inside this process: `vllm:MODEL`, without a server."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from looktwice.errors import MissingDependency, ModelError, first_line
from looktwice.models import checkpoints
from looktwice.score.base import Scorer
from looktwice.score.config import ScorerConfig
from looktwice.score.local import common
from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Prompt
from looktwice.score.readout import labels, modes, probability
from looktwice.score.remote.chat_server import chat_content
from looktwice.score.remote.images import ImageEncoder
from looktwice.score.remote.reading import ListedLogprobs, read
from looktwice.score.remote.scorer import refuse_local_settings
from looktwice.score.remote.wording import clean
from looktwice.types import Item, PairScores

SCHEME = "vllm:"
MOST_IMAGES = 2  # of one prompt


def load(name: str, prompt: Prompt, config: ScorerConfig) -> Scorer:
    """Load a model into vLLM and return its scorer.

    Raises MissingDependency without vLLM, ModelError for a model that it cannot load, UsageError for other settings.
    """
    refuse_local_settings(config, keeps=("revision",))
    checkpoint = checkpoints.resolve(name.removeprefix(SCHEME), config.revision)
    try:
        import vllm
    except ImportError:
        raise MissingDependency("vllm", "vllm", "A model in vLLM") from None
    logging.getLogger("vllm").setLevel(logging.WARNING)
    try:
        engine = vllm.LLM(
            model=str(checkpoint.source),
            dtype=config.dtype,
            limit_mm_per_prompt={"image": MOST_IMAGES},
            enable_prefix_caching=True,
            enforce_eager=vllm.platforms.current_platform.is_cpu(),
            trust_remote_code=False,
        )
    except (ValueError, RuntimeError, OSError, NotImplementedError) as error:
        raise ModelError(f"vLLM cannot load {checkpoint.name}: {first_line(error)}; name another model.") from error
    return InProcessScorer(engine, checkpoint.name, checkpoint.revision, prompt, config)


class InProcessScorer(Scorer):
    """Scores pairs with a loaded `vllm.LLM`: the same messages and the same reading as on a server."""

    def __init__(self, engine: Any, model: str, revision: str, prompt: Prompt, config: ScorerConfig) -> None:
        self.engine, self.model, self.revision, self.config = engine, model, revision, config
        self.images = ImageEncoder(config.resolution)
        self.prompt = prompt
        self.ids = labels.resolve(prompt, engine.get_tokenizer())

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score every candidate against one query; see Scorer."""
        return self.score_many([(query, candidates)])[0]

    def score_many(self, requests: Sequence[tuple[Item, Sequence[Item]]]) -> list[PairScores]:
        """Score several requests as one batch, in which vLLM shares the beginnings of prompts."""
        fits = [common.showable(self.prompt, query, candidates) for query, candidates in requests]
        pairs = [(query, candidates[i]) for (query, candidates), fit in zip(requests, fits, strict=True) for i in fit]
        rows = iter(self._rows(pairs))
        count = len(self.prompt.labels)
        return [
            probability.scatter(len(candidates), count, [([i], next(rows)) for i in fit], "missing")
            for (_, candidates), fit in zip(requests, fits, strict=True)
        ]

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> InProcessScorer:
        """Return a scorer of the same model with another prompt."""
        other = copy.copy(self)
        other.prompt = built_in.get(prompt)
        other.ids = labels.resolve(other.prompt, self.engine.get_tokenizer())
        return other

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for a run's manifest; see Scorer."""
        return {
            "mllm": f"{SCHEME}{self.model}",
            "revision": self.revision,
            "preprocessing": self.images.regime,
            "prompt": self.prompt.name,
            "prompt_hash": self.prompt.hash,
            "dtype": str(self.engine.llm_engine.model_config.dtype).removeprefix("torch."),
            "device": "vllm",
            "path": "vllm",
            "mode": modes.P_LABEL,
            "reading": "named ids",
        }

    def _rows(self, pairs: Sequence[tuple[Item, Item]]) -> list[PairScores]:
        from vllm import SamplingParams

        flat = [i for variants in self.ids.ids for i in variants]
        asked = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=flat)
        messages = [[{"role": "user", "content": self._content(*pair)}] for pair in pairs]
        answers = (
            self.engine.chat(messages, asked, use_tqdm=False, chat_template_kwargs={"enable_thinking": False})
            if messages
            else []
        )
        return [self._read(answer.outputs[0]) for answer in answers]

    def _content(self, query: Item, candidate: Item) -> list[dict[str, Any]]:
        pieces = self.prompt.lay_out(query, candidate, clean)
        return chat_content(pieces, {"query": query, "candidate": candidate}, self.images, with_id=False)

    def _read(self, output: Any) -> PairScores:
        listed = ListedLogprobs({int(token): float(found.logprob) for token, found in output.logprobs[0].items()})
        return read(self.ids.ids, self.ids.values, listed, int(output.token_ids[0]))
