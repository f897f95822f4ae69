"""Files that appear whole or not at all, JSON in and out, and paths as results show them."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from domain_tokens.runs.errors import InputError


def user_path(path: str) -> str:
    """Return a path that a user gave, or a Hub id, with ~ as the home folder: the type of flags and keys for paths."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise InputError(f"{path}: there is no such home folder; a file of that name is ./{path}") from None


def shown_path(path: str | Path) -> str:
    """Return a path for the record: relative below the working directory, with ~ below the home folder."""
    path = Path(path)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return without_home(str(path))


def without_home(path: str) -> str:
    """Return a path below the home folder with ~, so that it tells nobody's name; anything else as it is."""
    home = Path.home()
    return str(Path("~") / Path(path).relative_to(home)) if Path(path).is_relative_to(home) else path


def shown_source(source: str) -> str:
    """Return a Hub id as it is, a local path as `shown_path` shows it: a relative one with ./, which no Hub id has."""
    if not Path(source).exists():
        return source
    shown = shown_path(source)
    return shown if shown.startswith((".", "/", "~")) else f"./{shown}"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json_text(value))


def json_text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def jsonl_text(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_text(path: Path, text: str) -> None:
    write_files({path: text.encode()})


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together, or leave the old ones: temporary names, flush to disk, rename.

    The last file marks the set complete: it is removed first and written last.
    """
    temporary = {path: path.with_name(f".{path.name}.writing") for path in files}
    try:
        for path, content in files.items():
            temporary[path].unlink(missing_ok=True)  # what somebody put there, perhaps a link to another place
            with temporary[path].open("wb") as file:
                if path.is_file():
                    os.chmod(file.fileno(), path.stat().st_mode)  # noqa: PTH101  (of an open file)
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
    """Return the object that a JSON file holds. Raises InputError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        raise InputError(f"{path} is not readable JSON ({error}); make it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, expected an object; make it again")
    return value


def read_jsonl(path: Path) -> list[Any]:
    """Return one value a line. Raises InputError for a line that is no JSON."""
    rows = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                rows.append(json.loads(line))
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise InputError(f"{path} line {len(rows) + 1} is not readable JSON ({reason}); make it again") from None
    return rows
