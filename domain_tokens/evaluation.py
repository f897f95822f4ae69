"""Asking a model questions and writing down every answer: the same path for GSM8K and the probes."""

import random
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tqdm import tqdm

from domain_tokens import processes
from domain_tokens.answers import extract_answer, is_correct
from domain_tokens.config import Loaded
from domain_tokens.data import Rows, check_rows, gsm8k_conversation, unusable_text
from domain_tokens.errors import InputError
from domain_tokens.interruption import run_has_begun
from domain_tokens.kept import KeptAnswers
from domain_tokens.prompt import question as question_conversation
from domain_tokens.results import (
    EVAL_VERSION,
    PROBES_EVAL,
    claim_folder,
    environment,
    find_everywhere,
    json_text,
    jsonl_text,
    read_json,
    read_jsonl,
    unfinished_evaluation,
    write_files,
)
from domain_tokens.usage import fact_usage

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
    return [prediction(question, reply) for question, reply in zip(questions, replies, strict=True)]


def prediction(question: Question, reply) -> dict[str, Any]:
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
    return row if question.category is None else row | {"category": question.category}


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


def mul_table(rows: list[dict[str, Any]]) -> list[list[bool | None]]:
    """9×9, row a-1, column b-1: whether `What is a times b?` was answered right; None where it was not asked."""
    right: list[list[bool | None]] = [[None] * 9 for _ in range(9)]
    for row in rows:
        if row.get("category") == "mul_table" and (place := re.fullmatch(r"mul_table-([1-9])x([1-9])", row["id"])):
            a, b = place.groups()
            right[int(a) - 1][int(b) - 1] = row["correct"]
    return right


def _share_correct(rows: list[dict[str, Any]], category: str) -> dict[str, Any]:
    right = [row["correct"] for row in rows if row["category"] == category]
    return {"accuracy": sum(right) / len(right), "correct": sum(right), "total": len(right)}


def gsm8k_questions(rows: Rows) -> tuple[list[Question], str]:
    """The questions of a test split, named by their place in it, and what was left out and why ("" for nothing)."""
    usable, unusable = check_rows(rows, gsm8k_conversation)
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


def claim(name: str, loaded: Loaded, args) -> tuple[Path, bool, dict[str, Any]]:
    """The folder to write to, whether it holds this very evaluation already, and what makes two of them the same.

    args: what the evaluation scripts parse.
    """
    from domain_tokens.checkpoints import weights_digest  # torch comes with it, see `evaluate`

    weights = weights_digest(Path(args.model_path))
    settings = {"eval_version": EVAL_VERSION, "weights": weights, "config": loaded.as_dict()}
    if args.condition is not None:
        settings["condition"] = args.condition
    output, complete = claim_folder(
        args.output_dir, f"{name}_results.json", settings, overwrite=args.overwrite, resume=args.resume,
        unfinished_name=unfinished_evaluation(name),
    )  # fmt: skip
    if complete:
        _check_complete(output, name)
    return output, complete, settings


def _check_complete(output: Path, name: str) -> None:
    total = read_json(output / f"{name}_results.json").get("metrics", {}).get("total")
    predictions = output / f"{name}_predictions.jsonl"
    if not predictions.is_file() or len(read_jsonl(predictions)) != total:
        raise InputError(f"{predictions} does not hold the {total} answers of its results; --overwrite asks again")


def evaluate(
    name: str, questions: list[Question], loaded: Loaded, output: Path, settings: dict[str, Any], args
) -> dict[str, Any]:
    """Ask every question, then write {name}_predictions.jsonl and, last, {name}_results.json. Returns the results.

    Answers are kept as they come; with --resume only the missing ones are asked for. Of several processes each asks
    its share, and the main one writes. settings: of `claim`. args: what the evaluation scripts parse.
    """
    import torch  # not at the top: the comparison uses this module's figures and needs no torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    from domain_tokens.checkpoints import device_name, open_checkpoint, peak_memory, place
    from domain_tokens.generation import encode, generate_replies

    config = loaded.config
    checkpoint = open_checkpoint(args.model_path, args.condition, getattr(torch, config.dtype))
    launched = PartialState(cpu=not torch.cuda.is_available()) if processes.count() > 1 else None
    device = place(checkpoint, launched.device if launched else None)
    conversations = {question.id: question_conversation(question.text) for question in questions}
    encode(checkpoint, list(conversations.values()), config.max_new_tokens)  # one too long stops it before it begins
    started = time.perf_counter()
    is_main = processes.rank() == 0
    kept = KeptAnswers(output, name)
    if is_main:
        kept.begin(settings, args.resume)
    find_everywhere(output / unfinished_evaluation(name))
    run_has_begun()
    answers = _answered(questions, kept.rows())
    if launched:
        launched.wait_for_everyone()  # before the files grow again
    missing = [question for question in questions if question.id not in answers]
    own = missing[processes.rank() :: processes.count()]
    asked = [conversations[question.id] for question in own]
    bar = tqdm(total=len(own), desc=f"asking {name} questions", unit="question", disable=not is_main)
    with bar, kept:
        for i, reply in generate_replies(checkpoint, asked, config.max_new_tokens, config.batch_size):
            answers[own[i].id] = prediction(own[i], reply)
            kept.add(answers[own[i].id])
            bar.update()
    if launched:
        answers = {id: row for part in gather_object([answers]) for id, row in part.items()}
        launched.destroy_process_group()
    rows = [answers[question.id] for question in questions]
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
        "fact_usage": fact_usage(rows),
        **({"mul_table": mul_table(rows)} if name == PROBES_EVAL else {}),
        "config": loaded.as_dict(),
        "overridden": sorted(loaded.overridden),
        "environment": environment(device_name(device)),
    }
    if is_main:
        write_files({
            output / f"{name}_predictions.jsonl": jsonl_text(rows).encode(),
            output / f"{name}_results.json": json_text(results).encode(),
        })  # fmt: skip
        kept.remove()
    return results


def _answered(questions: list[Question], kept: list[Any]) -> dict[str, dict[str, Any]]:
    """The kept answers by id: of questions that are still the same, judged as they would be now."""
    asked = {question.id: question for question in questions}
    return {row["id"]: row for row in kept if _is_answer(row, asked)}


def _is_answer(row: Any, asked: dict[str, Question]) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("reply"), str) or str(row.get("id")) not in asked:
        return False
    reply = SimpleNamespace(text=row["reply"], **{key: row.get(key) for key in ("tokens", "mul_tokens", "finished")})
    is_sound = type(reply.tokens) is type(reply.mul_tokens) is int and type(reply.finished) is bool
    return is_sound and prediction(asked[str(row["id"])], reply) == row


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
