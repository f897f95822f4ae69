"""Several processes of one command, one per GPU, as `accelerate launch` starts them and torch names them."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from domain_tokens.errors import InputError

_PATIENCE = 60  # seconds that a disk of several machines may take to show all of them what one has written


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """0 for the main process, the one that speaks and writes."""
    return int(os.environ.get("RANK", "0"))


def are_sharding() -> bool:
    """Whether `accelerate launch` was told to split the model over them: FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """What only the main process says."""
    return say if rank() == 0 else lambda text: None


def find(file: Path) -> None:
    """Wait until every process has found a file that the main one wrote. InputError, in all, where one does not.

    Without it a machine with a disk of its own would go on from other checkpoints and answers than the rest.
    """
    if count() == 1:
        return
    from accelerate.utils import gather_object  # torch comes with it, and the comparison needs none

    until = time.monotonic() + _PATIENCE
    while not (found := file.exists()) and time.monotonic() < until:
        time.sleep(0.2)
    if not all(gather_object([found])):
        raise InputError(f"{file.parent} is not the same folder on every machine; give --output-dir on a shared disk")
