"""Rows of one split, by number, whether they come from the Hub, a folder or a file. No other split is opened."""

import codecs
import glob
import gzip
import hashlib
import json
import logging
import mmap
import re
import zlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain_tokens.data.conversations import Row, UnusableRow
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.names import HUB_ID

_SUBSETS = {"openai/gsm8k": "main"}  # of the datasets that have several, the one that is meant
_KINDS = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".parquet": "parquet", ".arrow": "arrow", ".csv": "csv"}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_EXPECTED = "JSON lines, a JSON array, Parquet, Arrow or CSV"


@dataclass
class Rows:
    """Raw rows by index. `read(i)` returns a row or raises UnusableRow; `numbers[i]` is its line number.

    Where rows are no lines, they are counted from 1. `read` may be called in forked processes. `digest()` depends on
    the rows alone, not on the names of files.
    """

    origin: str
    numbers: Sequence[int]
    read: Callable[[int], Row]
    digest: Callable[[], str]

    def __len__(self) -> int:
        return len(self.numbers)


def open_rows(dataset: str, subset: str | None, split: str) -> Rows:
    """Open one split: a folder's files of that split, one file as it stands, or a Hub dataset by its id.

    subset: the dataset's configuration on the Hub; None: `main` for GSM8K, the only one for others.
    """
    path = Path(dataset).expanduser()
    if path.is_dir():
        saved = next((place for place in (path / split, path) if (place / "state.json").is_file()), None)
        return _open_files(_split_files(path, split)) if saved is None else _open_saved(saved)
    if path.is_file():
        return _open_files([path])
    if not HUB_ID.fullmatch(dataset) or _kind(path):
        raise InputError(f"dataset {dataset} does not exist; expected a folder, a file or a Hub id like owner/name")
    return _open_hub(dataset, subset or _SUBSETS.get(dataset), split)


def _kind(path: Path) -> str | None:
    """Return the name of the library's reader for a file; None for files that are not read."""
    return _KINDS.get((path.with_suffix("") if path.suffix in _COMPRESSED else path).suffix)


def _split_files(folder: Path, split: str) -> list[Path]:
    """Return the file `{split}.…` of a folder, or else the files that the datasets library takes for the split."""
    from datasets.data_files import DataFilesList, get_data_patterns

    files = sorted(path for path in folder.glob(f"{split}.*") if _kind(path))[:1]
    if not files:
        folder = next((folder / name for name in _SUBSETS.values() if (folder / name).is_dir()), folder)
    try:
        patterns = [] if files else get_data_patterns(str(folder)).get(split, [])
        files += [path for path in map(Path, DataFilesList.from_patterns(patterns, str(folder))) if _kind(path)]
    except FileNotFoundError:  # no file has a name that the library knows
        pass
    if not files:
        raise InputError(
            f"dataset folder {folder} has no {split} file; expected {split}.jsonl or {split}.parquet in it, or another "
            f"name that the datasets library knows, with {_EXPECTED}"
        )
    names = ", ".join(file.name for file in sorted(files)[:3]) + (" …" if len(files) > 3 else "")
    if len({_kind(file) for file in files}) > 1:
        raise InputError(f"dataset folder {folder} holds {names}, expected {split} files of one kind; name one of them")
    shards = sorted(match.groups() for file in files if (match := re.search(r"-(\d{5})-of-(\d{5})\b", file.name)))
    if shards and shards != [(f"{i:05}", f"{len(files):05}") for i in range(len(files))]:
        raise InputError(
            f"dataset folder {folder} holds {names}, expected all of one set of {split} shards and no others; fetch "
            "the dataset again"
        )
    return sorted(files)


def _open_files(paths: list[Path]) -> Rows:
    kind = _kind(paths[0])
    if kind is None:
        raise InputError(f"dataset file {paths[0]} is of no known kind; convert it to {_EXPECTED}")
    if kind == "json" and all(path.suffix in (*_KINDS, ".gz") for path in paths):
        return _open_json(paths)
    import datasets

    def load(digest: str):
        # The library recognises a file by its name and time, which a changed file may share.
        cache = str(Path(datasets.config.HF_DATASETS_CACHE) / "domain_tokens" / digest)
        files = {"rows": [glob.escape(str(path)) for path in paths]}
        return datasets.load_dataset(kind, data_files=files, split="rows", cache_dir=cache)

    return _open_table(paths, kind, load)


