"""The processes of one command, one per GPU, as `accelerate launch` starts them and torch names them."""

import os
import re
from collections.abc import Callable

from domain_tokens.runs.errors import InputError


def count() -> int:
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Return the number of this process; 0 is the main one, which speaks and writes."""
    return _number("RANK", 0)


def check() -> None:
    """Raise InputError for variables under which no process, or no one but this process, would ever start."""
    if count() < 1 or rank() >= count():
        raise InputError(
            f"WORLD_SIZE is {count()} and RANK {rank()}, expected a rank below the size; unset both, or start with "
            "accelerate launch"
        )
    if count() > 1 and "MASTER_ADDR" not in os.environ:
        raise InputError(
            f"WORLD_SIZE is {count()}, but MASTER_ADDR is not set; unset WORLD_SIZE, or start with accelerate launch"
        )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not re.fullmatch("[0-9]{1,6}", text):
        raise InputError(f"{name} is {text!r}, expected a number; unset it, accelerate launch sets it itself")
    return int(text)


def is_first_here() -> bool:
    """Return whether this is the first process of its machine, which reports what all of them find wrong.

    A leftover LOCAL_RANK does not count: without WORLD_SIZE there is one process.
    """
    several = os.environ.get("WORLD_SIZE", "1")
    return os.environ.get("LOCAL_RANK", "0") == "0" or several == "1" or not several.isdigit()


def another_has_ended() -> bool:
    """Return whether a process of this machine that was started beside this one has ended."""
    import psutil

    try:
        beside = psutil.Process(os.getppid()).children()
        alive = [each for each in beside if each.status() != psutil.STATUS_ZOMBIE and "LOCAL_RANK" in each.environ()]
    except psutil.Error:  # it ended while it was asked
        return True
    return len(alive) < _number("LOCAL_WORLD_SIZE", 1)


def main_only(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return `say` in the main process, and in the others a function that says nothing."""
    return say if rank() == 0 else lambda text: None
