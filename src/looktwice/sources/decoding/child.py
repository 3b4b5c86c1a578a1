"""Decode in a process of its own: a decoder that crashes, hangs or takes all memory ends this process only.

The parent starts it (`worker`), sends one request at a time on standard input and reads the answer on standard output.
Messages that C libraries write to standard error are kept and become part of the failure's detail.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from looktwice.errors import MediaError
from looktwice.sources import formats
from looktwice.sources.decoding import frames
from looktwice.sources.reading import Reading

if TYPE_CHECKING:
    from PIL.Image import Image

MEMORY = 4 * 2**30
"""Most address space of this process, in bytes."""

_Answer: TypeAlias = tuple[dict[str, Any], bytes]


def main() -> None:
    """Answer requests until standard input ends."""
    _limit_memory()
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    said = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as this process
    os.dup2(said.fileno(), 2)
    os.dup2(said.fileno(), 1)  # a library that prints must not write into the answers
    while True:
        try:
            header, body = frames.receive(requests)
        except EOFError:
            return
        said.seek(0)
        said.truncate()
        signal.alarm(2 * int(header["seconds"]))  # if the parent is killed, nobody else ends this process
        answer, pixels = _answer(header, body, said)
        signal.alarm(0)
        frames.send(answers, answer, pixels)


def _limit_memory() -> None:
    with suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(header: Mapping[str, Any], body: bytes, said: BinaryIO) -> _Answer:
    try:
        return _WORK[header["do"]](header, body)
    except MediaError as error:
        failure = error
    except MemoryError:
        failure = MediaError("too-large", "decoding needs too much memory; use an image with fewer pixels")
    except Exception as error:  # hostile data makes decoders raise anything
        failure = MediaError("corrupt", (str(error) or type(error).__name__).splitlines()[0][:300])
    detail = _with_message(failure.detail, said)
    reason = "unsupported" if "not configured" in detail else failure.reason
    return {"reason": reason, "detail": detail}, b""


def _with_message(detail: str, said: BinaryIO) -> str:
    """Return the detail with the first line that the decoder wrote to stderr, if any."""
    said.seek(0)
    lines = said.read(2000).decode("utf-8", "replace").split("\n")
    line = next((line.strip() for line in lines if line.strip()), "")
    return f"{detail} ({line[:200]})" if line else detail


def _image(header: Mapping[str, Any], body: bytes) -> _Answer:
    from looktwice.sources.decoding import pillow, raw

    reading = Reading(header["version"], header["side"])
    if formats.is_raw(body):
        image, size = raw.decode(body, reading, header["max_pixels"])
    else:
        image, size = pillow.decode(body, reading, header["max_pixels"])
    return _pixels(image, size)


def _pixels(image: Image, size: tuple[int, int]) -> _Answer:
    return {"image": image.size, "size": size}, image.tobytes()


def _exif(header: Mapping[str, Any], body: bytes) -> _Answer:
    from looktwice.sources.exif import from_bytes

    return {"exif": from_bytes(body)}, b""


def _pages(header: Mapping[str, Any], body: bytes) -> _Answer:
    from looktwice.sources.decoding import pdf

    return {"count": pdf.count(header["path"])}, b""


def _page(header: Mapping[str, Any], body: bytes) -> _Answer:
    from looktwice.sources.decoding import pdf

    image = pdf.page(header["path"], header["page"])
    return _pixels(image, image.size)


def _length(header: Mapping[str, Any], body: bytes) -> _Answer:
    from looktwice.sources.decoding import video

    return {"seconds": video.length(header["path"])}, b""


def _cuts(header: Mapping[str, Any], body: bytes) -> _Answer:
    from looktwice.sources.decoding import video

    found, more = video.cuts(header["path"], header["start"])
    return {"cuts": found, "more": more}, b""


def _frame(header: Mapping[str, Any], body: bytes) -> _Answer:
    from looktwice.sources.decoding import video

    image = video.frame(header["path"], header["time"])
    return _pixels(image, image.size)


_WORK: dict[str, Callable[[Mapping[str, Any], bytes], _Answer]] = {
    "image": _image,
    "exif": _exif,
    "pages": _pages,
    "page": _page,
    "length": _length,
    "frame": _frame,
    "cuts": _cuts,
}
