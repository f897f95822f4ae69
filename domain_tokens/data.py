"""Datasets in, conversations out: reading, checking and splitting rows.

A row is read, checked and converted the same way whether it comes from the Hub, a folder or a file. Only the
split asked for is ever opened.
"""

import gzip
import hashlib
import json
import logging
import mmap
import random
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from domain_tokens.config import DataConfig
from domain_tokens.contamination import Questions
from domain_tokens.errors import InputError
from domain_tokens.parallel import map_in_order
from domain_tokens.prompt import ROLES, Message
from domain_tokens.results import HUB_ID
from domain_tokens.tokens import FACT_TOKENS

Row = dict[str, Any]

UNUSABLE_LIMIT = 0.01  # share of a file's rows; more means the file is not what it was taken for
VALIDATION_LIMIT = 5  # at most one usable row in five validates, however small the file

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")
BAR_DELAY = 3  # seconds; what is quicker needs no bar
_LONGEST_TEXT = 1_000_000  # characters; a longer one is no conversation, and would take gigabytes to tokenise
_CHUNK = 2000  # rows checked at a time by one process
_SUBSETS = {"openai/gsm8k": "main"}  # of datasets that the Hub has in several
NO_LABEL = "-"  # in place of the id or source of a row that has none


class UnusableRow(Exception):
    """Why a row cannot be used, in the words of the report; equal reasons are counted together."""


@dataclass
class Rows:
    """Raw rows by number. `read(i)` returns a row or raises UnusableRow; `numbers[i]` is its line number.

    `read` may be called in forked processes. `digest()` changes with the rows, whatever they are called.
    """

    origin: str
    numbers: Sequence[int]
    read: Callable[[int], Row]
    digest: Callable[[], str]

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


def subset_of(dataset: str) -> str | None:
    """Which of a dataset's subsets on the Hub this project means, where no recipe says it."""
    return _SUBSETS.get(dataset)


Converter = Callable[[Row], list[Message]]


@dataclass
class Split:
    """What is trained on and what validates: disjoint row indices into one source, and what was left out."""

    rows: Rows
    convert: Converter
    train: Sequence[int]
    val: Sequence[int]
    unusable: dict[str, dict[str, int]]  # reason: {"rows": how many, "first_line": …}
    contaminated: dict[str, Any] | None  # what was dropped for the questions it shares words with; None: not looked for

    def conversations(self, indices: Sequence[int]) -> Iterator[list[Message]]:
        return (self.convert(self.rows.read(i)) for i in indices)


def split_training_rows(
    rows: Rows, config: DataConfig, seed: int, convert: Converter, questions: Questions | None
) -> Split:
    """Check every row, and draw training and validation rows out of the usable ones.

    questions: rows that share words with one are dropped. That is done before the draw, so there are still as many
    training rows as were asked for, and validation rows share nothing either.
    """
    usable, unusable = check_rows(rows, convert)
    contaminated = None
    if questions is not None:
        _, hits = find_questions(rows, usable, convert, questions)
        contaminated = _contaminated(hits, questions)
        dropped = {hit.row for hit in hits}
        usable = array("q", (i for i in usable if i not in dropped))
        if not usable:
            raise InputError(
                f"{rows.origin}: all {len(dropped)} usable rows share words with the questions of "
                f"data.decontaminate_against {config.decontaminate_against}; is it the training data itself?"
            )
    train, val = split_rows(usable, config.train_samples, config.val_samples, seed)
    return Split(rows, convert, train, val, unusable, contaminated)


