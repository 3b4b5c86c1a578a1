"""Decode the images of a request when its turn comes, so that a request that waits holds no pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from looktwice.search.token_choice import CandidateLoader
from looktwice.sources.loader import CandidateRef, ImageLoader, Loaded, LoadError
from looktwice.types import Item

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class RequestImage(CandidateRef):
    """An image of a request with its text, if any. `read` decodes it, and returns its hash too; raises Problem."""

    read: Callable[[], tuple[Image, str]] = field(kw_only=True, compare=False, repr=False)

    def item(self) -> Item:
        """Decode the image."""
        image, sha256 = self.read()
        return Item(self.id, image, self.text, sha256=sha256)


RequestItem: TypeAlias = Item | RequestImage
"""A query or document of a request: a text, or an image that is not decoded yet."""


class RequestLoader(ImageLoader):
    """Decodes the images of one request, a few ahead of the model."""

    chunk_pixels = 2**25  # 130 MB: strangers send them, and eight requests have a seat

    def _item(self, entry: Item | CandidateRef | LoadError) -> Loaded:
        return entry.item() if isinstance(entry, RequestImage) else super()._item(entry)


class RequestLoaders(CandidateLoader):
    """The loader of one request's documents."""

    def __init__(self) -> None:
        super().__init__(cache_bytes=0)
        self._images = RequestLoader(0)


def decoded(given: RequestItem) -> Item:
    """Return an item, its image decoded."""
    return given.item() if isinstance(given, RequestImage) else given
