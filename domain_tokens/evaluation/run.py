"""One evaluation from its output folder to its results file, the same way for every task."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from domain_tokens.data.readers import local_digest
from domain_tokens.evaluation.questions import Question
from domain_tokens.evaluation.replies import check_room, reply_to
from domain_tokens.evaluation.task import Prediction, Task
from domain_tokens.evaluation.unfinished import UnfinishedAnswers
from domain_tokens.models.device import device_name, peak_memory, place
from domain_tokens.models.folder import OpenModel, architecture_digest, open_model, weights_digest
from domain_tokens.runs import processes
from domain_tokens.runs.config import LoadedConfig, load_config
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import json_text, jsonl_text, read_json, read_jsonl, write_files
from domain_tokens.runs.folders import claim_folder, find_everywhere
from domain_tokens.runs.names import predictions_file, results_file, unfinished_evaluation
from domain_tokens.runs.provenance import environment
from domain_tokens.runs.results_schema import EVAL_VERSION, EvaluationResults
from domain_tokens.runs.signals import run_has_begun
from domain_tokens.runs.terminal import say

_GSM8K_FLAGS = {"dataset": "dataset_path", "max_samples": "max_samples"}  # flags of its scripts, by key of its config


def evaluate(kind: type[Task], args) -> None:
    """Run an evaluation from its command line to its summary; one that is complete is left as it is.

    args: of an evaluation script.
    """
    tell = processes.main_only(say)
    flags = {"seed": args.seed} | {key: getattr(args, flag, None) for key, flag in _GSM8K_FLAGS.items()}
    loaded = load_config(args.config, kind.recipe, args.overrides, flags)
    config = loaded.as_dict()
    rows = local_digest(config.get("dataset"), config.get("subset"), "test")  # the probes have none
    output, complete, settings = claim_evaluation(kind.name, loaded, rows, args)
    if complete:
        tell(f"{output} holds this evaluation already")
        return
    tell(f"Asking {args.model_path} {kind.what.format_map(config)}, to {output}")
    tell(loaded.as_yaml())
    task = kind(loaded.config, tell)
    tell(task.summary(run_evaluation(task, loaded, output, settings, rows, args)))


def claim_evaluation(name: str, loaded: LoadedConfig, rows: dict[str, str], args) -> tuple[Path, bool, dict[str, Any]]:
    """Claim the output folder. Return it, whether it already holds this very evaluation, and the run's settings.

    rows: what a finished evaluation says of its rows. args: of an evaluation script. Two runs with the same settings
    and rows give the same results.
    """
    model = Path(args.model_path)
    settings = {
        "eval_version": EVAL_VERSION, "weights": weights_digest(model), "architecture": architecture_digest(model),
        "config": loaded.as_dict(),
    }  # fmt: skip
    if args.condition is not None:
        settings["condition"] = args.condition
    output, complete = claim_folder(
        args.output_dir, results_file(name), settings | rows, overwrite=args.overwrite,
        resume=args.resume, unfinished_name=unfinished_evaluation(name),
    )  # fmt: skip
    if complete:
        total = read_json(output / results_file(name)).get("metrics", {}).get("total")
        path = output / predictions_file(name)
        if not path.is_file() or len(read_jsonl(path)) != total:
            raise InputError(f"{path} does not hold the {total} answers of its results; --overwrite asks again")
    return output, complete, settings


def run_evaluation(
    task: Task, loaded: LoadedConfig, output: Path, settings: dict[str, Any], rows: dict[str, str], args
) -> dict[str, Any]:
    """Ask every question, then write its predictions file and, last, its results file. Return the results.

    Answers are saved as they come; with --resume only the missing ones are asked for. Each of several processes asks
    its share, and the main one writes. settings, rows: of `claim_evaluation`. args: of an evaluation script.
    """
    checkpoint = open_model(args.model_path, args.condition, getattr(torch, loaded.config.dtype))
    launched = PartialState(cpu=not torch.cuda.is_available()) if processes.count() > 1 else None
    device = place(checkpoint, launched.device if launched else None)
    questions = task.questions(checkpoint)
    prompts = task.prompts(checkpoint, questions)
    check_room(checkpoint, prompts, loaded.config.max_new_tokens)
    started = time.perf_counter()
    kept = UnfinishedAnswers(output, task.name)
    if processes.rank() == 0:
        kept.begin(settings, args.resume)
    find_everywhere(output / unfinished_evaluation(task.name))
    run_has_begun()
    answers = _answered(task, questions, kept.rows())
    if launched:
        launched.wait_for_everyone()  # every process has read all files before they grow again
    missing = [asked for asked in zip(questions, prompts, strict=True) if asked[0].id not in answers]
    answers |= _ask(task, checkpoint, missing[processes.rank() :: processes.count()], kept)
    measured = task.measure(checkpoint, processes.rank(), processes.count())
    if launched:
        answers, measured = (
            {id: row for part in gather_object([each]) for id, row in part.items()} for each in (answers, measured)
        )
        launched.destroy_process_group()
    predictions = [answers[question.id] | measured.get(question.id, {}) for question in questions]
    results: EvaluationResults = {
        "evaluation": task.name,
        "eval_version": EVAL_VERSION,
        "condition": checkpoint.condition,
        "model_path": checkpoint.path,
        "weights": checkpoint.weights,
        "architecture": checkpoint.architecture,
        **rows,
        "lineage": checkpoint.lineage,
        "seed": loaded.config.seed,
        "runtime": time.perf_counter() - started,
        "peak_memory": peak_memory(device),
        **task.figures(predictions),
        "config": loaded.as_dict(),
        "overridden": sorted(loaded.overridden),
        "environment": environment(device_name(device)),
    }
    if processes.rank() == 0:
        write_files({
            output / predictions_file(task.name): jsonl_text(predictions).encode(),
            output / results_file(task.name): json_text(results).encode(),
        })  # fmt: skip
        kept.remove()
    return results


def _ask(
    task: Task, checkpoint: OpenModel, asked: list[tuple[Question, list[int]]], kept: UnfinishedAnswers
) -> dict[str, Prediction]:
    """Ask questions by their prompts and save each answer. Return the answers by id."""
    config, prompts = task.config, [prompt for _, prompt in asked]
    replies = reply_to(checkpoint, prompts, config.max_new_tokens, config.batch_size, task.one_line)
    bar = tqdm(total=len(asked), desc=f"asking {task.name}", unit=task.unit, disable=processes.rank() != 0)
    answers = {}
    with bar, kept:
        for i, reply in replies:
            answer = task.judge(asked[i][0], reply)
            answers[answer["id"]] = answer
            kept.add(answer)
            bar.update()
    return answers


def _answered(task: Task, questions: list[Question], kept: list[Any]) -> dict[str, Prediction]:
    """Return the kept answers by id: those to questions that are still the same, judged as they would be now."""
    asked = {question.id: question for question in questions}
    return {row["id"]: row for row in kept if _is_answer(task, row, asked)}


def _is_answer(task: Task, row: Any, asked: dict[str, Question]) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("reply"), str) or str(row.get("id")) not in asked:
        return False
    reply = SimpleNamespace(text=row["reply"], **{key: row.get(key) for key in ("tokens", "mul_tokens", "finished")})
    is_sound = type(reply.tokens) is type(reply.mul_tokens) is int and type(reply.finished) is bool
    return is_sound and task.judge(asked[str(row["id"])], reply) == row
