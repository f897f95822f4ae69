"""Ctrl-C, SIGTERM and SIGHUP: the first asks a run to stop where it can be continued, the second stops it at once."""

import math
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from domain_tokens.runs import processes

_has_begun = False
_SAME = 1.0  # seconds within which two signals are one request: a launcher passes on what the terminal sends to all
_stopped_at = -math.inf
_last: int | None = None
another_had_ended = False  # whether the signal came after another process of this run had ended


class StopRequest:
    """While entered, the first signal only sets `is_made`; the next one raises KeyboardInterrupt."""

    def __init__(self, say: Callable[[str], None]):
        self.is_made = False
        self._say = say

    def __enter__(self) -> "StopRequest":
        self._former = {number: signal.signal(number, self._receive) for number in _handled()}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        _take_note(number)
        if self.is_made:
            if time.monotonic() > self._made_at + _SAME:
                raise KeyboardInterrupt
            return
        self.is_made, self._made_at = True, time.monotonic()
        self._say("stopping after this step, with a checkpoint; once more stops at once")


def interrupt_on_signals() -> None:
    """Answer SIGTERM, which a scheduler sends, and SIGHUP, which a closed terminal sends, as Ctrl-C is answered."""
    for number in _handled():
        if signal.getsignal(number) != signal.SIG_IGN:  # Ctrl-C is not for what a shell runs in the background
            signal.signal(number, _interrupt)


def was_just_stopped() -> bool:
    """Return whether a signal came not long ago: an error that follows is what a library made of it.

    NumPy, interrupted while it loads, calls itself a thousand times first: many seconds, and minutes on a busy machine.
    """
    return time.monotonic() < _stopped_at + 120


def must_end() -> bool:
    """Return whether the last signal was one that ends a program, and not Ctrl-C, which may end only what it does."""
    return _last not in (None, signal.SIGINT)


def interrupt_main_thread() -> None:
    """Interrupt the main thread, also in a wait; with SIGTERM where a shell has a background job ignore SIGINT."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM if ignored else signal.SIGINT)


def end_on_signals() -> None:
    """Restore the default handlers: a further signal ends a failing command at once and silently."""
    for number in _handled():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _take_note(number)
    raise KeyboardInterrupt


def _handled() -> list[int]:
    """Return the signals that stop a run; SIGHUP is none on Windows, nor where nohup has it ignored."""
    hangup = getattr(signal, "SIGHUP", None)
    is_heeded = hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([hangup] if is_heeded else [])]


def _take_note(number: int) -> None:
    global _stopped_at, _last, another_had_ended
    _stopped_at, _last = time.monotonic(), number
    if number == signal.SIGTERM and processes.count() > 1:  # which a launcher sends to those that are left
        another_had_ended = processes.another_has_ended()
    for stream in (sys.stdout, sys.stderr):
        try:
            os.write(stream.fileno(), b"")
        except ValueError:  # not a file
            continue
        except OSError:  # a closed terminal; what is printed from now on must not end the run
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
