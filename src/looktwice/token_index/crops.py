"""Make the tokens of overlapping crops of an image beside those of the whole image, for the middle look.

A small thing fills more of a crop, so its tokens show more of it. Such a token set has five views of each image and
serves the middle look only: an MLLM could not be shown it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from looktwice.codecs import token_count
from looktwice.score import TokenMaker
from looktwice.types import Item, Layout, TextIds, TokensInfo, VisualTokens

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Region: TypeAlias = tuple[float, float, float]
"""Left, top and side of a crop of the image's aspect, as shares of the image's sides."""
SHARE = 0.6
"""The sides of a crop, as a share of the image's: chosen on scenes that no reported figure uses."""
SUFFIX = "+crops4"
CORNERS = ((0.0, 0.0), (1 - SHARE, 0.0), (0.0, 1 - SHARE), (1 - SHARE, 1 - SHARE))
VIEWS = len(CORNERS) + 1
WHOLE: Region = (0.0, 0.0, 1.0)
BETWEEN = TextIds(())
"""Stands between the views in a stored layout; a model is shown one view at a time."""


class CroppedTokens:
    """A maker of the tokens of four corner crops and of the whole image, in this order. Levels are left out."""

    def __init__(self, maker: TokenMaker) -> None:
        self.whole = maker

    def visual_tokens(self, items: Sequence[Item]) -> list[VisualTokens]:
        """Return the tokens of all views of each image; raise if one cannot be used."""
        views = [view for item in items for view in views_of(item)]
        found = self.whole.visual_tokens(views)
        return [_joined(found[start : start + VIEWS]) for start in range(0, len(found), VIEWS)]

    def tokens_info(self) -> TokensInfo:
        """Return the facts about these tokens: another preprocessing than the whole image's alone."""
        return cropped(self.whole.tokens_info())

    def placement(self) -> tuple[torch.device | str, torch.dtype | None]:
        """Return the device and dtype of the model."""
        return self.whole.placement()


def cropped(info: TokensInfo) -> TokensInfo:
    """Return the facts about the tokens of crops, from those about whole images."""
    return replace(info, preprocessing=info.preprocessing + SUFFIX, levels=0)


def has_crops(entry: Mapping[str, Any]) -> bool:
    """Return whether a token set, as the manifest has it, is one of crops."""
    return str(entry["preprocessing"]).endswith(SUFFIX)


def views_of(item: Item) -> list[Item]:
    """Return the four corner crops of an image, and the whole."""
    if item.image is None:  # the maker has its own message for it
        return [item] * VIEWS
    crops = [replace(item, image=cut(item.image, place_of(n)), sha256=None) for n in range(len(CORNERS))]
    return [*crops, item]


def place_of(view: int) -> Region:
    """Return the place of a view."""
    return (*CORNERS[view], SHARE) if view < len(CORNERS) else WHOLE


def cut(image: Image, place: Region) -> Image:
    """Return the crop of an image at a place."""
    x, y, share = place
    width, height = (max(1, round(share * side)) for side in image.size)
    left, top = round(x * image.width), round(y * image.height)
    return image.crop((left, top, min(image.width, left + width), min(image.height, top + height)))


def _joined(views: Sequence[VisualTokens]) -> VisualTokens:
    import torch

    layout = tuple(part for view in views for part in (*view.layout, BETWEEN))[:-1]
    return VisualTokens(torch.cat([view.features for view in views]), None, layout)


def tokens_of_view(tokens: VisualTokens, view: int) -> VisualTokens:
    """Return the tokens of one view, from those of all."""
    import torch

    layouts = view_layouts(tokens.layout)
    return VisualTokens(torch.split(tokens.features, [*map(token_count, layouts)])[view], None, layouts[view])


def view_layouts(layout: Layout) -> list[Layout]:
    """Return the layout of each view, from that of all; sets without marks between views have equally long ones."""
    if BETWEEN in layout:
        marks = [-1, *(place for place, part in enumerate(layout) if part == BETWEEN), len(layout)]
        return [layout[start + 1 : end] for start, end in pairwise(marks)]
    each = len(layout) // VIEWS
    return [layout[start : start + each] for start in range(0, each * VIEWS, each)]
