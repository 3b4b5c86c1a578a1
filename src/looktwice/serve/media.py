"""Read the images and texts of a request: bytes in the request, or a URL where the server allows it; never a path."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from looktwice.errors import MediaError
from looktwice.serve.holding import hold
from looktwice.serve.problems import Problem
from looktwice.serve.request_images import RequestImage, RequestItem
from looktwice.sources import images
from looktwice.sources.uri import is_url
from looktwice.types import Item, has_words, text_is_utf8

if TYPE_CHECKING:
    from PIL.Image import Image

_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*?;base64,", re.IGNORECASE)
MOST_URLS, FETCHING = 32, 60.0
_SPACE = re.compile(r"\s+")


@dataclass(slots=True)
class UrlBudget:
    """How many URLs a request may still fetch, and until when: each alone has a time limit of its own."""

    left: int = MOST_URLS
    until: float = field(default_factory=lambda: time.monotonic() + FETCHING)


_budget: ContextVar[UrlBudget] = ContextVar("urls")


def begin_request() -> None:
    """Give this thread the budget of a new request."""
    _budget.set(UrlBudget())


@dataclass(frozen=True, slots=True)
class Media:
    """A reader of request parts, with the server's limits."""

    max_image: int
    max_pixels: int
    max_text: int
    allow_urls: bool = False

    def item(self, name: str, image: str | None, text: str | None, param: str) -> Item:
        """Return an item of an image (base64, a data URI or a URL), a text or both. Raises Problem, naming `param`."""
        given = self.later(name, image, text, param)
        if isinstance(given, Item):
            return given
        item = given.item()
        assert item.image is not None
        hold(4 * item.image.width * item.image.height)
        return item

    def later(self, name: str, image: str | None, text: str | None, param: str) -> RequestItem:
        """Return a text as an item, or an image that is decoded later; everything else is checked now.

        Raises Problem, naming `param`.
        """
        if image is None and not has_words(text):
            raise Problem(422, "empty", "Give an image, a text or both.", param)
        said = None if text is None or not has_words(text) else self.text(text, param)
        if image is None:
            return Item(name, text=said)
        data = self.data(image, param)
        fetched = data if is_url(image) else None
        return RequestImage(name, "request", text=said, read=partial(self._read, image, fetched, param))

    def _read(self, image: str, fetched: bytes | None, param: str) -> tuple[Image, str]:
        data = self.data(image, param) if fetched is None else fetched
        return self.decoded(data, param), hashlib.sha256(data).hexdigest()

    def checked(self, image: str, param: str) -> bytes:
        """Return the bytes of an image that can be decoded within the limits. Raises Problem."""
        data = self.data(image, param)
        self.decoded(data, param)
        return data

    def decoded(self, data: bytes, param: str) -> Image:
        """Return the image in `data`. Raises Problem."""
        try:
            return images.load(data, max_pixels=self.max_pixels)[0]
        except MediaError as error:
            code = f"image_{error.reason}".replace("-", "_")
            raise Problem(422, code, f"The image cannot be read: {error}.", param) from None

    def text(self, text: str, param: str) -> str:
        """Return a text within the limit. Raises Problem."""
        if len(text) > self.max_text:
            raise Problem(422, "text_too_long", f"A text may have at most {self.max_text:,} characters.", param)
        if not text_is_utf8(text) or "\0" in text:
            raise Problem(422, "text_not_utf8", "The text has half characters or NUL, which cannot be stored.", param)
        return text

    def data(self, image: str, param: str) -> bytes:
        """Return the bytes of an image in a request. Raises Problem."""
        if is_url(image):
            return self._fetch(image, param)
        found = _DATA.match(image[:200])
        if found is None and image[:5].lower() in ("data:", "file:"):
            raise Problem(422, "bad_image", "An image must be base64, or a data URI with ;base64.", param)
        coded = image[found.end() :] if found else image
        try:
            data = base64.b64decode(_SPACE.sub("", coded), validate=True)
        except (binascii.Error, ValueError):
            raise Problem(422, "bad_image", "An image must be base64, or a data URI with ;base64.", param) from None
        if len(data) > self.max_image:
            raise Problem(413, "image_too_large", f"An image may have at most {self.max_image:,} bytes.", param)
        return data

    def _fetch(self, url: str, param: str) -> bytes:
        if not self.allow_urls:
            raise Problem(
                403,
                "urls_refused",
                "This server fetches no URLs; send the image itself, or start it with --allow-urls.",
                param,
            )
        from looktwice.sources.download import fetch

        budget = _budget.get()
        if budget.left < 1 or time.monotonic() > budget.until:
            raise Problem(422, "too_many_urls", f"A request may name {MOST_URLS} URLs, in {FETCHING:g} s.", param)
        budget.left -= 1
        try:
            data = fetch(url, self.max_image, private=False)
            hold(len(data))
            return data
        except MediaError as error:
            plain = {
                "forbidden-address": "The URL does not lead to a public address.",
                "too-large": f"The image has more than {self.max_image:,} bytes.",
            }
            raise Problem(
                422,
                f"url_{error.reason}".replace("-", "_"),
                plain.get(error.reason, "The URL could not be fetched."),
                param,
            ) from None
