"""The part of supervised fine-tuning that must be identical in every stage and condition."""

import copy
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
from domain_tokens.training.batches import Collator
from domain_tokens.training.callbacks import TerminalCallback
from domain_tokens.training.packing import prepare_model
from domain_tokens.training.sharding import check_sharding
from domain_tokens.training.trainer import SftTrainer


def make_trainer(checkpoint: OpenModel, train: Prepared, val: Prepared, config: SftConfig, output: Path) -> SftTrainer:
    """A Trainer whose optimizer step sees `global_batch_size` rows however many processes and micro-batches."""
    longest = max(int(np.diff(prepared.offsets).max()) for prepared in (train, val) if len(prepared))
    if longest > checkpoint.context:
        raise InputError(
            f"a row has {longest} tokens, but {checkpoint.path} has {checkpoint.context} positions; "
            f"give max_length={checkpoint.context} or less"
        )
    wanted = copy.deepcopy(config.trainer)  # the library changes nested settings in place
    limits = []
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size"):
        limits.append(wanted.pop(name, None))
        if limits[-1] is not None and limits[-1] < 1:
            raise InputError(f"{name} is {limits[-1]}, expected at least 1 row at a time, or null for no such limit")
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
    if not len(val):
        wanted["eval_strategy"] = "no"
    try:
        arguments = TrainingArguments(
            **(defaults | wanted),
            output_dir=str(output),
            seed=config.seed,
            data_seed=config.seed,
            per_device_train_batch_size=config.global_batch_size,
            gradient_accumulation_steps=1,
            remove_unused_columns=False,
            report_to="none",
            restore_callback_states_from_checkpoint=True,
        )
        if arguments.world_size != processes.count():
            raise ValueError(f"{processes.count()} processes were started, but {arguments.world_size} would train")
        arguments._n_gpu = min(arguments.n_gpu, 1)  # one process drives one GPU; `accelerate launch` brings more
        if arguments.max_steps <= 0 and arguments.num_train_epochs <= 0:
            raise ValueError(f"num_train_epochs is {arguments.num_train_epochs}, expected more than 0")
        # A sharded model's weights are whole only inside its own modules, so it keeps its own way through them.
        is_packed = not processes.are_sharding() and prepare_model(checkpoint.model)
        max_tokens = config.micro_batch_tokens or tokens_at_once(arguments.device)
        pad_id, place = checkpoint.tokenizer.pad_token_id, (processes.rank(), processes.count())
        collators = [Collator(pad_id, max_tokens, max_rows, is_packed, *place) for max_rows in limits]
        trainer = SftTrainer(
            model=checkpoint.model,
            args=arguments,
            train_dataset=train,
            eval_dataset=val if len(val) else None,
            data_collator=collators[0],
            eval_collator=collators[1],
        )
        if processes.are_sharding():
            check_sharding(trainer)
        # Unusable settings show up when these are built; better now than when the folder has been touched.
        trainer.get_train_dataloader()
        if len(val):
            trainer.get_eval_dataloader()
        trainer.create_optimizer_and_scheduler(num_training_steps=100)
        trainer.optimizer = trainer.lr_scheduler = None
        if arguments.load_best_model_at_end and arguments.metric_for_best_model not in ("loss", "eval_loss"):
            raise ValueError(f"metric_for_best_model is {arguments.metric_for_best_model}, but only loss is measured")
    except (ValueError, TypeError, ImportError, OverflowError, AttributeError, KeyError) as error:
        raise InputError(f"trainer: {error}; change that setting") from error
    for stock in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(stock)
    if trainer.is_world_process_zero():
        trainer.add_callback(TerminalCallback)
    return trainer
