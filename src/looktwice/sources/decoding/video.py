"""Read frames of a video (extra `video`, FFmpeg through PyAV)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from looktwice.errors import MediaError
from looktwice.sources.decoding.pillow import THREADS

if TYPE_CHECKING:
    from PIL.Image import Image

CONTAINERS = "mov,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf"
"""What FFmpeg may take a file for: never a playlist, which names other files."""

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


def frame(path: str, time: float) -> Image:
    """Return the frame shown at `time` seconds, upright. Raises MediaError."""
    import av

    try:
        with _open(path) as container:
            found = _frame(container, _stream(container), time)
            turn = -int(found.rotation) % 360  # FFmpeg counts against the clock
            image: Image = found.to_image()
    except av.FFmpegError as error:
        raise MediaError("corrupt", str(error)) from None
    return image.rotate(-turn, expand=True) if turn else image


def _frame(container: Any, stream: Any, time: float) -> Any:
    if time > 0:
        container.seek(int(time * 1_000_000))  # to the key frame before
    last = None
    for number, found in enumerate(container.decode(stream)):
        if last is not None and found.time is not None and found.time > time:
            return last
        last = found
        if number >= MOST_DECODED:
            raise MediaError("too-slow", f"no key frame within {MOST_DECODED} frames before {time:g} s")
    if last is None or _is_over(last, time):
        raise MediaError("truncated", f"the video has no frame at {time:g} s")
    return last


def _is_over(last: Any, time: float) -> bool:
    """Return whether the last frame of a video has ended by then: the length in its header may be any number."""
    shown = float(last.duration * last.time_base) if last.duration and last.time_base else 0.0
    return last.time is not None and time > last.time + max(1.0, shown)


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
