"""From a recipe to a Trainer. Settings that cannot work are refused before anything is written."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import PrinterCallback, ProgressCallback, TrainingArguments

from domain_tokens.data.prepared import Prepared
from domain_tokens.models.folder import OpenModel
from domain_tokens.models.grouping import tokens_at_once
from domain_tokens.runs import processes
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.recipes import SftConfig
from domain_tokens.training.callbacks import TerminalCallback
from domain_tokens.training.packing import Collator, prepare_model
from domain_tokens.training.sharding import check_sharding, is_sharded
from domain_tokens.training.trainer import SftTrainer

_ROW_LIMITS = ("per_device_train_batch_size", "per_device_eval_batch_size")


class OneGpuArguments(TrainingArguments):
    """One process drives one GPU; `accelerate launch` starts more processes."""

    @property
    def n_gpu(self) -> int:
        return min(super().n_gpu, 1)


@contextmanager
def refuse_settings() -> Iterator[None]:
    """Turn what the library says about a setting that it cannot use into InputError."""
    try:
        yield
    except (ValueError, TypeError, ImportError, OverflowError, AttributeError, KeyError) as error:
        raise InputError(f"trainer: {error}; change that setting") from error


def make_trainer(checkpoint: OpenModel, train: Prepared, val: Prepared, config: SftConfig, output: Path) -> SftTrainer:
    """Return a Trainer whose optimizer step sees `global_batch_size` rows, however many processes and parts there are.

    Raises InputError for settings that cannot work.
    """
    longest = max(int(np.diff(prepared.offsets).max()) for prepared in (train, val) if len(prepared))
    if longest > checkpoint.context:
        raise InputError(
            f"a row has {longest} tokens, but {checkpoint.path} has {checkpoint.context} positions; "
            f"give max_length={checkpoint.context} or less"
        )
    arguments = training_arguments(config, output, has_validation=len(val) > 0)
    # A sharded model's weights are whole only inside its own modules, so its own forward has to be used.
    padding_reason = "the model is sharded" if is_sharded() else prepare_model(checkpoint.model)
    max_tokens = config.micro_batch_tokens or tokens_at_once(arguments.device)
    layout = checkpoint.tokenizer.pad_token_id, max_tokens
    place = processes.rank(), processes.count()
    collators = [Collator(*layout, config.trainer.get(name), padding_reason is None, *place) for name in _ROW_LIMITS]
    with refuse_settings():
        trainer = SftTrainer(
            checkpoint.model, arguments, collators[0], train, val if len(val) else None, eval_collator=collators[1],
            padding_reason=padding_reason,
        )  # fmt: skip
        check_sharding(trainer)
        # Unusable settings show up when these are built, which is better done before the folder is touched.
        trainer.get_train_dataloader()
        if len(val):
            trainer.get_eval_dataloader()
        trainer.create_optimizer_and_scheduler(num_training_steps=100)
    trainer.optimizer = trainer.lr_scheduler = None
    for stock in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(stock)
    if trainer.is_world_process_zero():
        trainer.add_callback(TerminalCallback)
    return trainer


def training_arguments(config: SftConfig, output: Path, has_validation: bool) -> TrainingArguments:
    """Return the recipe's `trainer` block with what the stage decides. Raises InputError for what cannot work."""
    wanted = copy.deepcopy(config.trainer)  # the library changes nested settings in place
    for name in _ROW_LIMITS:
        limit = wanted.pop(name, None)
        if limit is not None and limit < 1:
            raise InputError(f"{name} is {limit}, expected at least 1 row at a time, or null for no such limit")
    on_gpu = torch.cuda.is_available() and not wanted.get("use_cpu")
    defaults = {
        # Processes without GPUs would not find each other otherwise.
        "use_cpu": processes.count() > 1 and not torch.cuda.is_available(),
        "bf16": on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) and not wanted.get("fp16"),
        "tf32": True if on_gpu and torch.cuda.is_tf32_supported() else None,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
        "accelerator_config": {"non_blocking": on_gpu},
    }
    if not has_validation:
        wanted["eval_strategy"] = "no"
    with refuse_settings():
        arguments = OneGpuArguments(
            **(defaults | wanted), output_dir=str(output), seed=config.seed, data_seed=config.seed,
            per_device_train_batch_size=config.global_batch_size, gradient_accumulation_steps=1,
            remove_unused_columns=False, report_to="none", restore_callback_states_from_checkpoint=True,
        )  # fmt: skip
        world_size = arguments.world_size  # finds the devices
    if world_size != processes.count():
        raise InputError(f"trainer: {processes.count()} processes were started, but {world_size} would train")
    if arguments.max_steps <= 0 and arguments.num_train_epochs <= 0:
        raise InputError(f"trainer: num_train_epochs is {arguments.num_train_epochs}, expected more than 0")
    if arguments.load_best_model_at_end and arguments.metric_for_best_model not in ("loss", "eval_loss"):
        metric = arguments.metric_for_best_model
        raise InputError(f"trainer: metric_for_best_model is {metric}, but only loss is measured; change that setting")
    return arguments
