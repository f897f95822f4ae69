"""One SFT stage from its command line to its results file: the same for every stage and condition."""

import re
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from domain_tokens.conditions import CONDITIONS, Condition
from domain_tokens.data.cache import prepare_training_data
from domain_tokens.data.conversations import Converter
from domain_tokens.data.prepared import cut_warning
from domain_tokens.data.readers import local_digest
from domain_tokens.hub.client import prepare_client
from domain_tokens.models.folder import OpenModel, architecture_digest, open_model, save_model, weights_digest
from domain_tokens.models.vocabulary import check_placebo
from domain_tokens.runs import processes
from domain_tokens.runs.config import LoadedConfig, load_config
from domain_tokens.runs.config_schema import SftConfig
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.files import read_json, write_json, write_text
from domain_tokens.runs.folders import begin_run, claim_folder, find_everywhere
from domain_tokens.runs.names import MODEL_FILES, RESOLVED_CONFIG, SFT_STAGES, UNFINISHED
from domain_tokens.runs.signals import StopRequest, run_has_begun
from domain_tokens.runs.terminal import say
from domain_tokens.training.callbacks import StopCallback, TensorBoardWriter, write_over_echo
from domain_tokens.training.results import describe_rows, lineage_entry, training_results, training_summary
from domain_tokens.training.resume import last_checkpoint
from domain_tokens.training.sharding import whole_weights
from domain_tokens.training.trainer import SftTrainer
from domain_tokens.training.trainer_setup import make_trainer
from domain_tokens.training.watching import TENSORBOARD, SamplesCallback, sample_prompts, services


def run_stage(stage: str, convert: Converter, args) -> None:
    """Train a model on a recipe's data and save it, with its results file last.

    convert: a raw row to a conversation, or UnusableRow. args: what the stage scripts parse.
    """
    tell, results_name = processes.main_only(say), SFT_STAGES[stage]
    flags = {"seed": args.seed, "data.dataset": args.dataset_path, "data.train_samples": args.max_train_samples}
    loaded = load_config(args.config, SftConfig, args.overrides, flags)
    config: SftConfig = loaded.config
    condition = decide_injection(CONDITIONS[args.condition], args.inject_mul_tokens)
    identity = {  # what makes two runs the same run, under its names in the results file
        "condition": args.condition,
        "start_weights": weights_digest(Path(args.model_path)),
        "start_architecture": architecture_digest(Path(args.model_path)),
        "inject_mul_tokens": condition.injects,
        "config": loaded.as_dict(),
    }
    source = local_digest(config.data.dataset, config.data.subset, "train")
    output, is_complete = claim_folder(
        args.output_dir, results_name, identity | source, overwrite=args.overwrite, resume=args.resume,
        holds_model=True, made_from=args.model_path,
    )  # fmt: skip
    if is_complete:
        check_saved_weights(output, results_name)
        tell(f"{output} is complete already")
        return
    tell(f"Training {args.model_path} on {config.data.dataset}, condition {args.condition}, to {output}")
    tell(loaded.as_yaml())

    checkpoint = open_model(args.model_path, args.condition)
    check_placebo(checkpoint.tokenizer, condition, args.model_path)
    prepare_client(tell)
    train, val, left_out = prepare_training_data(config.data, config.seed, convert, checkpoint.tokenizer, condition)
    tell(describe_rows(checkpoint.tokenizer, train, val, left_out, condition))
    if warning := cut_warning(train, config.data.max_length, checkpoint.context):
        tell(warning)

    trainer = make_trainer(checkpoint, train, val, config, output)
    if trainer.padding_reason is not None:
        tell(f"note: rows are padded, not packed, which is slower: {trainer.padding_reason}\n")
    digests = {"train": train.digest(), "val": val.digest() if len(val) else None}
    begin_training(trainer, output, identity | {"rows": {"digests": digests}}, args.resume)
    watch(trainer, checkpoint, config, output)
    train_model(trainer, output, args.resume)
    results = training_results(trainer, checkpoint, stage, loaded, condition.injects, left_out | {"digests": digests})
    save_run(trainer, checkpoint, output, results_name, results | source, loaded)
    tell(training_summary(results))


def decide_injection(condition: Condition, flag: bool | None) -> Condition:
    """Return the condition, or its ablation. flag: True for --inject-mul-tokens, False for --no-…, None for neither.

    Raises InputError for a flag that contradicts the condition.
    """
    if flag and not condition.injects:
        others = " or ".join(name for name, each in CONDITIONS.items() if each.injects)
        raise InputError(f"--inject-mul-tokens contradicts --condition {condition.name}; leave it out or use {others}")
    return condition.without_injection() if flag is False else condition