def _open_saved(folder: Path) -> Rows:
    import datasets

    files = sorted(folder.glob("*.arrow"))
    return _open_table(files or [folder / "state.json"], "save_to_disk", lambda digest: datasets.load_from_disk(folder))


def _open_table(paths: list[Path], kind: str, load: Callable[[str], Any]) -> Rows:
    """Open files by a function from their digest to the datasets library's table."""
    import datasets
    import pyarrow

    logging.getLogger(f"datasets.packaged_modules.{kind}").setLevel(logging.CRITICAL)  # the error below says enough
    datasets.disable_progress_bars()
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    digest = digest.hexdigest()
    try:
        table = load(digest)
    except (
        pyarrow.ArrowException,
        datasets.exceptions.DatasetsError,
        LookupError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        why = " ".join(str(error.__cause__ or error).split())[:300]
        what = {"csv": "CSV", "json": "JSON", "save_to_disk": "output of save_to_disk"}.get(kind, kind.title())
        raise InputError(f"dataset file {paths[0]} is not readable {what} ({why}); fetch it again") from None
    return Rows(str(paths[0]), range(1, len(table) + 1), table.__getitem__, lambda: digest)


def _open_json(paths: list[Path]) -> Rows:
    """Open files with one JSON object a line, or one with a JSON array. Lines are counted through all files.

    Only the positions of the lines are kept in memory. Blank lines are no rows.
    """
    text = _content(paths[0])
    if len(paths) > 1:
        text = b"".join(bytes(part) + b"\n" * (part[-1:] != b"\n") for part in map(_content, paths))
    origin = str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    starts, ends, numbers = array("q"), array("q"), array("q")
    start = number = 0
    while start < len(text):
        number += 1
        end = text.find(b"\n", start) + 1 or len(text)
        line = text[start:end].strip()
        if line and line != codecs.BOM_UTF8:
            starts.append(start)
            ends.append(end)
            numbers.append(number)
        start = end
    items = (
        _json_array(text) if starts and text[starts[0] : ends[0]].removeprefix(codecs.BOM_UTF8)[:1] == b"[" else None
    )

    def read(i: int) -> Row:
        try:
            row = json.loads(text[starts[i] : ends[i]].decode("utf-8-sig")) if items is None else items[i]
        except UnicodeDecodeError:
            raise UnusableRow("not UTF-8") from None
        except (ValueError, RecursionError):  # ValueError also for an integer of thousands of digits
            raise UnusableRow("broken JSON, where one JSON object a line is expected") from None
        if not isinstance(row, dict):
            raise UnusableRow("not a JSON object")
        return row

    numbers = numbers if items is None else range(1, len(items) + 1)
    return Rows(origin, numbers, read, lambda: hashlib.sha256(text).hexdigest())


def _json_array(text: bytes | mmap.mmap) -> list | None:
    """Return the rows of a file that is one JSON array, None for any other file."""
    try:
        return json.loads(bytes(text).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _content(path: Path) -> bytes | mmap.mmap:
    try:
        # Rows are read in random order, so a compressed file is unpacked in memory.
        if path.suffix == ".gz":
            return gzip.decompress(path.read_bytes())
        with path.open("rb") as file:  # mapped, because forked processes would share one position in the file
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"dataset file {path} cannot be read to its end ({error}); fetch it again") from None


def _open_hub(dataset: str, subset: str | None, split: str) -> Rows:
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    from domain_tokens.hub.client import LOG_IN, hub_errors, require_hub

    doing = f"fetching dataset {dataset} (--dataset-path takes a local one too)"
    if not (Path(datasets.config.HF_DATASETS_CACHE) / dataset.replace("/", "___")).exists():
        require_hub(doing)
    with hub_errors(doing):
        try:
            table = datasets.load_dataset(dataset, subset, split=split)
        except datasets.exceptions.DatasetNotFoundError:
            raise InputError(
                f"dataset {dataset} is neither here nor on the Hub, or private: check --dataset-path, or {LOG_IN}"
            ) from None
        except ValueError as error:
            if isinstance(error, HfHubHTTPError):
                raise
            raise InputError(f"dataset {dataset} has no {split} split of subset {subset}: {error}") from None
    # The fingerprint is the library's own, of the dataset's revision and files: the same every time they are opened.
    return Rows(f"{dataset} ({split})", range(1, len(table) + 1), table.__getitem__, lambda: table._fingerprint)
