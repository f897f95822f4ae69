"""From a recipe to a Trainer. Settings that cannot work are refused before anything is written."""

import copy
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, ProgressCallback, TrainingArguments
from transformers.debug_utils import DebugOption

from domain_tokens.data.prepared import Prepared
from domain_tokens.models.batching import tokens_at_once
from domain_tokens.models.folder import OpenModel
from domain_tokens.runs import processes
from domain_tokens.runs.config_schema import SftConfig
from domain_tokens.runs.errors import InputError, short_repr
from domain_tokens.training.callbacks import TerminalCallback
from domain_tokens.training.packing import Collator, prepare_model
from domain_tokens.training.sharding import check_sharding, is_sharded
from domain_tokens.training.trainer import SftTrainer
from domain_tokens.training.watching import TENSORBOARD, ServiceCallback, services

_DECIDED_BY_RECIPE = ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_", "ACCELERATE_GRADIENT_", "ACCELERATE_FP8_")
_OTHER_TRAINING = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG")
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
    arguments = training_arguments(config, checkpoint.model, output, has_validation=len(val) > 0)
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
        for service in services(config.trainer.get("report_to")):
            if service != TENSORBOARD:  # begins with the run, which clears its folder first
                trainer.add_callback(ServiceCallback(service, output))
    return trainer


def training_arguments(config: SftConfig, model, output: Path, has_validation: bool) -> TrainingArguments:
    """Return the recipe's `trainer` block with what the stage decides. Raises InputError for what cannot work."""
    _ignore_environment()
    wanted = copy.deepcopy(config.trainer)  # the library changes nested settings in place
    wanted.pop("report_to", None)  # the services' callbacks are ours
    for name in _ROW_LIMITS:
        limit = wanted.pop(name, None)
        _check(name, limit, limit is None or limit >= 1, "at least 1 row at a time, or null for no limit")
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
    # The library finds these out in the middle of training, or never.
    epochs, metric, noise = arguments.num_train_epochs, arguments.metric_for_best_model, arguments.neftune_noise_alpha
    recomputes, how = arguments.activation_checkpointing, arguments.activation_checkpointing_kwargs or {}
    can_recompute = model.supports_gradient_checkpointing or not recomputes
    is_known = how.keys() <= {"use_reentrant", "every_n_layers", "offload"} and how.get("every_n_layers", 1) >= 1
    inner_steps = (arguments.accelerator_config.gradient_accumulation_kwargs or {}).get("num_steps", 1)
    best_by_loss = metric in ("loss", "eval_loss") or not arguments.load_best_model_at_end
    for name, value, holds, expected in (
        ("num_train_epochs", epochs, arguments.max_steps > 0 or epochs > 0, "more than 0"),
        ("metric_for_best_model", metric, best_by_loss, "loss, for nothing else is measured"),
        ("neftune_noise_alpha", noise, noise is None or 0 < noise < math.inf, "more than 0, or null"),
        ("debug", wanted.get("debug"), DebugOption.TPU_METRICS_DEBUG not in arguments.debug, "no TPU's option"),
        ("activation_checkpointing", recomputes, can_recompute, "false, for this model cannot recompute its layers"),
        ("activation_checkpointing_kwargs", how, is_known, "use_reentrant, offload, or every_n_layers of at least 1"),
        ("accelerator_config", {"num_steps": inner_steps}, inner_steps == 1, "1, for global_batch_size decides"),
    ):
        _check(name, value, holds, expected)
    return arguments


def _check(name: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise InputError(f"trainer.{name} is {short_repr(value)}, expected {expected}")


def _ignore_environment() -> None:
    """Leave numbers to the recipe: drop what `accelerate launch` or a shell says of precision and compilation.

    Raises InputError for ways of training that the recipe does not have.
    """
    for name, value in list(os.environ.items()):
        if name in _OTHER_TRAINING and value.lower() in ("1", "true"):
            raise InputError(f"{name} is {value}, expected false: a model is sharded with FSDP only; unset it")
        if name.startswith(_DECIDED_BY_RECIPE):
            del os.environ[name]
