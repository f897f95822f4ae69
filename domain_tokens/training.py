"""The part of supervised fine-tuning that must be identical in every stage and condition."""

import copy
import itertools
import math
import re
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import EvalLoopOutput

from domain_tokens import processes
from domain_tokens.batches import Collator, tokens_at_once
from domain_tokens.checkpoints import (
    Checkpoint,
    device_name,
    open_checkpoint,
    peak_memory,
    save_checkpoint,
    weights_digest,
)
from domain_tokens.config import Loaded, SftConfig, load
from domain_tokens.data import Converter, contaminated_text, unusable_text
from domain_tokens.errors import InputError, RunError
from domain_tokens.hub import prepare_client
from domain_tokens.interruption import StopRequest, run_has_begun
from domain_tokens.packing import prepare_model
from domain_tokens.prepared import Prepared, prepare_training_data
from domain_tokens.prompt import IGNORED_LABEL
from domain_tokens.results import (
    MODEL_FILES,
    RESOLVED_CONFIG,
    UNFINISHED,
    claim_folder,
    environment,
    find_everywhere,
    hold,
    read_json,
    shown_source,
    write_json,
    write_text,
)
from domain_tokens.resuming import STATE, last_checkpoint
from domain_tokens.tables import shown_text

_EVAL_ROWS = 512  # laid out together: enough to fill parts well


def decide_injection(condition: str, flag: bool | None) -> bool:
    """The condition decides. flag: True for --inject-mul-tokens, False for --no-inject-mul-tokens, None for neither."""
    if condition == "baseline" and flag:
        raise InputError("--inject-mul-tokens contradicts --condition baseline; leave it out or use mul_tokens")
    return condition == "mul_tokens" and flag is not False


def run_stage(stage: str, results_name: str, convert: Converter, args, say: Callable[[str], None]) -> None:
    """One SFT stage, from its command line's arguments to its results file: the same for every stage and condition.

    convert: a raw row to a conversation, or UnusableRow. args: what the stage scripts parse. say: prints a line.
    """
    say = processes.once(say)
    flags = {"seed": args.seed, "data.dataset": args.dataset_path, "data.train_samples": args.max_train_samples}
    loaded = load(args.config, SftConfig, args.overrides, flags)
    config: SftConfig = loaded.config
    inject_facts = decide_injection(args.condition, args.inject_mul_tokens)
    run_settings = settings(loaded, args.model_path, args.condition, inject_facts)
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

    checkpoint = open_checkpoint(args.model_path, args.condition)
    prepare_client(say)
    train, val, left_out = prepare_training_data(config.data, config.seed, convert, checkpoint.tokenizer, inject_facts)
    say(describe(checkpoint.tokenizer, train, val, left_out, inject_facts))

    trainer = make_trainer(checkpoint, train, val, config, output)
    results = train_and_save(
        trainer, checkpoint, stage, results_name, loaded, output, run_settings, left_out, args.resume
    )
    say(summary(results))


def _check_weights(output: Path, results_name: str) -> None:
    try:
        found = weights_digest(output)
    except InputError:
        found = None
    if found is None or found != read_json(output / results_name).get("weights"):
        raise InputError(f"{output} does not hold the weights that {results_name} speaks of; --overwrite trains anew")


def settings(loaded: Loaded, model_path: str, condition: str, inject_facts: bool) -> dict[str, Any]:
    """What makes two runs the same run, under the names its results file has for them."""
    return {
        "condition": condition,
        "start_weights": weights_digest(Path(model_path)),
        "inject_mul_tokens": inject_facts,
        "config": loaded.as_dict(),
    }


