"""Ctrl-C before a verb has begun: one word and exit code 130, in place of a traceback through half-loaded modules."""

from __future__ import annotations

import os
import signal
from typing import Any


def stop(*_: Any) -> None:
    """End the process at once; no work has started."""
    os.write(2, b"Interrupted.\n")
    os._exit(130)


def until_a_verb_begins() -> None:
    """Let Ctrl-C end the process, unless somebody has decided otherwise (nohup, a shell's background job)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)


def as_usual() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, so that verbs can say what is kept."""
    if signal.getsignal(signal.SIGINT) is stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
