"""The part of supervised fine-tuning that must be identical in every stage and condition."""

import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from tqdm import tqdm

from domain_tokens.conditions import CONDITIONS
from domain_tokens.data.cache import prepare_training_data
from domain_tokens.data.conversations import Converter
from domain_tokens.data.prepared import Prepared, cut_warning
from domain_tokens.data.splits import contaminated_text, unusable_text
from domain_tokens.hub.client import prepare_client
from domain_tokens.models.device import device_name, peak_memory
from domain_tokens.models.folder import OpenModel, open_model, save_model, weights_digest
from domain_tokens.prompt import IGNORED_LABEL
from domain_tokens.runs import processes
from domain_tokens.runs.config import LoadedConfig, load_config
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.files import read_json, shown_source, write_json, write_text
from domain_tokens.runs.folders import claim_folder, find_everywhere, lock_run
from domain_tokens.runs.names import MODEL_FILES, RESOLVED_CONFIG, UNFINISHED
from domain_tokens.runs.provenance import environment
from domain_tokens.runs.recipes import SftConfig
from domain_tokens.runs.schemas import TrainingResults
from domain_tokens.runs.signals import StopRequest, run_has_begun
from domain_tokens.runs.terminal import shown_text
from domain_tokens.training.arguments import make_trainer
from domain_tokens.training.callbacks import NumbersCallback
from domain_tokens.training.resume import last_checkpoint
from domain_tokens.training.sharding import whole_weights
from domain_tokens.training.trainer import SftTrainer, check_finite


def decide_injection(condition: str, flag: bool | None) -> bool:
    """The condition decides. flag: True for --inject-mul-tokens, False for --no-inject-mul-tokens, None for neither."""
    if flag and not CONDITIONS[condition].injects:
        others = " or ".join(name for name, each in CONDITIONS.items() if each.injects)
        raise InputError(f"--inject-mul-tokens contradicts --condition {condition}; leave it out or use {others}")
    return CONDITIONS[condition].injects and flag is not False


def run_stage(stage: str, results_name: str, convert: Converter, args, say: Callable[[str], None]) -> None:
    """One SFT stage, from its command line's arguments to its results file: the same for every stage and condition.

    convert: a raw row to a conversation, or UnusableRow. args: what the stage scripts parse. say: prints a line.
    """
    say = processes.once(say)
    flags = {"seed": args.seed, "data.dataset": args.dataset_path, "data.train_samples": args.max_train_samples}
    loaded = load_config(args.config, SftConfig, args.overrides, flags)
    config: SftConfig = loaded.config
    inject_facts = decide_injection(args.condition, args.inject_mul_tokens)
    run_settings = run_identity(loaded, args.model_path, args.condition, inject_facts)
    output, complete = claim_folder(
        args.output_dir,
        results_name,
        run_settings,
        overwrite=args.overwrite,
        resume=args.resume,
        holds_model=True,
        made_from=args.model_path,
    )
    if complete:
        _check_weights(output, results_name)
        say(f"{output} is complete already")
        return
    say(f"Training {args.model_path} on {config.data.dataset}, condition {args.condition}, to {output}")
    say(loaded.as_yaml())

    checkpoint = open_model(args.model_path, args.condition)
    prepare_client(say)
    train, val, left_out = prepare_training_data(config.data, config.seed, convert, checkpoint.tokenizer, inject_facts)
    say(describe_rows(checkpoint.tokenizer, train, val, left_out, inject_facts))
    if warning := cut_warning(train, config.data.max_length, checkpoint.context):
        say(warning)

    trainer = make_trainer(checkpoint, train, val, config, output)
    results = train_and_save(
        trainer, checkpoint, stage, results_name, loaded, output, run_settings, left_out, args.resume
    )
    say(training_summary(results))


def _check_weights(output: Path, results_name: str) -> None:
    try:
        found = weights_digest(output)
    except InputError:
        found = None
    if found is None or found != read_json(output / results_name).get("weights"):
        raise InputError(f"{output} does not hold the weights that {results_name} speaks of; --overwrite trains anew")


