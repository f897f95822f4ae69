"""The part of supervised fine-tuning that must be identical in every stage and condition."""

import math
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput

from domain_tokens.prompt import IGNORED_LABEL
from domain_tokens.runs import processes
from domain_tokens.runs.errors import InputError, RunError
from domain_tokens.runs.signals import StopRequest
from domain_tokens.training.batches import Collator
from domain_tokens.training.callbacks import RunTotals
from domain_tokens.training.resume import STATE
from domain_tokens.training.sharding import tied_names

_EVAL_ROWS = 512  # laid out together: enough to fill parts well


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
        if load_result.unexpected_keys or set(load_result.missing_keys) - tied_names(self.model):
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
