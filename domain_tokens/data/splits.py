"""Which rows are trained on and which validate: checking every row, leaving out test questions, a seeded draw."""

import random
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from domain_tokens.data.contamination import Questions
from domain_tokens.data.conversations import Converter, Row, UnusableRow, gsm8k_question
from domain_tokens.data.parallel import map_rows
from domain_tokens.data.readers import Rows, open_rows
from domain_tokens.runs.config_schema import DataConfig
from domain_tokens.runs.errors import InputError

Unusable = dict[str, dict[str, int]]  # reason: {"rows": how many, "first_line": …}

UNUSABLE_LIMIT = 0.01  # share of a file's rows; more means that the file is not what it was taken for
VALIDATION_LIMIT = 5  # at most one usable row in five validates, however small the file
NO_LABEL = "-"  # in place of the id or source of a row that has none
_CHUNK = 2000  # rows that a process checks at a time


def split_training_rows(
    rows: Rows, config: DataConfig, seed: int, convert: Converter, questions: Questions | None
) -> tuple[array, array, dict[str, Any]]:
    """Return the indices of training and validation rows, which are disjoint, and what was left out and why.

    questions: rows that share words with one of them are left out. This happens before the draw: there are still as
    many training rows as asked for, and validation rows share nothing either. Left out: {"unusable": …,
    "contaminated": counts, or None without questions}.
    """
    usable, unusable = check_rows(rows, convert)
    contaminated = None
    if questions is not None:
        _, hits = find_questions(rows, usable, convert, questions)
        contaminated = {
            "ngram": questions.n,
            "rows": len(hits),
            "questions": len({i for hit in hits for i in hit.shared}),
            "of_questions": len(questions.texts),
            "rows_by_source": dict(sorted(Counter(hit.source for hit in hits).items())),
        }
        dropped = {hit.row for hit in hits}
        usable = array("q", (i for i in usable if i not in dropped))
        if not usable:
            raise InputError(
                f"{rows.origin}: all {len(dropped)} usable rows share words with the questions of "
                f"data.decontaminate_against {config.decontaminate_against}; is it the training data itself?"
            )
    train, val = split_rows(usable, config.train_samples, config.val_samples, seed)
    return train, val, {"unusable": unusable, "contaminated": contaminated}


def check_rows(rows: Rows, convert: Callable[[Row], Any]) -> tuple[array, Unusable]:
    """Read every row once. Return the indices of the usable rows; raise InputError if there are too few."""

    def check(part: Sequence[int]) -> dict[int, str]:
        reasons = {}
        for i in part:
            try:
                convert(rows.read(i))
            except UnusableRow as reason:
                reasons[i] = str(reason)
        return reasons

    reasons: dict[int, str] = {}
    for found in map_rows(check, range(len(rows)), _CHUNK, f"checking {rows.origin}"):
        reasons |= found
    unusable: Unusable = {}
    for i, reason in reasons.items():
        unusable.setdefault(reason, {"rows": 0, "first_line": rows.numbers[i]})["rows"] += 1
    if not len(rows):
        raise InputError(f"{rows.origin} holds no rows; fetch it again")
    if len(reasons) == len(rows) or len(reasons) > UNUSABLE_LIMIT * len(rows):
        raise InputError(
            f"{rows.origin}: {len(reasons)} of {len(rows)} rows cannot be used (at most {UNUSABLE_LIMIT:.0%} may be): "
            f"{unusable_text(unusable)}; fix or leave out such rows"
        )
    return array("q", (i for i in range(len(rows)) if i not in reasons)), unusable


def unusable_text(unusable: Unusable) -> str:
    return "; ".join(f"{r['rows']} × {reason}, first in line {r['first_line']}" for reason, r in unusable.items())


@dataclass(frozen=True)
class Hit:
    """A row that shares words with questions. row: its index; shared: the words by the number of the question."""

    row: int
    row_id: str
    source: str
    shared: dict[int, str]


def find_questions(
    rows: Rows, usable: Sequence[int], convert: Converter, questions: Questions
) -> tuple[Counter[str], list[Hit]]:
    """Look the questions up in the messages of usable rows. Return how many rows each source has, and the hits."""

    def look_up(part: Sequence[int]) -> tuple[Counter[str], list[Hit]]:
        sources, hits = Counter(), []
        for i in part:
            row = rows.read(i)
            source = _label(row, "source")
            sources[source] += 1
            if shared := questions.shared(message["content"] for message in convert(row)):
                hits.append(Hit(i, _label(row, "id"), source, shared))
        return sources, hits

    sources, hits = Counter(), []
    for some_sources, some_hits in map_rows(look_up, usable, _CHUNK, f"comparing {rows.origin}"):
        sources += some_sources
        hits += some_hits
    return sources, hits


def _label(row: Row, key: str) -> str:
    """A row's own `key` as one line of valid Unicode. Nothing has checked it."""
    value = row.get(key)
    return " ".join(value.encode(errors="replace").decode().split()) if isinstance(value, str) else NO_LABEL


def contaminated_text(contaminated: dict[str, Any]) -> str:
    return (
        f"{contaminated['rows']:,} ({contaminated['ngram']} words in a row shared "
        f"with {contaminated['questions']:,} of {contaminated['of_questions']:,} test questions)"
    )


def evaluation_questions(dataset: str) -> tuple[dict[int, str], str]:
    """Return the questions of a GSM8K-like test split by their place in it, and what was left out and why.

    Their answers are not looked at.
    """
    rows = open_rows(dataset, None, "test")
    usable, unusable = check_rows(rows, gsm8k_question)
    return {i: gsm8k_question(rows.read(i)) for i in usable}, unusable_text(unusable)


def split_rows(indices: Sequence[int], train_samples: int | None, val_samples: int, seed: int) -> tuple[array, array]:
    """Draw disjoint training and validation rows out of one split.

    Validation rows are the first of the shuffled rows, so that fewer training rows do not change which rows validate.
    They are at most a fifth of all rows, and at most as many as are trained on.
    """
    order = array("q", indices)
    random.Random(seed).shuffle(order)
    wanted = len(order) if train_samples is None else train_samples
    reserved = min(val_samples, len(order) // VALIDATION_LIMIT)
    train = order[reserved : reserved + wanted]
    return train, order[: min(reserved, len(train))]
