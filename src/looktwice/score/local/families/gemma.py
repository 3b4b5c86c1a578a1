"""Adapt Gemma 3 and 4: layers with a sliding window, and images whose tokens attend in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from looktwice.score.local.families.base import Family, Prepared, split
from looktwice.types import Block, VisualTokens


class Gemma3(Family):
    """One square view. The processor writes line breaks around it, which may join those of the text in one token."""

    layer_kinds = frozenset({"full_attention", "sliding_attention"})

    @classmethod
    def refuses(cls, config: Any, processor: Any) -> str | None:
        if getattr(config.get_text_config(), "use_bidirectional_attention", False):
            return "its text attends in both directions, so that candidates can share nothing"
        if getattr(getattr(processor, "image_processor", None), "do_pan_and_scan", False):
            return "its processor adds crops of an image (do_pan_and_scan)"
        return None

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self.text_config = model.config.get_text_config()

    def rewrite(self, text: str) -> str:
        tokenizer = self.processor.tokenizer
        # the processor does this before it tokenizes, and these line breaks merge with the text's own
        around = f"\n\n{tokenizer.boi_token}{tokenizer.image_token}{tokenizer.eoi_token}\n\n"
        return text.replace(tokenizer.boi_token, around)

    def encode_images(self, prepared: Sequence[Prepared]) -> list[VisualTokens]:
        side = isqrt(int(self.processor.image_seq_length))
        pixels = torch.cat([p.tensors["pixel_values"] for p in prepared])
        seen = self.model.get_image_features(pixels.to(self.model.device), return_dict=True)
        return split(seen.pooler_output.flatten(0, 1), [(Block("global", side, side),) for _ in prepared])

    def mask(self, distances: Tensor, visual: Tensor) -> Any:
        seen = (distances >= 0) | same_image(visual, distances.shape[-1])
        return {"full_attention": seen, "sliding_attention": seen & (distances < self.text_config.sliding_window)}


class Gemma4(Family):
    """One grid in the image's own shape; every layer may have its own token embedding."""

    layer_kinds = Gemma3.layer_kinds

    @classmethod
    def refuses(cls, config: Any, processor: Any) -> str | None:
        if config.get_text_config().use_bidirectional_attention == "all":
            return "its text attends in both directions, so that candidates can share nothing"
        return None

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self.text_config = model.config.get_text_config()

    def encode_images(self, prepared: Sequence[Prepared]) -> list[VisualTokens]:
        device = self.model.device
        pixels = torch.cat([p.tensors["pixel_values"] for p in prepared])
        places = torch.cat([p.tensors["image_position_ids"] for p in prepared])
        seen = self.model.get_image_features(pixels.to(device), places.to(device), return_dict=True)
        across, down = ((places.amax(1) + 1) // int(self.model.config.vision_config.pooling_kernel_size)).T.tolist()
        layouts = [self.lay_out(p.ids, (h, w)) for p, h, w in zip(prepared, down, across, strict=True)]
        return split(torch.cat(list(seen.pooler_output)), layouts)

    def extras(self, ids: Tensor, visual: Tensor, levels: Sequence[Tensor]) -> dict[str, Any]:
        if not self.text_config.hidden_size_per_layer_input:
            return {}
        text = ids.masked_fill(visual, self.text_config.pad_token_id)  # the model itself puts padding under images
        return {"per_layer_inputs": self.decoder.get_per_layer_inputs(text, None)}

    def mask(self, distances: Tensor, visual: Tensor) -> Any:
        seen = near = distances >= 0
        if (
            self.text_config.use_bidirectional_attention == "vision"
        ):  # in layers with a window only, as transformers does
            near = seen | same_image(visual, distances.shape[-1])
        return {"full_attention": seen, "sliding_attention": near & (distances < self.text_config.sliding_window)}

    def finish(self, logits: Tensor) -> Tensor:
        most = self.text_config.final_logit_softcapping  # the model caps outside its head, which the fast path skips
        return logits if most is None else torch.tanh(logits / most) * most


def same_image(visual: Tensor, keys: int) -> Tensor:
    """Return [n, 1, C, keys]: true where a visual token of `visual` [n, C] and a key belong to one image.

    The new tokens are the last C keys. An image is one run of visual tokens.
    """
    begins = visual & ~pad(visual, (1, 0))[:, :-1]
    image = begins.cumsum(-1)
    same = (image[:, :, None] == image[:, None]) & visual[:, :, None] & visual[:, None]
    return pad(same, (keys - visual.shape[1], 0))[:, None]
