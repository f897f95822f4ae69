"""GSM8K step by step: is the next line of a reference solution right, and how many bits does its shared text take?

For each line, the model gets the question and the true lines before it, as its condition writes them, and writes one
line. Bits are measured by reading the whole reference in the model's own rendering.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from tqdm import tqdm

from domain_tokens.answers import is_correct, line_result
from domain_tokens.conditions import CONDITIONS, Condition
from domain_tokens.data.conversations import gsm8k_conversation
from domain_tokens.data.shared_text import KINDS, OUTSIDE, SharedText, shared_texts
from domain_tokens.evaluation.bits import token_bits
from domain_tokens.evaluation.fact_usage import fact_usage
from domain_tokens.evaluation.questions import Question, gsm8k_id, gsm8k_rows
from domain_tokens.evaluation.scores import prediction, token_usage
from domain_tokens.evaluation.task import Gsm8k, Prediction
from domain_tokens.inject import find_facts
from domain_tokens.models.folder import OpenModel
from domain_tokens.models.vocabulary import check_placebo
from domain_tokens.prompt import prompt_text, question_conversation
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.names import STEPS_EVAL
from domain_tokens.runs.provenance import was_injected

_MEASURED = [f"{kind}_{unit}" for kind in KINDS.values() for unit in ("bits", "bytes")]


@dataclass(frozen=True)
class Step(Question):
    """A line of a reference solution that comes to a number. reference: the line."""

    prompt: tuple[int, ...] = ()


@dataclass(frozen=True)
class Solution:
    """A reference solution. borders: where its steps' texts begin and the last one ends, in characters of `shared`.

    facts: how many there are in it.
    """

    shared: SharedText
    borders: list[int]
    steps: list[Step]
    facts: int


class Steps(Gsm8k):
    """The lines of GSM8K's solutions, each asked after the true lines before it."""

    name, what = STEPS_EVAL, "for the steps of {dataset}"
    unit = "step"
    one_line = True

    def questions(self, checkpoint: OpenModel) -> list[Question]:
        rows = {gsm8k_id(i): row for i, row in self.usable(gsm8k_rows, checkpoint)}
        self.tell(f"Finding the steps of {len(rows)} solutions, and the text that all conditions share")
        condition = rendering(checkpoint)
        check_placebo(checkpoint.tokenizer, condition, checkpoint.path)
        shared = shared_texts(checkpoint.tokenizer, [gsm8k_conversation(row) for row in rows.values()], condition)
        found = map(find_steps, rows, rows.values(), shared, repeat(checkpoint.tokenizer.eos_token))
        self.solutions = [solution for solution in found if solution.steps]
        if not self.solutions:
            raise InputError("no answer has a line with a number before its ####; expected solutions such as GSM8K's")
        if lacking := len(rows) - len(self.solutions):
            self.tell(f"answers without a line with a number before their ####, left out: {lacking}")
        longest = max(len(solution.shared.ids) for solution in self.solutions)
        if longest > checkpoint.context:
            raise InputError(
                f"the longest solution has {longest} tokens, but the model has {checkpoint.context} positions; "
                "leave that row out"
            )
        self.facts = sum(solution.facts for solution in self.solutions)
        return [step for solution in self.solutions for step in solution.steps]

    def prompts(self, checkpoint: OpenModel, questions: Sequence[Step]) -> list[list[int]]:
        return [[*step.prompt] for step in questions]

    def judge(self, question: Question, reply) -> Prediction:
        number, expected = line_result(reply.text), line_result(question.reference)
        return prediction(question, reply, {"extracted": number, "correct": is_correct(number or "", expected)})

    def measure(self, checkpoint: OpenModel, rank: int, processes: int) -> dict[str, Prediction]:
        own = self.solutions[rank::processes]
        measured = {}
        found = token_bits(checkpoint, [solution.shared.ids for solution in own])
        for i, bits in tqdm(found, "measuring bits", len(own), unit="solution", disable=rank != 0):
            fields = step_bits(own[i].shared, own[i].borders, bits)
            measured |= {step.id: row for step, row in zip(own[i].steps, fields, strict=True)}
        return measured

    def figures(self, rows: list[Prediction]) -> dict[str, Any]:
        sums = {name: sum(row[name] for row in rows) for name in [*_MEASURED, "fact_bits"]}
        per_byte = {
            f"{kind}_bits_per_byte": sums[f"{kind}_bits"] / sums[f"{kind}_bytes"] if sums[f"{kind}_bytes"] else None
            for kind in KINDS.values()
        }
        correct = sum(row["correct"] for row in rows)
        return {
            "metrics": {"step_accuracy": correct / len(rows), "correct": correct, "total": len(rows), **per_byte}
            | token_usage(rows),
            "questions": len(self.solutions),
            # The bits depend on how the condition writes facts: never compare them between conditions.
            "facts": {"facts": self.facts, "fact_bits": sums["fact_bits"]},
            "fact_usage": fact_usage(rows),
        }

    @staticmethod
    def summary(results: dict[str, Any]) -> str:
        """Return the results in a few lines for their reader."""
        figures, facts = results["metrics"], results["facts"]
        numbers, words = (
            "none" if (value := figures[f"{kind}_bits_per_byte"]) is None else f"{value:.4f} bits per byte"
            for kind in KINDS.values()
        )
        lines = [
            f"step accuracy: {figures['step_accuracy']:.1%} ({figures['correct']} of {figures['total']} steps of "
            f"{results['questions']} questions), each after the true lines before it; {figures['finished_rate']:.1%} "
            "of the replies ended by themselves",
            f"shared text: numbers {numbers}, words {words}",
            "Compare these between conditions, but not the bits of whole answers: a token that replaces a fact forgets "
            "operand order, spacing and whether the result was written. A fact token in the lines before tells the "
            "result just as 6*9=54 does.",
        ]
        if facts["facts"]:
            each = f"{facts['fact_bits'] / facts['facts']:.2f} bits for each of {facts['facts']}"
            lines.append(f"facts: {each}, as this condition writes them; do not compare between conditions")
        return "\n".join([*lines, f"took {results['runtime']:.1f} seconds"])


