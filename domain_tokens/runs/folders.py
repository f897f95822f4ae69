"""What every run writes down: one schema for training, one for evaluation, and where the numbers come from.

Files appear whole or not at all: each is written under a temporary name and renamed, the results file last, so a
folder with its results file is complete.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from domain_tokens.runs import processes
from domain_tokens.runs.command import on_failure
from domain_tokens.runs.errors import InputError, RunError, nearest
from domain_tokens.runs.files import read_json
from domain_tokens.runs.names import MODEL_FILES, UNFINISHED

_HELD: dict[str, int] = {}  # open files, whose locks last as long as this process
_PATIENCE = 60  # seconds that a disk of several machines may take to show all of them what one has written


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
    """Make the folder a run writes to. Returns it and whether it already holds this very run, complete.

    A folder that holds a run, complete or interrupted, is refused unless `overwrite` gives it up, or `resume` finds
    that it was made with the same settings. A run that writes a model (`holds_model`) is refused a folder with any
    other model too, and always the one it is made from.
    """
    if overwrite and resume:
        raise InputError("--resume and --overwrite contradict each other; give one of them")
    folder = Path(path)
    if made_from is not None and os.path.realpath(folder) == os.path.realpath(Path(made_from).expanduser()):
        raise InputError(f"--output-dir {folder} is the model to start from; choose another folder")
    results, unfinished = folder / results_name, folder / unfinished_name
    if not overwrite:
        if results.exists() or unfinished.exists():
            # Results beside an unfinished run are those that it was to replace.
            complete = not unfinished.exists()
            if not resume:
                if complete:
                    raise InputError(f"{folder} already holds {results_name}; --overwrite replaces it")
                raise InputError(f"{folder} holds an interrupted run; --resume continues it, --overwrite replaces it")
            _check_same(folder, read_json(results if complete else unfinished), settings)
            if complete:
                return folder, True
        elif holds_model and (other := [name for name in MODEL_FILES if (folder / name).exists()]):
            raise InputError(
                f"{folder} holds another model ({other[0]}); choose another folder, or --overwrite replaces it"
            )
    make_folder(folder, "--output-dir")
    return folder, False


def find_everywhere(file: Path) -> None:
    """Wait until every process has found a file that the main one wrote. InputError, in all, where one does not.

    Without it a machine with a disk of its own would go on from other checkpoints and answers than the rest.
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
    """Be the only process, until it ends, that writes what an existing `mark` stands for. RunError if another does.

    A killed launcher leaves its processes behind, and they go on writing.
    """
    if sys.platform == "win32":
        return
    import fcntl  # no such module on Windows

    place = os.path.realpath(mark)
    if place in _HELD:
        os.close(_HELD.pop(place))
    _HELD[place] = file = os.open(mark, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_free = mark.exists() and mark.stat().st_ino == os.fstat(file).st_ino
    except BlockingIOError:
        is_free = False
    except OSError:  # a disk without locks
        is_free = True
    if not is_free:
        raise RunError(f"{mark.parent} is being written by another process; wait for it, or end it")


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
    """Make a folder that will be written to, before anything is done for it. flag: what named it.

    It goes again where the run then fails with nothing in it.
    """
    if folder.is_file():
        raise InputError(f"output {folder} is a file, expected a folder; choose another {flag}")
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    on_failure(partial(_remove_empty, new))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise InputError(f"output {folder} cannot be written ({error.strerror}); choose another {flag}") from None


def output_file(path: str) -> Path:
    """The file that --output-path names, its folder made. InputError where it must not be written."""
    file = Path(path)
    if file.is_dir():
        raise InputError(f"output {file} is a folder, expected a file such as {file / 'comparison.json'}")
    if file.exists() and not file.is_file():
        raise InputError(f"output {file} is no file that could be replaced; choose another --output-path")
    if file.name.endswith(("_results.json", "_predictions.jsonl")):
        raise InputError(f"output {file} has the name of a run's results; choose another --output-path")
    make_folder(file.parent, "--output-path")
    return file


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # something is in it, or another process of this run was here first
            return


def _check_same(folder: Path, made_with: dict[str, Any], settings: dict[str, Any]) -> None:
    found, wanted = _flat(made_with), _flat(settings)
    for key, value in wanted.items():
        if found.get(key) != value:
            raise InputError(
                f"{folder} was made with {key} {found.get(key)!r}, now it is {value!r}; "
                "choose another folder, or --overwrite replaces it"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"config": {"seed": 1}} as {"config.seed": 1}."""
    if not isinstance(value, dict | list):
        return {prefix: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        name: leaf
        for key, inner in items
        for name, leaf in _flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()
    }  # fmt: skip
