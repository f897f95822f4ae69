"""The processes of one command, one per GPU, as `accelerate launch` starts them and torch names them."""

import os
from collections.abc import Callable


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process; 0 is the main one, which speaks and writes."""
    return int(os.environ.get("RANK", "0"))


def is_first_here() -> bool:
    """Return whether this is the first process of its machine, which reports what all of them find wrong."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def are_sharding() -> bool:
    """Return whether `accelerate launch` was told to split the model over the processes (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return `say` in the main process, and in the others a function that says nothing."""
    return say if rank() == 0 else lambda text: None
