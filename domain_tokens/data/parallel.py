"""A function over many rows, on all cores."""

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

from tqdm import tqdm

from domain_tokens.runs.errors import RunError

BAR_DELAY = 3  # seconds without a progress bar

_function: Callable[[int], Any]  # of a worker process


def map_rows(function: Callable[[Sequence[int]], Any], rows: Sequence[int], at_once: int, what: str) -> Iterator[Any]:
    """Yield function(part) for each `at_once` of the rows, in order, with a progress bar that says `what`.

    There are as many worker processes as cores. They are forked, so that function may be a closure; where forking is
    not safe (not on Linux), or where there is only one core or part, this process does the work. Raises RunError if a
    worker is killed.
    """
    starts = range(0, len(rows), at_once)
    workers = min(len(starts), len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1)

    def part(start: int) -> Any:
        return function(rows[start : start + at_once])

    with tqdm(total=len(rows), desc=what, unit="row", delay=BAR_DELAY) as bar:
        for result in map(part, starts) if workers <= 1 else _map_in_workers(part, starts, workers):
            yield result
            bar.update(min(at_once, len(rows) - bar.n))


def _map_in_workers(function: Callable[[int], Any], starts: Sequence[int], workers: int) -> Iterator[Any]:
    gc.freeze()  # a collection would touch, and so copy, all the memory that the workers share
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _start_worker, (function,))
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns that a fork may copy locks that threads hold; the workers use none of those threads.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            results = executor.map(_call, starts)
        yield from results
    except BrokenProcessPool:
        raise RunError(
            "a process that prepares data was killed, most likely for lack of memory; run the command again"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)
        gc.unfreeze()


def _start_worker(function: Callable[[int], Any]) -> None:
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the tokenizer's own threads: one per core in every worker
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot stop its workers."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(start: int) -> Any:
    return _function(start)