class RunTotals(TrainerCallback, ExportableState):
    """What adds up over a whole run. It is saved with every checkpoint, so it survives an interruption.

    The Trainer's own training loss and runtime start anew with every resume. logged_loss, logged_step: what had added
    up, and after how many steps, when the loss was last logged.
    """

    def __init__(
        self, tokens: int = 0, loss: float = 0.0, seconds: float = 0.0, logged_loss: float = 0.0, logged_step: int = 0
    ):
        self.tokens, self.loss, self.seconds = tokens, loss, seconds
        self.logged_loss, self.logged_step = logged_loss, logged_step
        self.started = time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()

    def state(self) -> dict[str, Any]:
        attributes = {
            "tokens": int(self.tokens), "loss": float(self.loss), "seconds": self.runtime(),
            "logged_loss": self.logged_loss, "logged_step": self.logged_step,
        }  # fmt: skip
        return {"args": {}, "attributes": attributes}

    def loss_since_logged(self, step: int) -> float:
        """The mean over the steps since this was last asked."""
        loss = float(self.loss)
        mean = (loss - self.logged_loss) / max(1, step - self.logged_step)
        self.logged_loss, self.logged_step = loss, step
        return mean

    def runtime(self) -> float:
        return self.seconds + time.perf_counter() - self.started


