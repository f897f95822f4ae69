"""Rows of one split, by number, whether they come from the Hub, a folder or a file. No other split is opened."""

import gzip
import hashlib
import json
import logging
import mmap
import zlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from domain_tokens.data.conversations import Row, UnusableRow
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.names import HUB_ID

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")
_SUBSETS = {"openai/gsm8k": "main"}  # of the datasets that have several, the one that is meant


@dataclass
class Rows:
    """Raw rows by index. `read(i)` returns a row or raises UnusableRow; `numbers[i]` is its line number.

    `read` may be called in forked processes. `digest()` depends on the rows alone, not on the names of files.
    """

    origin: str
    numbers: Sequence[int]
    read: Callable[[int], Row]
    digest: Callable[[], str]

    def __len__(self) -> int:
        return len(self.numbers)


def open_rows(dataset: str, subset: str | None, split: str) -> Rows:
    """Open one split: a folder's `{split}` files, one file as it stands, or a Hub dataset by its id.

    subset: the dataset's configuration on the Hub; None: the one that is meant, or its only one.
    """
    path = Path(dataset).expanduser()
    if path.is_dir():
        return _open_files(_split_files(path, split))
    if path.is_file():
        return _open_files([path])
    if not HUB_ID.fullmatch(dataset) or dataset.endswith(SUFFIXES):
        raise InputError(f"dataset {dataset} does not exist; expected a folder, a file or a Hub id like owner/name")
    return _open_hub(dataset, subset or _SUBSETS.get(dataset), split)


def _split_files(folder: Path, split: str) -> list[Path]:
    """Return the split's one file, or its Parquet shards as the Hub names them."""
    for place in (folder, *(folder / name for name in (*_SUBSETS.values(), "data"))):
        if shards := sorted(place.glob(f"{split}-*-of-*.parquet")):
            _check_shards(place, split, [shard.name for shard in shards])
            return shards
        for suffix in SUFFIXES:
            if (file := place / f"{split}{suffix}").is_file():
                return [file]
    raise InputError(f"dataset folder {folder} has no {split} file; expected {split}.jsonl or {split}.parquet in it")


def _check_shards(place: Path, split: str, names: list[str]) -> None:
    """Raise InputError unless the shards are one whole set, such as train-00000-of-00001.parquet."""
    total = int(names[0].removesuffix(".parquet").rpartition("-")[2] or 0)
    if names != [f"{split}-{i:05}-of-{total:05}.parquet" for i in range(total)]:
        raise InputError(
            f"dataset folder {place} holds {', '.join(names[:3])}{' …' if len(names) > 3 else ''}, expected all of one "
            f"set of {split} shards and no others; fetch the dataset again"
        )


def _open_files(paths: list[Path]) -> Rows:
    if paths[0].suffix == ".parquet":
        return _open_parquet(paths)
    if not paths[0].name.endswith(SUFFIXES):
        raise InputError(f"dataset file {paths[0]} is of no known kind; expected {', '.join(SUFFIXES)}")
    return _open_jsonl(paths[0])


def _open_jsonl(path: Path) -> Rows:
    """Open one JSON object a line. Only the positions of the lines are kept in memory. Blank lines are no rows."""
    starts, ends, numbers = array("q"), array("q"), array("q")
    try:
        # Rows are read in random order, so a compressed file is unpacked in memory.
        if path.suffix == ".gz":
            text = gzip.decompress(path.read_bytes())
        else:
            with path.open("rb") as file:  # mapped, because forked processes would share one position in the file
                text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"dataset file {path} cannot be read to its end ({error}); fetch it again") from None
    start, number = 0, 0
    while start < len(text):
        number += 1
        end = text.find(b"\n", start) + 1 or len(text)
        line = text[start:end].strip()
        if line and line != b"\xef\xbb\xbf":
            starts.append(start)
            ends.append(end)
            numbers.append(number)
        start = end

    def read(i: int) -> Row:
        try:
            row = json.loads(text[starts[i] : ends[i]].decode("utf-8-sig" if starts[i] == 0 else "utf-8"))
        except UnicodeDecodeError:
            raise UnusableRow("not UTF-8") from None
        except (ValueError, RecursionError):  # ValueError also for an integer of thousands of digits
            raise UnusableRow("broken JSON, where one JSON object a line is expected") from None
        if not isinstance(row, dict):
            raise UnusableRow("not a JSON object")
        return row

    return Rows(str(path), numbers, read, lambda: hashlib.sha256(text).hexdigest())


def _open_parquet(paths: list[Path]) -> Rows:
    import datasets
    import pyarrow

    # The library logs a broken file before it raises an error.
    logging.getLogger("datasets.packaged_modules.parquet").setLevel(logging.CRITICAL)

    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    # The library recognises a file by its name and time, which a changed file may share.
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "domain_tokens" / digest.hexdigest()
    try:
        datasets.disable_progress_bars()
        table = datasets.Dataset.from_parquet([str(path) for path in paths], cache_dir=str(cache))
    except (pyarrow.ArrowException, datasets.exceptions.DatasetGenerationError) as error:
        raise InputError(f"dataset file {paths[0]} is not readable Parquet ({error}); fetch it again") from None
    return Rows(str(paths[0]), range(1, len(table) + 1), table.__getitem__, digest.hexdigest)


def _open_hub(dataset: str, subset: str | None, split: str) -> Rows:
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    from domain_tokens.hub.client import LOG_IN, hub_errors

    with hub_errors(f"fetching dataset {dataset} (--dataset-path takes a local one too)"):
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
