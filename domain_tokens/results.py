"""What every run writes down: one schema for training, one for evaluation, and where the numbers come from.

Files appear whole or not at all: each is written under a temporary name and renamed, the results file last, so a
folder with its results file is complete.
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from domain_tokens import processes
from domain_tokens.errors import InputError, RunError, on_failure

# Rises with any change of prompt, stop rule or answer pattern: figures of different versions are not compared.
EVAL_VERSION = 3

RECORD_NAME = "domain_tokens.json"
TULU_RESULTS, GSM8K_SFT_RESULTS = "tulu_sft_results.json", "sft_results.json"
RESOLVED_CONFIG = "resolved_config.yaml"
UNFINISHED = "unfinished_run.json"  # the settings of a run that has not written its results yet
MODEL_FILES = ("config.json", "model.safetensors", TULU_RESULTS, GSM8K_SFT_RESULTS, RECORD_NAME)
GSM8K_EVAL, PROBES_EVAL = "gsm8k", "arithmetic"  # {name}_results.json and {name}_predictions.jsonl

# A dataset or model on the Hub, with its owner.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_HELD: dict[str, int] = {}  # open files, whose locks last as long as this process
_PATIENCE = 60  # seconds that a disk of several machines may take to show all of them what one has written


def unfinished_evaluation(name: str) -> str:
    """As UNFINISHED; two evaluations may share a folder."""
    return f"{name}_unfinished.json"


_LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "numpy")


def environment(device: str) -> dict[str, Any]:
    """Provenance: the commit (null outside a git checkout) with a dirty mark, versions, device."""
    commit, dirty = _commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "platform": platform.platform(),
        "device": device,
    }


def shown_path(path: str | Path) -> str:
    """A path for the record: relative below the working directory, below home with ~, so nobody's name is told."""
    path = Path(path).expanduser()
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return without_home(str(path))


def without_home(path: str) -> str:
    """A path below the home folder with ~, anything else as it is."""
    home = Path.home()
    return str(Path("~") / Path(path).relative_to(home)) if Path(path).is_relative_to(home) else path


def shown_source(source: str) -> str:
    """A Hub id as it stands, a local path as `shown_path` shows it: a relative one with ./, which no Hub id has."""
    if not Path(source).expanduser().exists():
        return source
    shown = shown_path(source)
    return shown if shown.startswith((".", "/", "~")) else f"./{shown}"


def write_json(path: Path, value: Any) -> None:
    write_text(path, json_text(value))


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_text(path, jsonl_text(rows))


def json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def jsonl_text(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_text(path: Path, text: str) -> None:
    write_files({path: text.encode()})


def write_files(files: dict[Path, bytes]) -> None:
    """Write files that belong together, or leave the old ones: temporary names, flush to disk, rename.

    The last one stands for the whole: it is away while the others change.
    """
    temporary = {path: path.with_name(f".{path.name}.writing") for path in files}
    try:
        for path, content in files.items():
            temporary[path].unlink(missing_ok=True)  # what somebody put there, perhaps a link to another place
            with temporary[path].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if len(files) > 1:
            path.unlink(missing_ok=True)
        for path in files:
            temporary[path].replace(path)
    except OSError as error:
        error.filename = str(path)  # a full disk does not say where
        raise
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        raise InputError(f"{path} is not readable JSON ({error}); make it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, expected an object; make it again")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable JSONL ({error}); make it again") from None


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


def hold(mark: Path) -> None:
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


def _commit() -> tuple[str | None, bool | None]:
    root = Path(__file__).parent.parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        state = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None, None  # not a checkout: say so rather than invent a commit
    return head.stdout.strip(), bool(state.stdout.strip())
