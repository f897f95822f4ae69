"""Asking a model questions and writing down every answer: the same path for GSM8K and the probes."""

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from domain_tokens import processes
from domain_tokens.answers import extract_answer, is_correct
from domain_tokens.config import Loaded
from domain_tokens.data import Rows, check_rows, gsm8k_conversation, unusable_text
from domain_tokens.errors import InputError
from domain_tokens.prompt import question as question_conversation
from domain_tokens.results import EVAL_VERSION, environment, write_json, write_jsonl

PROBE_COUNTS = {"mul_table": 81, "mul_multidigit": 100, "addition": 100}


@dataclass(frozen=True)
class Question:
    id: str  # stable across runs, so that conditions can be compared question by question
    text: str
    reference: str  # the number, as text
    category: str | None = None


def probes(seed: int) -> list[Question]:
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


def predictions(questions: list[Question], replies: list) -> list[dict[str, Any]]:
    """One object per question, in the questions' order. replies: a generation.Reply for each."""
    rows = []
    for question, reply in zip(questions, replies, strict=True):
        row = {
            "id": question.id,
            "question": question.text,
            "reference": question.reference,
            "reply": reply.text,
            "extracted": extract_answer(reply.text),
            "extracted_strict": extract_answer(reply.text, strict=True),
            "correct": is_correct(reply.text, question.reference),
            "correct_strict": is_correct(reply.text, question.reference, strict=True),
            "tokens": reply.tokens,
            "mul_tokens": reply.mul_tokens,
            "finished": reply.finished,
        }
        if question.category is not None:
            row["category"] = question.category
        rows.append(row)
    return rows


def metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one evaluation, all of them counted from its predictions."""
    total = len(rows)
    mul_tokens = sum(row["mul_tokens"] for row in rows)
    figures = {
        "accuracy": sum(row["correct"] for row in rows) / total,
        "accuracy_strict": sum(row["correct_strict"] for row in rows) / total,
        "correct": sum(row["correct"] for row in rows),
        "total": total,
        "mul_token_count": mul_tokens,
        "mul_tokens_per_response": mul_tokens / total,
        "avg_response_tokens": sum(row["tokens"] for row in rows) / total,
        "finished_rate": sum(row["finished"] for row in rows) / total,
    }
    categories = list(dict.fromkeys(row["category"] for row in rows if "category" in row))
    if categories:
        figures["overall_accuracy"] = figures["accuracy"]
        figures["category_accuracies"] = {name: _share_correct(rows, name) for name in categories}
    return figures


def _share_correct(rows: list[dict[str, Any]], category: str) -> dict[str, Any]:
    right = [row["correct"] for row in rows if row["category"] == category]
    return {"accuracy": sum(right) / len(right), "correct": sum(right), "total": len(right)}


def gsm8k_questions(rows: Rows) -> tuple[list[Question], str]:
    """The questions of a test split, named by their place in it, and what was left out and why ("" for nothing)."""
    usable, unusable = check_rows(rows, gsm8k_conversation)
    questions = []
    for i in usable:
        row = rows.read(i)
        questions.append(Question(f"gsm8k-{i:05}", row["question"], _final_number(row["answer"], rows, i)))
    return questions, unusable_text(unusable)


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


def settings(loaded: Loaded, model_path: str) -> dict[str, Any]:
    """What makes two evaluations the same, under the names the results file has for them."""
    from domain_tokens.checkpoints import weights_digest  # torch comes with it, see `evaluate`

    return {"eval_version": EVAL_VERSION, "weights": weights_digest(Path(model_path)), "config": loaded.as_dict()}


def evaluate(
    model_path: str, condition: str | None, name: str, questions: list[Question], loaded: Loaded, output: Path
) -> dict[str, Any]:
    """Ask every question, then write {name}_predictions.jsonl and, last, {name}_results.json. Returns the results.

    Of several processes each asks its share, and the main one writes.
    """
    import torch  # not at the top: the comparison uses this module's figures and needs no torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    from domain_tokens.checkpoints import device_name, open_checkpoint, peak_memory, place
    from domain_tokens.generation import generate_replies

    config = loaded.config
    checkpoint = open_checkpoint(model_path, condition, getattr(torch, config.dtype))
    launched = PartialState(cpu=not torch.cuda.is_available()) if processes.count() > 1 else None
    device = place(checkpoint, launched.device if launched else None)
    started = time.perf_counter()
    replies = {}
    own = range(processes.rank(), len(questions), processes.count())
    conversations = [question_conversation(questions[i].text) for i in own]
    is_main = processes.rank() == 0
    with tqdm(total=len(own), desc=f"asking {name} questions", unit="question", disable=not is_main) as bar:
        for i, reply in generate_replies(checkpoint, conversations, config.max_new_tokens, config.batch_size):
            replies[own[i]] = reply
            bar.update()
    if launched:
        replies = {i: reply for part in gather_object([replies]) for i, reply in part.items()}
        launched.destroy_process_group()
    rows = predictions(questions, [replies[i] for i in range(len(questions))])
    results = {
        "evaluation": name,
        "eval_version": EVAL_VERSION,
        "condition": checkpoint.condition,
        "model_path": checkpoint.path,
        "weights": checkpoint.weights,
        "lineage": checkpoint.lineage,
        "seed": config.seed,
        "runtime": time.perf_counter() - started,
        "peak_memory": peak_memory(device),
        "metrics": metrics(rows),
        "config": loaded.as_dict(),
        "overridden": sorted(loaded.overridden),
        "environment": environment(device_name(device)),
    }
    if is_main:
        (output / f"{name}_results.json").unlink(missing_ok=True)  # from here on the evaluation is incomplete
        write_jsonl(output / f"{name}_predictions.jsonl", rows)
        write_json(output / f"{name}_results.json", results)
    return results


def summary(results: dict[str, Any]) -> str:
    figures = results["metrics"]
    lines = [
        f"accuracy {figures['accuracy']:.1%} ({figures['correct']} of {figures['total']}), "
        f"strict {figures['accuracy_strict']:.1%}",
        f"{figures['avg_response_tokens']:.1f} tokens a reply, {figures['mul_tokens_per_response']:.2f} of them facts; "
        f"{figures['finished_rate']:.1%} ended by end-of-text; {results['runtime']:.0f} s",
    ]
    for name, share in figures.get("category_accuracies", {}).items():
        lines.append(f"  {name:<14} {share['accuracy']:6.1%} ({share['correct']} of {share['total']})")
    return "\n".join(lines)
