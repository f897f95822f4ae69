"""Datasets in, conversations out: reading, checking and splitting rows, and turning them into labelled tokens.

A row is read, checked and converted the same way whether it comes from the Hub, a folder or a file. Only the
split asked for is ever opened.
"""

import gzip
import io
import json
import random
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from domain_tokens.config import DataConfig
from domain_tokens.errors import InputError
from domain_tokens.inject import inject_counted
from domain_tokens.prompt import IGNORED_LABEL, ROLES, Message, encode, labels
from domain_tokens.results import HUB_ID
from domain_tokens.tokens import FACT_TOKENS

Row = dict[str, Any]

UNUSABLE_LIMIT = 0.01  # share of a file's rows; more means the file is not what it was taken for
VALIDATION_LIMIT = 5  # at most one usable row in five validates, however small the file

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")
_BAR_DELAY = 3  # seconds; what is quicker needs no bar
_CHUNK = 512  # rows tokenised at a time: enough to keep the tokenizer's threads busy


class UnusableRow(Exception):
    """Why a row cannot be used, in the words of the report; equal reasons are counted together."""


@dataclass
class Rows:
    """Raw rows by number. `read(i)` returns a row or raises UnusableRow; `numbers[i]` is its line number."""

    origin: str
    numbers: Sequence[int]
    read: Callable[[int], Row]

    def __len__(self) -> int:
        return len(self.numbers)


def open_rows(dataset: str, subset: str | None, split: str) -> Rows:
    """Open one split: a folder's `{split}` files, one file as it stands, or a Hub dataset by its id."""
    path = Path(dataset).expanduser()
    if path.is_dir():
        return _open_files(_split_files(path, split))
    if path.is_file():
        return _open_files([path])
    if not HUB_ID.fullmatch(dataset) or dataset.endswith(_SUFFIXES):
        raise InputError(f"dataset {dataset} does not exist; expected a folder, a file or a Hub id like owner/name")
    return _open_hub(dataset, subset, split)


Converter = Callable[[Row], list[Message]]


@dataclass
class Split:
    """What is trained on and what validates: disjoint row indices into one source, and what could not be used."""

    rows: Rows
    convert: Converter
    train: list[int]
    val: list[int]
    unusable: dict[str, dict[str, int]]  # reason: {"rows": how many, "first_line": …}

    def conversations(self, indices: Sequence[int]) -> Iterator[list[Message]]:
        return (self.convert(self.rows.read(i)) for i in indices)


def read_training_split(config: DataConfig, seed: int, convert: Converter) -> Split:
    """Open the training split, check every row, and draw training and validation rows out of it."""
    rows = open_rows(config.dataset, config.subset, "train")
    usable, unusable = check_rows(rows, convert)
    train, val = split_rows(usable, config.train_samples, config.val_samples, seed)
    return Split(rows, convert, train, val, unusable)


def check_rows(rows: Rows, convert: Callable[[Row], Any]) -> tuple[array, dict[str, dict[str, int]]]:
    """Read every row once. Returns the usable indices and the reasons of the rest; InputError where too few are."""
    usable, unusable = array("q"), {}
    for i in tqdm(range(len(rows)), desc=f"checking {rows.origin}", unit="row", delay=_BAR_DELAY):
        try:
            convert(rows.read(i))
        except UnusableRow as reason:
            report = unusable.setdefault(str(reason), {"rows": 0, "first_line": rows.numbers[i]})
            report["rows"] += 1
        else:
            usable.append(i)
    bad = len(rows) - len(usable)
    if not usable or bad > UNUSABLE_LIMIT * len(rows):
        raise InputError(
            f"{rows.origin}: {bad} of {len(rows)} rows cannot be used (at most {UNUSABLE_LIMIT:.0%} may be): "
            + (unusable_text(unusable) or "the file holds no rows")
        )
    return usable, unusable


def unusable_text(unusable: dict[str, dict[str, int]]) -> str:
    return "; ".join(f"{r['rows']} × {reason}, first in line {r['first_line']}" for reason, r in unusable.items())


