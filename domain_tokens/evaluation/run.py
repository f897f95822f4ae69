"""Asking a model questions and writing down every answer: the same path for GSM8K and the probes."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tqdm import tqdm

from domain_tokens.evaluation.fact_usage import fact_usage
from domain_tokens.evaluation.questions import Question
from domain_tokens.evaluation.scores import metrics, mul_table, prediction
from domain_tokens.evaluation.unfinished import UnfinishedAnswers
from domain_tokens.prompt import question_conversation as question_conversation
from domain_tokens.runs import processes
from domain_tokens.runs.config import LoadedConfig
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import json_text, jsonl_text, read_json, read_jsonl, write_files
from domain_tokens.runs.folders import claim_folder, find_everywhere
from domain_tokens.runs.names import PROBES_EVAL, predictions_file, results_file, unfinished_evaluation
from domain_tokens.runs.provenance import environment
from domain_tokens.runs.schemas import EVAL_VERSION, EvaluationResults
from domain_tokens.runs.signals import run_has_begun


def claim_evaluation(name: str, loaded: LoadedConfig, args) -> tuple[Path, bool, dict[str, Any]]:
    """The folder to write to, whether it holds this very evaluation already, and what makes two of them the same.

    args: what the evaluation scripts parse.
    """
    from domain_tokens.models.folder import weights_digest  # torch comes with it, see `evaluate`

    weights = weights_digest(Path(args.model_path))
    settings = {"eval_version": EVAL_VERSION, "weights": weights, "config": loaded.as_dict()}
    if args.condition is not None:
        settings["condition"] = args.condition
    output, complete = claim_folder(
        args.output_dir, results_file(name), settings, overwrite=args.overwrite, resume=args.resume,
        unfinished_name=unfinished_evaluation(name),
    )  # fmt: skip
    if complete:
        _check_complete(output, name)
    return output, complete, settings


def _check_complete(output: Path, name: str) -> None:
    total = read_json(output / results_file(name)).get("metrics", {}).get("total")
    predictions = output / predictions_file(name)
    if not predictions.is_file() or len(read_jsonl(predictions)) != total:
        raise InputError(f"{predictions} does not hold the {total} answers of its results; --overwrite asks again")


def run_evaluation(
    name: str, questions: list[Question], loaded: LoadedConfig, output: Path, settings: dict[str, Any], args
) -> dict[str, Any]:
    """Ask every question, then write {name}_predictions.jsonl and, last, {name}_results.json. Returns the results.

    Answers are kept as they come; with --resume only the missing ones are asked for. Of several processes each asks
    its share, and the main one writes. settings: of `claim`. args: what the evaluation scripts parse.
    """
    import torch  # not at the top: the comparison uses this module's figures and needs no torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    from domain_tokens.evaluation.replies import encode_prompts, generate_replies
    from domain_tokens.models.device import device_name, peak_memory, place
    from domain_tokens.models.folder import open_model

    config = loaded.config
    checkpoint = open_model(args.model_path, args.condition, getattr(torch, config.dtype))
    launched = PartialState(cpu=not torch.cuda.is_available()) if processes.count() > 1 else None
    device = place(checkpoint, launched.device if launched else None)
    conversations = {question.id: question_conversation(question.text) for question in questions}
    encode_prompts(
        checkpoint, list(conversations.values()), config.max_new_tokens
    )  # one too long stops it before it begins
    started = time.perf_counter()
    is_main = processes.rank() == 0
    kept = UnfinishedAnswers(output, name)
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
    results: EvaluationResults = {
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
            output / predictions_file(name): jsonl_text(rows).encode(),
            output / results_file(name): json_text(results).encode(),
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


def evaluation_summary(results: dict[str, Any]) -> str:
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
