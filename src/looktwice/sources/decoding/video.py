"""Read frames of a video (extra `video`, FFmpeg through PyAV)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from looktwice.errors import MediaError
from looktwice.sources.decoding.pillow import THREADS

if TYPE_CHECKING:
    from PIL.Image import Image

CONTAINERS = "mov,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf"
"""What FFmpeg may take a file for: never a playlist, which names other files."""

CUT = 0.08
"""A frame that differs more from the one before, on average of its samples (0 to 1), begins a scene."""

LOOK_SECONDS = 20.0
"""How long one call looks for scenes; the caller goes on from there."""

MOST_DECODED = 2000
"""Frames decoded to reach one time: key frames further apart than this are not searched."""


def length(path: str) -> float:
    """Return the length in seconds that the container or the video stream states. Raises MediaError."""
    with _open(path) as container:
        stream = _stream(container)
        if container.duration:
            return float(container.duration) / 1_000_000
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return 0.0


def cuts(path: str, start: float) -> tuple[list[float], float | None]:
    """Return the times at which another scene begins, and where to go on; None at the end of the video.

    Frames before `start` are not looked at. A new scene begins where a frame differs from the one before by CUT or
    more. Raises MediaError.
    """
    import av

    begin, found, before = time.monotonic(), list[float](), None
    try:
        with _open(path) as container:
            for frame in _from(container, start):
                now = _thumbnail(frame)
                if before is not None and _differ(before, now) >= CUT:
                    found.append(frame.time)
                if frame.time > start and time.monotonic() - begin > LOOK_SECONDS:
                    return found, frame.time
                before = now
    except av.FFmpegError as error:
        raise MediaError("corrupt", str(error)) from None
    return found, None


def _from(container: Any, start: float) -> Iterator[Any]:
    """Yield the frames from a time on."""
    stream = _stream(container)
    if start > 0:
        container.seek(int(start * 1_000_000))  # to the key frame before
    return (found for found in container.decode(stream) if found.time is not None and found.time >= start)


def _thumbnail(frame: Any) -> Any:
    small = frame.reformat(width=32, height=32, format="rgb24", interpolation="AREA")
    return small.to_ndarray().astype("int16")


def _differ(one: Any, other: Any) -> float:
    """Return the mean difference of two thumbnails' samples, from 0 to 1."""
    return float(abs(one - other).mean()) / 255


def frame(path: str, at: float) -> Image:
    """Return the frame shown at `at` seconds, upright. Raises MediaError."""
    import av

    try:
        with _open(path) as container:
            found = _frame(container, _stream(container), at)
            turn = -int(found.rotation) % 360  # FFmpeg counts against the clock
            image: Image = found.to_image()
    except av.FFmpegError as error:
        raise MediaError("corrupt", str(error)) from None
    return image.rotate(-turn, expand=True) if turn else image


def _frame(container: Any, stream: Any, at: float) -> Any:
    if at > 0:
        container.seek(int(at * 1_000_000))  # to the key frame before
    last = None
    for number, found in enumerate(container.decode(stream)):
        if last is not None and found.time is not None and found.time > at:
            return last
        last = found
        if number >= MOST_DECODED:
            raise MediaError("too-slow", f"no key frame within {MOST_DECODED} frames before {at:g} s")
    if last is None or _is_over(last, at):
        raise MediaError("truncated", f"the video has no frame at {at:g} s")
    return last


def _is_over(last: Any, at: float) -> bool:
    """Return whether the last frame of a video has ended by then: the length in its header may be any number."""
    shown = float(last.duration * last.time_base) if last.duration and last.time_base else 0.0
    return last.time is not None and at > last.time + max(1.0, shown)


def _open(path: str) -> Any:
    import av

    try:
        return av.open(path, options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS})
    except (av.FFmpegError, ValueError) as error:
        raise MediaError("corrupt", str(error)) from None


def _stream(container: Any) -> Any:
    if not container.streams.video:
        raise MediaError("empty", "the file has no video stream")
    stream = container.streams.video[0]
    stream.thread_count = THREADS
    return stream
