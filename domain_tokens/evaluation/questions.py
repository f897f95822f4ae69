"""The questions of the evaluations: arithmetic probes from their config, and GSM8K from its test split."""

import random
from dataclasses import dataclass

from domain_tokens.answers import extract_answer, is_correct
from domain_tokens.data.conversations import Row, gsm8k_conversation, without_reserved_tokens
from domain_tokens.data.readers import Rows
from domain_tokens.data.splits import check_rows, unusable_text
from domain_tokens.runs.config_schema import ProbesEvalConfig
from domain_tokens.runs.errors import InputError


@dataclass(frozen=True)
class Question:
    id: str  # stable across runs, so that conditions can be compared question by question
    text: str
    reference: str  # the number, as text
    category: str | None = None


def make_probes(config: ProbesEvalConfig) -> list[Question]:
    """Return the arithmetic probes of all categories, no pair of operands twice in a category."""
    rng = random.Random(config.seed)
    questions = []
    for name, category in config.categories.items():
        first, second = (range(smallest, largest + 1) for smallest, largest in (category.a, category.b))
        pairs = [(a, b) for a in first for b in second]
        for a, b in pairs if category.count is None else rng.sample(pairs, category.count):
            text = category.text.replace("{a}", str(a)).replace("{b}", str(b))
            reference = str(a * b if category.sign == "x" else a + b)
            questions.append(Question(f"{name}-{a}{category.sign}{b}", text, reference, name))
    return questions


def gsm8k_rows(rows: Rows, tokenizer) -> tuple[list[tuple[int, Row]], str]:
    """Return the usable rows of a test split with their places, and which were left out and why ("" if none was)."""
    usable, unusable = check_rows(rows, without_reserved_tokens(gsm8k_conversation, tokenizer))
    return [(i, rows.read(i)) for i in usable], unusable_text(unusable)


def gsm8k_questions(rows: Rows, tokenizer) -> tuple[list[Question], str]:
    """Return the questions of a test split, and which rows were left out and why ("" if none was)."""
    usable, left_out = gsm8k_rows(rows, tokenizer)
    return [
        Question(gsm8k_id(i), row["question"], _final_number(row["answer"], rows, i)) for i, row in usable
    ], left_out


def gsm8k_id(i: int) -> str:
    """Return the id of the question at place i of a test split."""
    return f"gsm8k-{i:05}"


def _final_number(answer: str, rows: Rows, i: int) -> str:
    number = extract_answer(answer, strict=True)
    try:
        is_correct("", number or "")
    except ValueError:
        where = f"{rows.origin} line {rows.numbers[i]}"
        raise InputError(f"{where}: no number after ####; expected an answer like '#### 72'") from None
    return number