def check_rows(rows: Rows, convert: Callable[[Row], Any]) -> tuple[array, dict[str, dict[str, int]]]:
    """Read every row once. Returns the usable indices and the reasons of the rest; InputError where too few are."""

    def check(first: int) -> tuple[array, list[tuple[int, str]]]:
        good, bad = array("q"), []
        for i in range(first, min(first + _CHUNK, len(rows))):
            try:
                convert(rows.read(i))
            except UnusableRow as reason:
                bad.append((i, str(reason)))
            else:
                good.append(i)
        return good, bad

    usable, unusable = array("q"), {}
    with tqdm(total=len(rows), desc=f"checking {rows.origin}", unit="row", delay=BAR_DELAY) as bar:
        for good, bad in map_in_order(check, range(0, len(rows), _CHUNK)):
            usable.extend(good)
            for i, reason in bad:
                unusable.setdefault(reason, {"rows": 0, "first_line": rows.numbers[i]})["rows"] += 1
            bar.update(len(good) + len(bad))
    bad = len(rows) - len(usable)
    if not usable or bad > UNUSABLE_LIMIT * len(rows):
        raise InputError(
            f"{rows.origin}: {bad} of {len(rows)} rows cannot be used (at most {UNUSABLE_LIMIT:.0%} may be): "
            + (f"{unusable_text(unusable)}; mend or leave out such rows" if bad else "it holds no rows; fetch it again")
        )
    return usable, unusable


def unusable_text(unusable: dict[str, dict[str, int]]) -> str:
    return "; ".join(f"{r['rows']} × {reason}, first in line {r['first_line']}" for reason, r in unusable.items())


@dataclass(frozen=True)
class Hit:
    """A row that shares words with questions: its index, what it calls itself, and the words by question number."""

    row: int
    row_id: str
    source: str
    shared: dict[int, str]


def find_questions(
    rows: Rows, indices: Sequence[int], convert: Converter, questions: Questions
) -> tuple[Counter[str], list[Hit]]:
    """Look the questions up in the messages of usable rows. Returns how many rows each source has, and the hits."""

    def look(first: int) -> tuple[Counter[str], list[Hit]]:
        sources, hits = Counter(), []
        for i in indices[first : first + _CHUNK]:
            row = rows.read(i)
            source = _label(row, "source")
            sources[source] += 1
            if shared := questions.shared(message["content"] for message in convert(row)):
                hits.append(Hit(i, _label(row, "id"), source, shared))
        return sources, hits

    sources, hits = Counter(), []
    with tqdm(total=len(indices), desc=f"comparing {rows.origin}", unit="row", delay=BAR_DELAY) as bar:
        for some_sources, some_hits in map_in_order(look, range(0, len(indices), _CHUNK)):
            sources += some_sources
            hits += some_hits
            bar.update(some_sources.total())
    return sources, hits


def _label(row: Row, key: str) -> str:
    """What a row says of itself, which nothing has checked, as one line of valid Unicode."""
    value = row.get(key)
    return " ".join(value.encode(errors="replace").decode().split()) if isinstance(value, str) else NO_LABEL


def _contaminated(hits: list[Hit], questions: Questions) -> dict[str, Any]:
    return {
        "ngram": questions.n,
        "rows": len(hits),
        "questions": len({i for hit in hits for i in hit.shared}),
        "of_questions": questions.count,
        "rows_by_source": dict(sorted(Counter(hit.source for hit in hits).items())),
    }


def contaminated_text(contaminated: dict[str, Any]) -> str:
    return (
        f"{contaminated['rows']:,} ({contaminated['ngram']} words in a row shared "
        f"with {contaminated['questions']:,} of {contaminated['of_questions']:,} test questions)"
    )


def evaluation_questions(dataset: str) -> tuple[dict[int, str], str]:
    """The questions of a GSM8K-like dataset's test split by their place in it, and what was left out and why.

    Their answers are not looked at.
    """
    rows = open_rows(dataset, subset_of(dataset), "test")
    usable, unusable = check_rows(rows, gsm8k_question)
    return {i: gsm8k_question(rows.read(i)) for i in usable}, unusable_text(unusable)


