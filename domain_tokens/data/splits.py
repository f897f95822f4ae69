"""Datasets in, conversations out: reading, checking and splitting rows.

A row is read, checked and converted the same way whether it comes from the Hub, a folder or a file. Only the
split asked for is ever opened.
"""

import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from domain_tokens.data.contamination import Questions
from domain_tokens.data.conversations import Converter, Row, UnusableRow, gsm8k_question
from domain_tokens.data.parallel import map_in_order
from domain_tokens.data.readers import Rows, open_rows, subset_of
from domain_tokens.prompt import Message
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.recipes import DataConfig

UNUSABLE_LIMIT = 0.01  # share of a file's rows; more means the file is not what it was taken for
VALIDATION_LIMIT = 5  # at most one usable row in five validates, however small the file
BAR_DELAY = 3  # seconds; what is quicker needs no bar
_CHUNK = 2000  # rows checked at a time by one process
NO_LABEL = "-"  # in place of the id or source of a row that has none


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