class SftTrainer(Trainer):
    """The Trainer, with losses that do not depend on how rows are laid out on the device.

    A batch of the Trainer's is all of an optimizer step; the collator takes this process's share of it, in parts that
    go through the model one after the other. eval_collator: the parts that validation rows are laid out in.
    """

    def __init__(self, *args, eval_collator: Collator, **kwargs):
        super().__init__(*args, **kwargs)
        self.eval_collator = eval_collator
        self.stop: StopRequest | None = None
        self.add_callback(RunTotals())

    @property
    def totals(self) -> RunTotals:
        # Looked up, not kept: a resume puts a new one, with the saved numbers, in the place of the first.
        return next(callback for callback in self.callback_handler.callbacks if isinstance(callback, RunTotals))

    def _save(self, output_dir=None, state_dict=None):
        """Without the arguments: a pickle that nobody reads, with the folder's whole path in it."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            (Path(output_dir) / TRAINING_ARGS_NAME).unlink()

    def _issue_warnings_after_load(self, load_result) -> None:
        """Weights under two names are saved once. Anything else that a checkpoint lacks was never this model's."""
        if load_result.unexpected_keys or set(load_result.missing_keys) - _tied_names(self.model):
            raise InputError(f"{self.args.output_dir}: its last checkpoint is another model's; --overwrite starts anew")

    def get_batch_samples(self, *args, **kwargs):
        batches, tokens = super().get_batch_samples(*args, **kwargs)  # once per optimizer step
        self.totals.tokens = self.totals.tokens + tokens  # a tensor: reading it here would stall a GPU at every step
        return batches, tokens

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Forward and backward over the step's rows, part by part. Returns the whole step's loss."""
        loss = 0.0
        for i, part in enumerate(inputs["parts"], start=1):
            # Processes exchange gradients once a step, or where each has room for its share of them only, every time.
            exchanges = self.is_fsdp_enabled or i == len(inputs["parts"])
            with nullcontext() if exchanges else self.accelerator.no_sync(model):
                loss = loss + super().training_step(model, part, num_items_in_batch)
        self.totals.loss = self.totals.loss + self.accelerator.reduce(loss.double(), "mean")
        return loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        if "loss" in logs:
            logs = logs | {"loss": self.totals.loss_since_logged(self.state.global_step)}
            check_finite(logs["loss"], self.state.global_step)
        super().log(logs, *args, **kwargs)

    def _run_epoch(self, *args, **kwargs) -> None:
        """Not one more step where the last one's checkpoint is continued: the Trainer looks only behind a step."""
        self.has_begun = True
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)
        else:
            self.control.should_training_stop = True

    has_begun = False  # all is read that an interrupted run left

    def _save_checkpoint(self, *args, **kwargs) -> None:
        """An older one of the same step is not whole any more from here on."""
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            (folder / STATE).unlink(missing_ok=True)
        super()._save_checkpoint(*args, **kwargs)
        self._last_saved_step = self.state.global_step

    _last_saved_step = 0

    def _maybe_log_save_evaluate(self, *args, **kwargs) -> None:
        """Called behind every step, and once more at an epoch's end."""
        super()._maybe_log_save_evaluate(*args, **kwargs)
        step, steps = self.state.global_step, -(-len(self.train_dataset) // self.args.train_batch_size)
        ends_epoch = step % steps == 0 and step != self._last_seen_step
        self._last_seen_step = step
        # What belongs to an epoch's end is still to come; behind the last step all that is left is to finish.
        if not ends_epoch and step < self.state.max_steps and self._is_asked_to_stop():
            if self._last_saved_step != step:
                self._save_checkpoint(self.model, trial=None)
            raise KeyboardInterrupt

    _last_seen_step = 0

    def _is_asked_to_stop(self) -> bool:
        if self.stop is None or processes.count() == 1:
            return self.stop is not None and self.stop.is_made
        asked = torch.tensor(float(self.stop.is_made), device=self.args.device)
        return bool(self.accelerator.reduce(asked) > 0)  # all or none: a process that goes on alone would wait forever

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()  # the main process writes last what makes a checkpoint whole

    def get_train_dataloader(self) -> DataLoader:
        """Every process gets the same rows: sharded by the library, the last ones of an epoch would be filled up."""
        args = self.args
        loader = DataLoader(
            self.train_dataset, args.per_device_train_batch_size, shuffle=True, collate_fn=self.data_collator,
            pin_memory=args.dataloader_pin_memory, num_workers=args.dataloader_num_workers,
            drop_last=args.dataloader_drop_last, persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )  # fmt: skip
        return prepare_data_loader(
            loader, args.device, num_processes=1, process_index=0, put_on_device=True, use_seedable_sampler=True,
            data_seed=args.data_seed, non_blocking=args.accelerator_config.non_blocking,
        )  # fmt: skip

    @torch.no_grad()
    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Mean loss per trained token over the whole set; the stock loop averages over batches."""
        model, rows = self.model.eval(), dataloader.dataset
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)  # summed loss, tokens
        for first in range(0, len(rows), _EVAL_ROWS):
            together = [rows[i] for i in range(first, min(first + _EVAL_ROWS, len(rows)))]
            batch = self._prepare_inputs(self.eval_collator(together))
            for part in batch["parts"]:
                with self.compute_loss_context_manager():
                    loss = model(**part, num_items_in_batch=1).loss
                total[0] += loss.double()
            total[1] += (batch["labels"] != IGNORED_LABEL).sum()
        loss, tokens = self.accelerator.reduce(total).tolist()
        return EvalLoopOutput(None, None, {f"{metric_key_prefix}_loss": loss / tokens}, len(dataloader.dataset))


def check_finite(loss: float, step: int) -> None:
    """RunError for the loss of a run that no further step brings back."""
    if not math.isfinite(loss):
        raise RunError(
            f"the loss is {loss} behind step {step}, so the model is lost; --overwrite starts anew, and a lower "
            "learning_rate may help"
        )


class TerminalCallback(TrainerCallback):
    """One readable line per log, and a bar where there is a terminal to draw it on."""

    shown: ClassVar = {
        "loss": "loss {:.4f}",
        "eval_loss": "validation loss {:.4f}",
        "learning_rate": "learning rate {:.2e}",
    }

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=None, dynamic_ncols=True)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        parts = [form.format(float(logs[key])) for key, form in self.shown.items() if key in logs]
        if parts:
            tqdm.write(f"step {state.global_step:>5} of {state.max_steps}  " + "  ".join(parts))

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class NumbersCallback(TensorBoardCallback):
    """Losses and rates for TensorBoard. Not the arguments, whose text holds the folder's whole path, and so a name."""

    def __init__(self, folder: Path):
        super().__init__()
        self.logging_dir = str(folder)

    def on_train_begin(self, args, state, control, **kwargs):
        pass

    def on_log(self, args, state, control, **kwargs):
        try:
            super().on_log(args, state, control, **kwargs)
        except OSError as error:
            raise RunError(f"{self.logging_dir}: logs cannot be written ({error}); make room, then --resume") from error


def make_trainer(checkpoint: Checkpoint, train: Prepared, val: Prepared, config: SftConfig, output: Path) -> SftTrainer:
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
            _check_sharding(trainer)
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


def _check_sharding(trainer: SftTrainer) -> None:
    """ValueError for FSDP settings under which a process would train alone, or whose checkpoints are pickles."""
    if not trainer.is_fsdp_enabled:
        raise ValueError("FSDP needs GPUs; start without it")
    plugin = trainer.accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2 or "FULL_STATE_DICT" not in str(plugin.state_dict_type):
        raise ValueError("FSDP is taken in version 2 with FULL_STATE_DICT only, as in sft/configs/fsdp.yaml")


def train_and_save(
    trainer: SftTrainer,
    checkpoint: Checkpoint,
    stage: str,
    results_name: str,
    loaded: Loaded,
    output: Path,
    settings: dict[str, Any],
    left_out: dict[str, Any],
    resume: bool,
) -> dict[str, Any]:
    """Train, measure the validation loss, save the model, and write the results file last. Returns the results.

    settings: what `settings` returned. resume: go on from the folder's last checkpoint, else clear the folder first.
    """
    config: SftConfig = loaded.config
    train, val = trainer.train_dataset, trainer.eval_dataset
    inject_facts = settings["inject_mul_tokens"]
    continues = resume and (output / UNFINISHED).exists()
    digests = {"train": train.digest(), "val": val.digest() if val is not None else None}
    if continues and read_json(output / UNFINISHED).get("rows", {}).get("digests") != digests:
        raise InputError(
            f"{output} was begun on other rows: {config.data.dataset} is not what it was; "
            "bring that data back, or --overwrite starts anew"
        )
    if trainer.is_world_process_zero():
        if (output / UNFINISHED).exists():
            hold(output / UNFINISHED)
        if not continues:
            _clear_run(output)
            # From here on the folder is incomplete.
            write_json(output / UNFINISHED, settings | {"rows": {"digests": digests}})
            hold(output / UNFINISHED)
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
    results = {
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
    whole = _whole_weights(trainer) if trainer.is_fsdp_enabled else None
    if trainer.is_world_process_zero():
        checkpoint.model.config.use_cache = True
        save_checkpoint(output, checkpoint.model, checkpoint.tokenizer, checkpoint.condition, lineage, whole)
        write_text(output / RESOLVED_CONFIG, loaded.as_yaml())
        results["weights"] = weights_digest(output)
        write_json(output / results_name, results)
        (output / UNFINISHED).unlink()
    return results


def _whole_weights(trainer: SftTrainer) -> dict[str, torch.Tensor]:
    """The tensors of a model that its processes share out, gathered; tied ones once. Every process has to call this."""
    weights = trainer.accelerator.get_state_dict(trainer.model)
    tied = _tied_names(trainer.model)
    return {name: tensor for name, tensor in weights.items() if name not in tied}


def _tied_names(model) -> set[str]:
    """The second names of parameters that have two."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return names - {name for name, _ in model.named_parameters()}


def _clear_run(output: Path) -> None:
    """Remove what an earlier run left, so that none of it can be taken for this run's."""
    for name in (*reversed(MODEL_FILES), UNFINISHED):  # what calls the model whole goes first
        (output / name).unlink(missing_ok=True)
    for folder in [*output.glob("checkpoint-*"), output / "runs", output / ".writing"]:
        if folder.is_symlink():
            folder.unlink()
        elif folder.is_dir():
            shutil.rmtree(folder)


def describe(tokenizer, train: Prepared, val: Prepared, left_out: dict[str, Any], inject_facts: bool) -> str:
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


def summary(results: dict[str, Any]) -> str:
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