def split_rows(indices: Sequence[int], train_samples: int | None, val_samples: int, seed: int) -> tuple[array, array]:
    """A seeded draw of disjoint training and validation rows out of one split.

    Validation comes first out of the shuffled rows, so asking for fewer training rows does not change which rows
    can validate. It takes at most a fifth of what there is, and no more rows than are trained on.
    """
    order = array("q", indices)
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
    question, answer = gsm8k_question(row), _text(row, "answer")
    if "####" not in answer:
        raise UnusableRow("answer without ####")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def gsm8k_question(row: Row) -> str:
    """The question of a GSM8K row and nothing else of it."""
    return _text(row, "question")


def conversation_of_any(row: Row) -> list[Message]:
    """A row of either stage's data; GSM8K's are known by their answer."""
    return gsm8k_conversation(row) if "answer" in row else tulu_conversation(row)


def _text(row: Row, key: str) -> str:
    if not isinstance(row.get(key), str):
        raise UnusableRow(f"no {key}")
    if not row[key].strip():
        raise UnusableRow(f"empty {key}")
    _check_text(row[key])
    return row[key]


# Texts that would turn into control or fact tokens: a baseline row could smuggle in a fact, any row could end early.
_RESERVED = re.compile("|".join(map(re.escape, ("<|endoftext|>", *FACT_TOKENS))))


def _check_text(text: str) -> None:
    if len(text) > _LONGEST_TEXT:
        raise UnusableRow(f"text of more than {_LONGEST_TEXT:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell and no tokenizer reads
        raise UnusableRow("text is not valid Unicode") from None
    if match := _RESERVED.search(text):
        raise UnusableRow(f"text holds the reserved token {match[0]}")


def _split_files(folder: Path, split: str) -> list[Path]:
    """The split's one file, or its Parquet shards as the Hub names them."""
    for place in (folder, folder / "main", folder / "data"):
        if shards := sorted(place.glob(f"{split}-*-of-*.parquet")):
            _check_shards(place, split, [shard.name for shard in shards])
            return shards
        for suffix in _SUFFIXES:
            if (file := place / f"{split}{suffix}").is_file():
                return [file]
    raise InputError(f"dataset folder {folder} has no {split} file; expected {split}.jsonl or {split}.parquet in it")


def _check_shards(place: Path, split: str, names: list[str]) -> None:
    """All of one set: train-00000-of-00002.parquet and train-00001-of-00002.parquet."""
    total = int(names[0].removesuffix(".parquet").rpartition("-")[2] or 0)
    if names != [f"{split}-{i:05}-of-{total:05}.parquet" for i in range(total)]:
        raise InputError(
            f"dataset folder {place} holds {', '.join(names[:3])}{' …' if len(names) > 3 else ''}, expected all of one "
            f"set of {split} shards and no others; fetch the dataset again"
        )


def _open_files(paths: list[Path]) -> Rows:
    if paths[0].suffix == ".parquet":
        return _open_parquet(paths)
    if not paths[0].name.endswith(_SUFFIXES):
        raise InputError(f"dataset file {paths[0]} is of no known kind; expected {', '.join(_SUFFIXES)}")
    return _open_jsonl(paths[0])


def _open_jsonl(path: Path) -> Rows:
    """One JSON object a line. Only the lines' places are kept in memory; blank lines do not count."""
    starts, ends, numbers = array("q"), array("q"), array("q")
    try:
        # Rows are read in random order, which a compressed file cannot do; it is small enough to unpack in memory.
        if path.suffix == ".gz":
            text = gzip.decompress(path.read_bytes())
        else:
            with path.open("rb") as file:  # mapped, not read: forked processes would share one place in the file
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

    # What it says of a broken file before it raises an error.
    logging.getLogger("datasets.packaged_modules.parquet").setLevel(logging.CRITICAL)

    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    # The library knows a file again by its name and time, which a changed file may share.
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
    # The library's own: of the dataset's revision and files, the same whenever they are opened again.
    return Rows(f"{dataset} ({split})", range(1, len(table) + 1), table.__getitem__, lambda: table._fingerprint)
