"""Run decoders in child processes with a time limit: a crash or a hang costs one file, never the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from threading import BoundedSemaphore, Lock, Timer
from typing import TYPE_CHECKING, Any

from looktwice.errors import MediaError
from looktwice.sources.decoding import frames
from looktwice.sources.decoding.pillow import THREADS
from looktwice.sources.reading import Reading

if TYPE_CHECKING:
    from PIL.Image import Image

SECONDS = 60
"""Time limit of one decoding."""

MOST = 2
"""Decoders that run at the same time, each of up to `child.MEMORY` bytes."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from looktwice.sources.decoding.child import main; main()"
)


def image(data: bytes, reading: Reading, max_pixels: int) -> tuple[Image, tuple[int, int]]:
    """Decode an image in a child process. Raises MediaError."""
    about = {"do": "image", "version": reading.version, "side": reading.side, "max_pixels": max_pixels}
    return _opened(*POOL.ask(about, data))


def exif(data: bytes) -> dict[str, Any]:
    """Return what a camera wrote into an image, read in a child process. Raises MediaError."""
    return dict(POOL.ask({"do": "exif"}, data)[0]["exif"])


def page(path: str, number: int) -> Image:
    """Return page `number` (from 1) of a PDF as an image. Raises MediaError."""
    return _opened(*POOL.ask({"do": "page", "path": path, "page": number}))[0]


def pages(path: str) -> int:
    """Return how many pages a PDF has. Raises MediaError."""
    return int(POOL.ask({"do": "pages", "path": path})[0]["count"])


def frame(path: str, time: float) -> Image:
    """Return the frame that a video shows at `time` seconds. Raises MediaError."""
    return _opened(*POOL.ask({"do": "frame", "path": path, "time": time}))[0]


def length(path: str) -> float:
    """Return the length of a video in seconds. Raises MediaError."""
    return float(POOL.ask({"do": "length", "path": path})[0]["seconds"])


def cuts(path: str, most: int) -> list[float]:
    """Return the times in seconds at which scenes of a video begin, up to `most`. Raises MediaError."""
    found, start = list[float](), 0.0
    while len(found) <= most:
        answer, _ = POOL.ask({"do": "cuts", "path": path, "start": start})
        found += answer["cuts"]
        start = answer["more"]
        if start is None:
            break
    return found[:most]


def _opened(about: dict[str, Any], pixels: bytes) -> tuple[Image, tuple[int, int]]:
    from PIL import Image as pil

    width, height = about["size"]
    return pil.frombytes("RGB", tuple(about["image"]), pixels), (width, height)


class _Decoder:
    """One child process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": str(THREADS)},
            process_group=0 if os.name == "posix" else None,  # an interrupt is for the run, which then ends this
        )

    def ask(self, about: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Return the answer. Raises MediaError if the child ends or takes too long; it is then unusable."""
        assert self.process.stdin is not None and self.process.stdout is not None
        late = Timer(SECONDS, self.process.kill)
        late.daemon = True
        late.start()
        try:
            frames.send(self.process.stdin, {**about, "seconds": SECONDS}, body)
            return frames.receive(self.process.stdout)
        except (OSError, EOFError, ValueError):
            raise self._ended(was_late=not late.is_alive()) from None
        finally:
            late.cancel()

    def _ended(self, was_late: bool) -> MediaError:
        self.end()
        if was_late:
            return MediaError("too-slow", f"decoding took longer than {SECONDS} s")
        return MediaError("corrupt", f"the decoder crashed (exit status {self.process.returncode})")

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()


class Pool:
    """Up to MOST decoders, started when they are needed and kept for the next file."""

    def __init__(self) -> None:
        self._slots, self._lock = BoundedSemaphore(MOST), Lock()
        self._idle: list[_Decoder] = []

    def ask(self, about: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Return a decoder's answer: header and bytes. Raises MediaError."""
        with self._slots:
            decoder = self._take()
            try:
                answer, pixels = decoder.ask(about, body)
            except BaseException:  # an interrupt too: the answer to come would be taken for the next one
                decoder.end()
                raise
            with self._lock:
                self._idle.append(decoder)
        if "reason" in answer:
            raise MediaError(answer["reason"], answer["detail"])
        return answer, pixels

    def _take(self) -> _Decoder:
        with self._lock:
            return self._idle.pop() if self._idle else _Decoder()

    def end(self) -> None:
        """End the decoders that wait; the next file starts new ones."""
        with self._lock:
            while self._idle:
                self._idle.pop().end()

    def forget(self) -> None:
        """Leave the decoders to the process that started them; a fork calls this in its child."""
        self.__init__()  # type: ignore[misc]


POOL = Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.forget)