def run_identity(loaded: LoadedConfig, model_path: str, condition: str, inject_facts: bool) -> dict[str, Any]:
    """What makes two runs the same run, under the names its results file has for them."""
    return {
        "condition": condition,
        "start_weights": weights_digest(Path(model_path)),
        "inject_mul_tokens": inject_facts,
        "config": loaded.as_dict(),
    }


def train_and_save(
    trainer: SftTrainer,
    checkpoint: OpenModel,
    stage: str,
    results_name: str,
    loaded: LoadedConfig,
    output: Path,
    run_identity: dict[str, Any],
    left_out: dict[str, Any],
    resume: bool,
) -> dict[str, Any]:
    """Train, measure the validation loss, save the model, and write the results file last. Returns the results.

    settings: what `run_identity` returned. resume: continue from the folder's last
    checkpoint; otherwise clear the folder first.
    """
    config: SftConfig = loaded.config
    train, val = trainer.train_dataset, trainer.eval_dataset
    inject_facts = run_identity["inject_mul_tokens"]
    continues = resume and (output / UNFINISHED).exists()
    digests = {"train": train.digest(), "val": val.digest() if val is not None else None}
    if continues and read_json(output / UNFINISHED).get("rows", {}).get("digests") != digests:
        raise InputError(
            f"{output} was begun on other rows: {config.data.dataset} is not what it was; "
            "bring that data back, or --overwrite starts anew"
        )
    if trainer.is_world_process_zero():
        if (output / UNFINISHED).exists():
            lock_run(output / UNFINISHED)
        if not continues:
            _clear_run(output)
            # From here on the folder is incomplete.
            write_json(output / UNFINISHED, run_identity | {"rows": {"digests": digests}})
            lock_run(output / UNFINISHED)
        trainer.add_callback(NumbersCallback(output / "runs"))
    find_everywhere(output / UNFINISHED)
    run_has_begun()
    try:
        with StopRequest(processes.once(tqdm.write)) as trainer.stop:
            checkpoint_folder = last_checkpoint(output) if resume else None
            trainer.train(resume_from_checkpoint=str(checkpoint_folder) if checkpoint_folder else None)
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"the GPU's memory is full; give micro_batch_tokens, less than {trainer.data_collator.max_tokens} ({error})"
        ) from error
    except UnpicklingError as error:  # of what a checkpoint has beside the weights
        raise InputError(
            f"{output}: its last checkpoint holds more than plain tensors, and is never loaded; --overwrite starts anew"
        ) from error
    except (SafetensorError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("PytorchStream|inline_container", str(error)):
            raise
        if not trainer.has_begun:
            raise InputError(f"{output}: its last checkpoint is damaged; --overwrite starts anew") from error
        raise RunError(f"{output}: a checkpoint cannot be written ({error}); make room, then --resume") from error
    runtime = trainer.totals.runtime()
    last = trainer.state.log_history[-2:]  # the run's own summary comes behind an evaluation of its last step
    measured = [log["eval_loss"] for log in last if log["step"] == trainer.state.global_step and "eval_loss" in log]
    if val is not None and (not measured or trainer.args.load_best_model_at_end):  # then other weights are saved
        measured = [trainer.evaluate()["eval_loss"]]
    eval_loss = measured[0] if measured else None
    train_loss = float(trainer.totals.loss) / max(1, trainer.state.global_step)
    for loss in (train_loss, *measured):
        check_finite(loss, trainer.state.global_step)
    curves = {
        name: [[log["step"], log[key]] for log in trainer.state.log_history if key in log]
        for name, key in (("train", "loss"), ("validation", "eval_loss"))
    }

    where = environment(device_name(trainer.args.device))
    lineage = [
        *checkpoint.lineage,
        {
            "stage": stage,
            "model_path": checkpoint.path,
            "start_weights": checkpoint.weights,
            "dataset": shown_source(config.data.dataset),
            "seed": config.seed,
            "inject_mul_tokens": inject_facts,
            "injected_mul_tokens": train.injected.total(),
            "commit": where["commit"],
            "dirty": where["dirty"],
        },
    ]
    results: TrainingResults = {
        "stage": stage,
        "condition": checkpoint.condition,
        "seed": config.seed,
        "model_path": checkpoint.path,
        "start_weights": checkpoint.weights,
        "dataset": lineage[-1]["dataset"],
        "train_loss": train_loss,
        "eval_loss": eval_loss,
        "loss_curves": curves,
        "train_runtime": runtime,
        "peak_memory": peak_memory(trainer.args.device),
        "steps": trainer.state.global_step,
        "total_train_samples": len(train),
        "total_val_samples": len(val) if val is not None else 0,
        "inject_mul_tokens": inject_facts,
        "injected_mul_tokens": train.injected.total(),
        "injected_by_fact": dict(sorted(train.injected.items())),
        "tokens_trained": int(trainer.totals.tokens),
        "rows": {
            **left_out,
            "train": train.counts(),
            "val": val.counts() if val is not None else None,
            "digests": digests,
        },
        "config": loaded.as_dict(),
        "overridden": sorted(loaded.overridden),
        "environment": where,
    }
    whole = whole_weights(trainer) if trainer.is_fsdp_enabled else None
    if trainer.is_world_process_zero():
        checkpoint.model.config.use_cache = True
        save_model(output, checkpoint.model, checkpoint.tokenizer, checkpoint.condition, lineage, whole)
        write_text(output / RESOLVED_CONFIG, loaded.as_yaml())
        results["weights"] = weights_digest(output)
        write_json(output / results_name, results)
        (output / UNFINISHED).unlink()
    return results


def _clear_run(output: Path) -> None:
    """Remove what an earlier run left, so that none of it can be taken for this run's."""
    for name in (*reversed(MODEL_FILES), UNFINISHED):  # what calls the model whole goes first
        (output / name).unlink(missing_ok=True)
    for folder in [*output.glob("checkpoint-*"), output / "runs", output / ".writing"]:
        if folder.is_symlink():
            folder.unlink()
        elif folder.is_dir():
            shutil.rmtree(folder)


def describe_rows(tokenizer, train: Prepared, val: Prepared, left_out: dict[str, Any], inject_facts: bool) -> str:
    """What will be trained on: counts, and the first row with its trained part between « and »."""
    lines = []
    for name, prepared in (("training", train), ("validation", val)):
        counts = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in prepared.counts().items())
        lines.append(f"{name} rows: {counts}")
    if left_out["unusable"]:
        lines.append(f"unusable rows left out: {unusable_text(left_out['unusable'])}")
    if left_out["contaminated"] is not None:
        lines.append(f"contaminated rows left out: {contaminated_text(left_out['contaminated'])}")
    if inject_facts and not train.injected:
        lines.append("note: no fact stands in these rows, so this stage trains both conditions alike")
    return "\n".join([*lines, "first training row, «trained part»:", marked_example(tokenizer, train), ""])


def training_summary(results: dict[str, Any]) -> str:
    validation = "none" if results["eval_loss"] is None else f"{results['eval_loss']:.4f}"
    return (
        f"{results['steps']} steps over {results['total_train_samples']:,} rows in {results['train_runtime']:.0f} s: "
        f"training loss {results['train_loss']:.4f}, validation loss {validation}"
    )


def marked_example(tokenizer, prepared: Prepared, i: int = 0) -> str:
    """Row i decoded as the model sees it, the trained part between « and », for a terminal."""
    row = prepared[i]
    ids, trained = row["input_ids"], row["labels"] != IGNORED_LABEL
    borders = [0, *(np.flatnonzero(np.diff(trained)) + 1), len(ids)]
    texts = [(tokenizer.decode(ids[a:b].tolist()), trained[a]) for a, b in itertools.pairwise(borders)]
    return shown_text("".join(f"«{text}»" if is_trained else text for text, is_trained in texts))
