"""Several processes of one command, one per GPU, as `accelerate launch` starts them and torch names them."""

import os
from collections.abc import Callable


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """0 for the main process, the one that speaks and writes."""
    return int(os.environ.get("RANK", "0"))


def is_first_here() -> bool:
    """Whether this is the first process of its machine, the one that says what all of them find wrong."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """What only the main process says."""
    return say if rank() == 0 else lambda text: None
