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
from domain_tokens.data.split_files import EXPECTED, KINDS, OTHER_SPLITS, SUBSETS, file_kind, split_files
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.names import HUB_ID


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

    subset: the dataset's configuration on the Hub, or the folder of that name in a folder that has one; None: `main`
    for GSM8K, the only one for others.
    """
    path = Path(dataset).expanduser()
    if path.is_dir():
        if subset and (path / subset).is_dir():
            path, subset = path / subset, None
        for saved in (path / split, path):
            if (saved / "state.json").is_file():
                return _open_saved(saved, split)
        return _open_files(split_files(path, subset, split))
    if path.is_file():
        return _open_files([path])
    if not HUB_ID.fullmatch(dataset) or file_kind(path):
        raise InputError(f"dataset {dataset} does not exist; expected a folder, a file or a Hub id like owner/name")
    return _open_hub(dataset, subset or SUBSETS.get(dataset), split)


def local_digest(dataset: str | None, subset: str | None, split: str) -> dict[str, str]:
    """Return {"dataset_sha256": …} of rows on this machine; {} of a Hub dataset, of files that are gone, or of None.

    A finished run is only taken for the one that is asked for if its rows are still the same.
    """
    if dataset is None or not Path(dataset).expanduser().exists():
        return {}
    return {"dataset_sha256": open_rows(dataset, subset, split).digest()}


def _open_files(paths: list[Path]) -> Rows:
    kind = file_kind(paths[0])
    if kind is None:
        raise InputError(f"dataset file {paths[0]} is of no known kind; convert it to {EXPECTED}")
    if kind == "json" and all(path.suffix in (*KINDS, ".gz") for path in paths):
        return _open_json(paths)
    import datasets
    from pyarrow.parquet import read_metadata

    def load(digest: str):
        # The library recognises a file by its name and time, which a changed file may share.
        cache = str(Path(datasets.config.HF_DATASETS_CACHE) / "domain_tokens" / digest)
        full, more = paths, {}
        if kind == "parquet":  # the library takes the first file's types, and an empty row group for a batch's size
            full, more = [path for path in paths if read_metadata(path).num_rows] or paths, {"batch_size": 10_000}
        files = {"rows": [glob.escape(str(path)) for path in full]}
        return datasets.load_dataset(kind, data_files=files, split="rows", cache_dir=cache, **more)

    return _open_table(paths, kind, load)


def _open_saved(folder: Path, split: str) -> Rows:
    import datasets

    def load(digest: str):
        table = datasets.load_from_disk(folder)
        if folder.name != split and OTHER_SPLITS[split].search(str(table.split)):
            raise InputError(
                f"dataset folder {folder} holds the split {table.split}, expected {split}; name {split} rows"
            )
        return table

    return _open_table(sorted(folder.glob("*.arrow")) or [folder / "state.json"], "save_to_disk", load)


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
    return _table_rows(str(paths[0]), table, digest)


def _table_rows(origin: str, table, digest: str) -> Rows:
    """Return the rows of the datasets library's table as Python objects, whatever format was set on it."""
    from datasets.features.features import require_decoding

    # Pictures and sounds, which no stage reads, and which need libraries of their own. Json holds ordinary values.
    media = [name for name, kind in table.features.items() if require_decoding(kind) and "Json(" not in repr(kind)]
    table = table.with_format(None).remove_columns(media)
    return Rows(origin, range(1, len(table) + 1), table.__getitem__, lambda: digest)


def _open_json(paths: list[Path]) -> Rows:
    """Open files with one JSON object a line, or a JSON array each. Lines are counted through all files.

    Only the positions of the lines are kept in memory. Blank lines are no rows.
    """
    text = _lines(paths[0])
    if len(paths) > 1:
        text = b"".join(bytes(part) + b"\n" * (part[-1:] not in b"\n") for part in map(_lines, paths))
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

    def read(i: int) -> Row:
        try:
            row = json.loads(text[starts[i] : ends[i]].decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise UnusableRow("not UTF-8") from None
        except (ValueError, RecursionError):  # ValueError also for an integer of thousands of digits
            raise UnusableRow("broken JSON, where one JSON object a line is expected") from None
        if not isinstance(row, dict):
            raise UnusableRow("not a JSON object")
        return row

    return Rows(origin, numbers, read, lambda: hashlib.sha256(text).hexdigest())


def _lines(path: Path) -> bytes | mmap.mmap:
    """Return the content of a file, and of one that is a JSON array its items, one a line."""
    text = _content(path)
    if not re.match(rb"(?:\xef\xbb\xbf)?\s*\[", text):
        return text
    try:
        items = json.loads(bytes(text).decode("utf-8-sig"))
    except (ValueError, RecursionError):  # lines that begin like an array
        return text
    return b"\n".join(json.dumps(item).encode() for item in items)


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
    return _table_rows(f"{dataset} ({split})", table, table._fingerprint)