def split_rows(
    indices: Sequence[int], train_samples: int | None, val_samples: int, seed: int
) -> tuple[list[int], list[int]]:
    """A seeded draw of disjoint training and validation rows out of one split.

    Validation comes first out of the shuffled rows, so asking for fewer training rows does not change which rows
    can validate. It takes at most a fifth of what there is, and no more rows than are trained on.
    """
    order = list(indices)
    random.Random(seed).shuffle(order)
    wanted = len(order) if train_samples is None else train_samples
    reserved = min(val_samples, len(order) // VALIDATION_LIMIT)
    train = order[reserved : reserved + wanted]
    return train, order[: min(reserved, len(train))]


def tulu_conversation(row: Row) -> list[Message]:
    """The messages of a Tulu row: user, assistant, perhaps system."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UnusableRow("no messages")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise UnusableRow("unknown role")
        if not isinstance(message.get("content"), str):
            raise UnusableRow("content is not text")
        if message["role"] == "assistant" and not message["content"].strip():
            raise UnusableRow("empty answer")
        _check_text(message["content"])
    if all(message["role"] != "assistant" for message in messages):
        raise UnusableRow("no assistant message")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def gsm8k_conversation(row: Row) -> list[Message]:
    """Question and answer of a GSM8K row as a conversation of two turns."""
    for key in ("question", "answer"):
        if not isinstance(row.get(key), str):
            raise UnusableRow(f"no {key}")
        if not row[key].strip():
            raise UnusableRow(f"empty {key}")
        _check_text(row[key])
    if "####" not in row["answer"]:
        raise UnusableRow("answer without ####")
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]


# Texts that would turn into control or fact tokens: a baseline row could smuggle in a fact, any row could end early.
_RESERVED = re.compile("|".join(map(re.escape, ("<|endoftext|>", *FACT_TOKENS))))


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell and no tokenizer reads
        raise UnusableRow("text is not valid Unicode") from None
    if match := _RESERVED.search(text):
        raise UnusableRow(f"text holds the reserved token {match[0]}")


@dataclass
class Prepared:
    """Labelled token rows, one behind the other, and how they came about.

    ids, labels: int32, all rows joined; row i is [offsets[i] : offsets[i + 1]]. As a dataset for the Trainer,
    item i is {"input_ids": …, "labels": …}, unpadded.
    """

    ids: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    cut: int
    dropped: int
    injected: Counter[str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        row = slice(self.offsets[i], self.offsets[i + 1])
        return {"input_ids": self.ids[row], "labels": self.labels[row]}

    @property
    def trained_tokens(self) -> int:
        """Labels that carry loss: a causal LM predicts token t from those before it, so never a row's first."""
        firsts = self.labels[self.offsets[:-1]]
        return int((self.labels != IGNORED_LABEL).sum() - (firsts != IGNORED_LABEL).sum())

    def counts(self) -> dict[str, int]:
        return {
            "kept": len(self),
            "cut": self.cut,
            "dropped": self.dropped,
            "injected_mul_tokens": self.injected.total(),
            "tokens": len(self.ids),
            "trained_tokens": self.trained_tokens,
        }


def prepare_split(split: Split, tokenizer, config: DataConfig, inject_facts: bool) -> tuple[Prepared, Prepared]:
    """Training and validation rows as labelled tokens, both treated alike."""

    def prepared(indices: list[int], name: str) -> Prepared:
        bar = tqdm(split.conversations(indices), name, len(indices), unit="row", delay=_BAR_DELAY)
        return prepare(bar, tokenizer, config.max_length, config.loss_on, inject_facts)

    train, val = prepared(split.train, "tokenising training rows"), prepared(split.val, "tokenising validation rows")
    if not len(train):
        raise InputError(
            f"{split.rows.origin}: within data.max_length {config.max_length} no row has a token to train on; raise it"
        )
    return train, val


def prepare(
    conversations: Iterator[list[Message]], tokenizer, max_length: int, loss_on: str, inject_facts: bool
) -> Prepared:
    """Inject (assistant turns only), render, tokenise and label. Rows left without a trained token are dropped."""
    ids, label_ids, offsets = array("i"), array("i"), array("q", [0])
    cut = dropped = 0
    injected: Counter[str] = Counter()
    for chunk in _chunks(conversations, _CHUNK):
        if inject_facts:
            chunk = [[_injected(message, injected) for message in messages] for messages in chunk]
        for encoded in encode(tokenizer, chunk, max_length, loss_on):
            if not any(encoded.trained[1:]):
                dropped += 1
                continue
            cut += encoded.cut
            ids.extend(encoded.ids)
            label_ids.extend(labels(encoded))
            offsets.append(len(ids))
    joined = (np.frombuffer(a, dtype=np.int32) if a else np.empty(0, np.int32) for a in (ids, label_ids))
    return Prepared(*joined, np.frombuffer(offsets, dtype=np.int64), cut, dropped, injected)


def _injected(message: Message, counts: Counter[str]) -> Message:
    if message["role"] != "assistant":
        return message
    text, found = inject_counted(message["content"])
    counts.update(found)
    return message | {"content": text}


def _chunks(items: Iterator, size: int) -> Iterator[list]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _split_files(folder: Path, split: str) -> list[Path]:
    """The split's one file, or its Parquet shards as the Hub names them."""
    for place in (folder, folder / "main", folder / "data"):
        if shards := sorted(place.glob(f"{split}-*-of-*.parquet")):
            return shards
        for suffix in _SUFFIXES:
            if (file := place / f"{split}{suffix}").is_file():
                return [file]
    raise InputError(f"dataset folder {folder} has no {split} file; expected {split}.jsonl or {split}.parquet in it")


def _open_files(paths: list[Path]) -> Rows:
    if paths[0].suffix == ".parquet":
        return _open_parquet(paths)
    if not paths[0].name.endswith(_SUFFIXES):
        raise InputError(f"dataset file {paths[0]} is of no known kind; expected {', '.join(_SUFFIXES)}")
    return _open_jsonl(paths[0])


def _open_jsonl(path: Path) -> Rows:
    """One JSON object a line. Only the lines' places are kept in memory; blank lines do not count."""
    starts, numbers = array("q"), array("q")
    try:
        # Rows are read in random order, which a compressed file cannot do; it is small enough to unpack in memory.
        file = io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else path.open("rb")
        position = 0
        for number, line in enumerate(file, start=1):
            if line.strip() and line.strip() != b"\xef\xbb\xbf":
                starts.append(position)
                numbers.append(number)
            position += len(line)
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"dataset file {path} cannot be read to its end ({error}); fetch it again") from None

    def read(i: int) -> Row:
        file.seek(starts[i])
        try:
            row = json.loads(file.readline().decode("utf-8-sig" if starts[i] == 0 else "utf-8"))
        except UnicodeDecodeError:
            raise UnusableRow("not UTF-8") from None
        except (ValueError, RecursionError):  # ValueError also for an integer of thousands of digits
            raise UnusableRow("broken JSON") from None
        if not isinstance(row, dict):
            raise UnusableRow("not a JSON object")
        return row

    return Rows(str(path), numbers, read)


def _open_parquet(paths: list[Path]) -> Rows:
    import datasets
    import pyarrow

    try:
        table = datasets.Dataset.from_parquet([str(path) for path in paths])
    except (pyarrow.ArrowException, datasets.exceptions.DatasetGenerationError) as error:
        raise InputError(f"dataset file {paths[0]} is not readable Parquet ({error}); fetch it again") from None
    return Rows(str(paths[0]), range(1, len(table) + 1), table.__getitem__)


def _open_hub(dataset: str, subset: str | None, split: str) -> Rows:
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    from domain_tokens.hub import LOG_IN, hub_errors

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
    return Rows(f"{dataset} ({split})", range(1, len(table) + 1), table.__getitem__)
