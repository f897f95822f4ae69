"""One function over many items on all cores."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from domain_tokens.runs.errors import RunError

_function: Callable[[Any], Any]  # what the forked processes call; a closure cannot be sent to them


def map_in_order(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Yield function(item) for every item, in order, computed in as many forked processes as there are cores.

    In this process where there is one item or core only, or where processes cannot safely be forked (not on Linux).
    Raises RunError where one of them is killed.
    """
    processes = min(len(items), len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1)
    if processes <= 1:
        yield from map(function, items)
        return
    global _function
    _function = function
    gc.freeze()  # collecting garbage would touch all that the processes share, and each would need a copy
    executor = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _start)
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of threads whose locks a fork may copy; nothing that has some runs over there.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            results = executor.map(_call, items)
        yield from results
    except BrokenProcessPool:
        raise RunError("a process that prepares data was killed, most likely for memory; give it again") from None
    finally:
        executor.shutdown(cancel_futures=True)
        gc.unfreeze()


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads of their own would be one per core and process
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Whoever kills the process that waits does not know of these."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(item: Any) -> Any:
    return _function(item)
