"""The folders that runs write to: claimed by one run, locked by one process, left as they were by a failure."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from domain_tokens.runs import processes
from domain_tokens.runs.command_line import on_failure
from domain_tokens.runs.errors import InputError, RunError, nearest, short_repr
from domain_tokens.runs.files import read_json, write_files, write_json
from domain_tokens.runs.names import COMPARISON, MODEL_FILES, UNFINISHED, predictions_file, results_file
from domain_tokens.runs.terminal import say

_LOCKS: dict[str, FileLock] = {}  # kept until this process exits
_HEAD = 2000  # bytes of a page in which its sign stands
_SILENCE = 2  # seconds of waiting for a lock that need no word
_NOT_IN_EARLIER_VERSIONS = ("architecture", "start_architecture", "dataset_sha256")  # what their results do not say
_PATIENCE = 60  # seconds that a shared disk may take to show a new file to every machine


def claim_folder(
    path: str | Path,
    results_name: str,
    settings: dict[str, Any],
    *,
    overwrite: bool,
    resume: bool,
    unfinished_name: str = UNFINISHED,
    holds_model: bool = False,
    made_from: str | None = None,
) -> tuple[Path, bool]:
    """Make the folder a run writes to. Return it and whether it already holds this very run, complete.

    A folder that holds a run, complete or interrupted, is refused unless `overwrite` gives it up, or `resume` finds
    that it was made with the same settings. A run that writes a model (`holds_model`) is refused a folder with any
    other model too, and always the folder it is made from.
    """
    if overwrite and resume:
        raise InputError("--resume and --overwrite contradict each other; give one of them")
    folder = Path(path)
    if made_from is not None and os.path.realpath(folder) == os.path.realpath(made_from):
        raise InputError(f"--output-dir {folder} is the model to start from; choose another folder")
    results, unfinished = folder / results_name, folder / unfinished_name
    complete = results.exists() and not unfinished.exists()  # beside an unfinished run lie results it was to replace
    if complete or unfinished.exists():
        if resume:
            _check_same(folder, read_json(results if complete else unfinished), settings)
        elif not overwrite and complete:
            raise InputError(f"{folder} already holds {results_name}; --overwrite replaces it")
        elif not overwrite:
            raise InputError(f"{folder} holds an interrupted run; --resume continues it, --overwrite replaces it")
    elif not overwrite and holds_model and (other := [name for name in MODEL_FILES if (folder / name).exists()]):
        raise InputError(
            f"{folder} holds another model ({other[0]}); choose another folder, or --overwrite replaces it"
        )
    is_done = resume and complete
    if not is_done:
        make_folder(folder, "--output-dir")
    return folder, is_done


def find_everywhere(file: Path) -> None:
    """Wait until every process has found a file that the main one wrote. InputError, in all, where one does not.

    Without this check a machine with a disk of its own would continue from other checkpoints and answers.
    """
    if processes.count() == 1:
        return
    from accelerate.utils import gather_object  # torch comes with it, and the comparison needs none

    until = time.monotonic() + _PATIENCE
    while not (found := file.exists()) and time.monotonic() < until:
        time.sleep(0.2)
    if not all(gather_object([found])):
        raise InputError(f"{file.parent} is not the same folder on every machine; give --output-dir on a shared disk")


def lock_run(mark: Path) -> None:
    """Hold an exclusive lock on the file `mark` until this process exits. RunError if another process holds it.

    The processes of a killed launcher keep running, and writing.
    """
    place = os.path.realpath(mark)
    if place in _LOCKS:
        _LOCKS[place].release()  # of a mark that was written again since
    _LOCKS[place] = FileLock(mark, timeout=0, fallback_to_soft=False)
    try:
        _LOCKS[place].acquire()
    except Timeout:
        raise RunError(f"{mark.parent} is being written by another process; wait for it, or end it") from None
    except OSError:  # a disk without locks
        return


def begin_run(
    mark: Path, settings: Mapping[str, Any], resume: bool = False, clear: Callable[[], None] = lambda: None
) -> None:
    """Lock the file `mark`, which says that a run has begun. RunError if another process holds it.

    Without a run to resume, `clear` what is left of an earlier one, then write the mark.
    """
    has_begun = mark.exists()
    if has_begun:
        lock_run(mark)
    if not (resume and has_begun):
        clear()
        write_json(mark, settings)
        lock_run(mark)


@contextmanager
def wait_for_lock(path: str, holder: str) -> Iterator[None]:
    """Hold an exclusive lock on a file, and print a line if it has to be waited for.

    holder: what the other process does, for that line, such as "prepares the same rows".
    """
    lock = FileLock(path)
    try:
        held = lock.acquire(timeout=_SILENCE)
    except Timeout:
        say(f"waiting for another process that {holder}; end it if it hangs")
        held = lock.acquire()
    with held:
        yield


def check_model_folder(folder: Path) -> None:
    """Raise InputError if a model folder does not exist, with what there is in its place."""
    if folder.is_file():
        raise InputError(f"model folder {folder} is a file; give the folder that holds config.json and the weights")
    if not folder.is_dir():
        beside = [path.parent for depth in ("*", "*/*") for path in folder.parent.glob(f"{depth}/config.json")]
        raise InputError(
            f"model folder {folder} does not exist{nearest(str(folder), map(str, beside))}; scripts/load_from_hf.py "
            "--list shows what can be fetched, scripts/run_experiment.py makes the quickstart's models in outputs/toy, "
            "scripts/prepare_base.py a start model"
        )


def make_folder(folder: Path, flag: str) -> None:
    """Make a folder that will be written to, before any work is done. flag: what named it.

    A run that then fails with nothing in the folder removes it again.
    """
    if folder.is_file():
        raise InputError(f"output {folder} is a file, expected a folder; choose another {flag}")
    if folder.is_symlink() and not folder.exists():
        raise InputError(f"output {folder} is a link to {folder.readlink()}, which is not there; choose another {flag}")
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    on_failure(partial(_remove_empty, new))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise InputError(f"output {folder} cannot be written ({error.strerror}); choose another {flag}") from None


def output_file(path: str, sign: str, overwrite: bool) -> Path:
    """Return the file that --output-path names, its folder made. InputError where it must not be written.

    A file that lies there is replaced if it is one of this command's own, or with `overwrite`. sign: how the command
    knows its own: a key of its JSON objects, or an element at the beginning of its pages.
    """
    file = Path(os.path.realpath(path) if Path(path).is_symlink() else path)
    if file.is_dir():
        raise InputError(f"output {file} is a folder, expected a file such as {file / COMPARISON}")
    if file.exists() and not file.is_file():
        raise InputError(f"output {file} is no file that could be replaced; choose another --output-path")
    if file.name.endswith((results_file(""), predictions_file(""))):
        raise InputError(f"output {file} has the name of a run's results; choose another --output-path")
    if file.exists() and not overwrite and not _has_sign(file, sign):
        raise InputError(f"output {file} is not from this command; choose another --output-path, or give --overwrite")
    make_folder(file.parent, "--output-path")
    return file


def write_data(folder: Path, rows_of: Mapping[str, bytes], overwrite: bool) -> None:
    """Write data files below --output-dir, their folders made. InputError for a file with other rows."""
    make_folder(folder, "--output-dir")
    files = {folder / name: rows for name, rows in rows_of.items()}
    for path, rows in files.items():
        if path.exists() and not overwrite and path.read_bytes() != rows:
            raise InputError(f"{path} holds other rows; choose another --output-dir, or --overwrite replaces them")
    for path in files:
        make_folder(path.parent, "--output-dir")
    write_files(files)


def _has_sign(file: Path, sign: str) -> bool:
    if sign.startswith("<"):
        with file.open("rb") as opened:
            return sign.encode() in opened.read(_HEAD)
    try:
        return sign in read_json(file)
    except InputError:
        return False


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # something is in it, or another process of this run was here first
            return


def _check_same(folder: Path, made_with: dict[str, Any], settings: dict[str, Any]) -> None:
    found = _flat(made_with)
    for key, value in _flat(settings).items():
        if found.get(key) != value and (key in found or key not in _NOT_IN_EARLIER_VERSIONS):
            raise InputError(
                f"{folder} was made with {key} {short_repr(found.get(key))}, now it is {short_repr(value)}; "
                "choose another folder, or --overwrite replaces it"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return {"config": {"seed": 1}} as {"config.seed": 1}, and stages of a lineage likewise: {"lineage.0.seed": 1}."""
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat
