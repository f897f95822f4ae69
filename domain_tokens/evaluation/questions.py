"""Asking a model questions and writing down every answer: the same path for GSM8K and the probes."""

import random
from dataclasses import dataclass

from domain_tokens.answers import extract_answer, is_correct
from domain_tokens.data.conversations import gsm8k_conversation, without_reserved_tokens
from domain_tokens.data.readers import Rows
from domain_tokens.data.splits import check_rows, unusable_text
from domain_tokens.runs.errors import InputError

PROBE_COUNTS = {"mul_table": 81, "mul_multidigit": 100, "addition": 100}


@dataclass(frozen=True)
class Question:
    id: str  # stable across runs, so that conditions can be compared question by question
    text: str
    reference: str  # the number, as text
    category: str | None = None


def make_probes(seed: int) -> list[Question]:
    """The 281 arithmetic probes: the whole table, 100 two-digit by one-digit products, 100 sums; none twice."""
    rng = random.Random(seed)
    questions = [_product("mul_table", a, b) for a in range(1, 10) for b in range(1, 10)]
    pairs = [(a, b) for a in range(10, 100) for b in range(2, 10)]
    questions += [_product("mul_multidigit", a, b) for a, b in rng.sample(pairs, PROBE_COUNTS["mul_multidigit"])]
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    for a, b in rng.sample(pairs, PROBE_COUNTS["addition"]):
        questions.append(Question(f"addition-{a}+{b}", f"What is {a} plus {b}?", str(a + b), "addition"))
    return questions


def _product(category: str, a: int, b: int) -> Question:
    return Question(f"{category}-{a}x{b}", f"What is {a} times {b}?", str(a * b), category)


def gsm8k_questions(rows: Rows, tokenizer) -> tuple[list[Question], str]:
    """The questions of a test split, named by their place in it, and what was left out and why ("" for nothing)."""
    usable, unusable = check_rows(rows, without_reserved_tokens(gsm8k_conversation, tokenizer))
    questions = []
    for i in usable:
        row = rows.read(i)
        questions.append(Question(gsm8k_id(i), row["question"], _final_number(row["answer"], rows, i)))
    return questions, unusable_text(unusable)


def gsm8k_id(i: int) -> str:
    """The name of the question at place i of a test split."""
    return f"gsm8k-{i:05}"


def _final_number(answer: str, rows: Rows, i: int) -> str:
    number = extract_answer(answer, strict=True)
    try:
        is_correct("", number or "")
    except ValueError:
        line = rows.numbers[i]
        raise InputError(
            f"{rows.origin} line {line}: no number behind ####; expected an answer like '#### 72'"
        ) from None
    return number
