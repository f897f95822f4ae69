"""Ctrl-C and SIGTERM: the first asks a run to stop where it can be continued, the second stops it at once."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from domain_tokens.runs import processes

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_has_begun = False
_SAME = 1.0  # seconds within which two signals are one request: a launcher passes on what the terminal sends to all


class StopRequest:
    """While entered, the first signal only sets `is_made`; the next one raises KeyboardInterrupt."""

    def __init__(self, say: Callable[[str], None]):
        self.is_made = False
        self._say = say

    def __enter__(self) -> "StopRequest":
        self._former = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.is_made:
            if time.monotonic() > self._made_at + _SAME:
                raise KeyboardInterrupt
            return
        self.is_made, self._made_at = True, time.monotonic()
        self._say("stopping after this step, with a checkpoint; once more stops at once")


def terminate_like_interrupt() -> None:
    """Answer SIGTERM, which a scheduler sends, as Ctrl-C is answered."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def run_has_begun() -> None:
    """Remember that from now on --resume can continue what this command has done."""
    global _has_begun
    _has_begun = True


def continuing_command() -> str:
    """Return what to type to continue this command; with several processes, what launched them."""
    words = ["python", *sys.argv]
    if processes.count() > 1:
        import psutil

        words = psutil.Process(os.getppid()).cmdline()[1:]  # without the interpreter
        words = ["python", *words] if words[0].startswith("-") else [Path(words[0]).name, *words[1:]]
    if _has_begun:
        words = [*(word for word in words if word not in ("--overwrite", "--resume")), "--resume"]
    return shlex.join(["uv", "run", *words])