def rendering(checkpoint: OpenModel) -> Condition:
    """Return how a model's training text was written: by its condition, or as its ablation."""
    condition = CONDITIONS[checkpoint.condition]
    return condition.without_injection() if was_injected(checkpoint.lineage) is False else condition


def find_steps(question_id: str, row: dict[str, str], shared: SharedText, end_of_text: str) -> Solution:
    """Divide a reference solution into steps: the lines before its `####` that come to a number.

    Any other line belongs to the next step's text, or to the last step's, like the `####` line and what follows.
    """
    start = len(prompt_text(question_conversation(row["question"]), end_of_text))
    end = len(shared.text) - len(end_of_text)
    borders, steps, place = [start], [], start
    for line in shared.text[start:end].split("\n"):
        if line.lstrip().startswith("####"):
            break
        if line_result(line.strip()) is not None:
            # The prompt is the training text's own tokens, up to the last that ends before the line. For GPT-2 and most
            # others that is the line break's; where a line break merges with what follows, the model writes it, too.
            prompt = shared.ids[: int(np.argmax(shared.last >= place))]
            step_id = f"{question_id}-{len(steps) + 1}"
            steps.append(Step(step_id, row["question"], line.strip(), prompt=tuple(prompt)))
            borders.append(place + len(line) + 1)
        place += len(line) + 1
    facts = sum(1 for _ in find_facts(row["answer"]))
    return Solution(shared, [*borders[: max(1, len(steps))], end], steps, facts)


def step_bits(shared: SharedText, borders: Sequence[int], bits: np.ndarray) -> list[Prediction]:
    """Return bits and bytes of numbers, words and the rest by step. bits: of each token but the first."""
    sizes = shared.byte_sums(borders)
    # A token belongs to the step of its first character. End-of-text comes after the last border.
    step = np.searchsorted(borders, shared.first[1:], side="right") - 1
    is_measured = (step >= 0) & (step < len(borders) - 1)
    kinds, step, bits = shared.kinds[1:][is_measured], step[is_measured], bits.astype(np.float64)[is_measured]
    sums = {
        kind: np.bincount(step[kinds == kind], bits[kinds == kind], minlength=len(borders) - 1)
        for kind in (*KINDS, OUTSIDE)
    }
    rows = []
    for i in range(len(borders) - 1):
        row: Prediction = {}
        for kind, name in KINDS.items():
            row |= {f"{name}_bits": round(float(sums[kind][i]), 6), f"{name}_bytes": int(sizes[name][i])}
        rows.append(row | {"fact_bits": round(float(sums[OUTSIDE][i]), 6)})
    return rows