def check_saved_weights(output: Path, results_name: str) -> None:
    """Raise InputError if a complete run's folder no longer holds the weights that its results are about."""
    try:
        found = weights_digest(output)
    except InputError:
        found = None
    if found is None or found != read_json(output / results_name).get("weights"):
        raise InputError(f"{output} does not hold the weights that {results_name} records; --overwrite trains again")


def begin_training(trainer: SftTrainer, output: Path, identity: dict[str, Any], resume: bool) -> None:
    """Mark the folder incomplete and hold it until this process exits. A run that is not continued is cleared first.

    Raises InputError if the interrupted run had other rows, RunError if another process is writing here.
    """
    unfinished = output / UNFINISHED
    begun = read_json(unfinished) if resume and unfinished.exists() else identity
    if begun.get("rows", {}).get("digests") != identity["rows"]["digests"]:
        raise InputError(
            f"{output} was begun on other rows: {identity['config']['data']['dataset']} is not what it was; "
            "bring that data back, or --overwrite starts from scratch"
        )
    if trainer.is_world_process_zero():
        begin_run(unfinished, identity, resume, lambda: _clear_run(output))
    find_everywhere(unfinished)
    run_has_begun()


def watch(trainer: SftTrainer, checkpoint: OpenModel, config: SftConfig, output: Path) -> None:
    """Let the main process write TensorBoard's files and ask a few prompts at every validation."""
    if not trainer.is_world_process_zero():
        return
    writer = None
    if TENSORBOARD in services(config.trainer.get("report_to")):
        writer = TensorBoardWriter(output / "runs")
        trainer.add_callback(writer)
    if trainer.eval_dataset is None or trainer.is_fsdp_enabled:  # a sharded model needs all processes for a reply
        return
    if prompts := sample_prompts(checkpoint, trainer.eval_dataset, config.eval_samples):
        trainer.add_callback(SamplesCallback(checkpoint, prompts, writer))


def _clear_run(output: Path) -> None:
    """Remove what an earlier run left, so that none of it can be taken for this run's."""
    for name in (*reversed(MODEL_FILES), UNFINISHED):  # the files that mark a model complete go first
        (output / name).unlink(missing_ok=True)
    for folder in [*output.glob("checkpoint-*"), output / "runs", output / ".writing"]:
        if folder.is_symlink():
            folder.unlink()
        elif folder.is_dir():
            shutil.rmtree(folder)


def train_model(trainer: SftTrainer, output: Path, resume: bool) -> None:
    """Train, from the folder's last checkpoint with `resume`. Raises KeyboardInterrupt when asked to stop."""
    checkpoint = last_checkpoint(output, trainer.model) if resume else None
    trainer.accelerator.wait_for_everyone()  # what the main process mended is there for all
    trainer.args.eval_on_start = trainer.args.eval_on_start and checkpoint is None
    with StopRequest(processes.main_only(write_over_echo)) as request:
        stop = StopCallback(request)
        trainer.add_callback(stop)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except UnpicklingError as error:  # raised for the files beside a checkpoint's weights
            raise InputError(
                f"{output}: its last checkpoint holds more than plain tensors, and is never loaded; "
                "--overwrite starts from scratch"
            ) from error
        except (SafetensorError, OSError, RuntimeError, MemoryError) as error:
            if isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error):
                whose = "GPU" if isinstance(error, torch.OutOfMemoryError) else "machine"
                limit = trainer.data_collator.max_tokens
                message = f"the {whose}'s memory is full; give micro_batch_tokens, less than {limit} ({error})"
                raise RunError(message) from error
            if isinstance(error, RuntimeError) and not re.search("PytorchStream|inline_container", str(error)):
                raise
            if not stop.has_begun:
                message = f"{output}: its last checkpoint is damaged; --overwrite starts from scratch"
                raise InputError(message) from error
            raise RunError(f"{output} cannot be written ({error}); make room, then --resume") from error


def save_run(
    trainer: SftTrainer, checkpoint: OpenModel, output: Path, results_name: str, results: dict, loaded: LoadedConfig
) -> None:
    """Save model, config and, last, results. Adds the digest of the saved weights to the results."""
    weights = whole_weights(trainer)
    if trainer.is_world_process_zero():
        checkpoint.model.config.use_cache = True
        lineage = [*checkpoint.lineage, lineage_entry(results)]
        save_model(output, checkpoint.model, checkpoint.tokenizer, checkpoint.condition, lineage, weights)
        write_text(output / RESOLVED_CONFIG, loaded.as_yaml())
        results["weights"] = weights_digest(output)
        write_json(output / results_name, results)
        (output / UNFINISHED).unlink()
