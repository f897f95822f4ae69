"""The Trainer with losses that do not depend on how rows are laid out on the device."""

import math
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput

from domain_tokens.data.shared_text import KINDS
from domain_tokens.prompt import IGNORED_LABEL
from domain_tokens.runs.errors import RunError
from domain_tokens.training.callbacks import RunTotals
from domain_tokens.training.packing import Collator, kind_losses_of_padded
from domain_tokens.training.resume import STATE

_EVAL_ROWS = 512  # laid out together: enough to fill parts well


class SftTrainer(Trainer):
    """A Trainer whose batch is a whole optimizer step.

    The collator takes this process's share of the step, in parts that go through the model one after the other.
    eval_collator lays out validation rows. padding_reason: why rows are padded, None where they are packed.
    """

    def __init__(self, *args, eval_collator: Collator, padding_reason: str | None, **kwargs):
        super().__init__(*args, **kwargs)
        self.eval_collator, self.padding_reason = eval_collator, padding_reason
        self.add_callback(RunTotals())

    @property
    def totals(self) -> RunTotals:
        # Looked up every time: resuming replaces the first object with a new one that holds the saved numbers.
        return next(callback for callback in self.callback_handler.callbacks if isinstance(callback, RunTotals))

    def get_train_dataloader(self) -> DataLoader:
        """Give every process the same rows: the library's sharding would fill up the last rows of an epoch."""
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

    def get_batch_samples(self, *args, **kwargs):
        # Take no extra step when resuming from the final checkpoint: Trainer compares with max_steps only after a step.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        batches, tokens = super().get_batch_samples(*args, **kwargs)
        self.totals.tokens = self.totals.tokens + tokens  # a tensor: reading it here would stall a GPU at every step
        return batches, tokens

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Run forward and backward over the step's rows, part by part. Return the whole step's loss."""
        loss = 0.0
        for i, part in enumerate(inputs["parts"], start=1):
            # Processes exchange gradients once a step; a sharded model has room for its share of them only.
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

    @torch.no_grad()
    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Return the mean loss per trained token over all rows, and bits per byte of their shared text.

        The stock loop averages over batches. Bits are summed apart from the loss: one sum for both would change the
        loss's last digits.
        """
        model, rows = self.model.eval(), dataloader.dataset
        total = torch.zeros(2 + len(KINDS), dtype=torch.float64, device=self.args.device)  # loss, tokens, bits in nats
        for first in range(0, len(rows), _EVAL_ROWS):
            together = [rows[i] for i in range(first, min(first + _EVAL_ROWS, len(rows)))]
            batch = send_to_device(self.eval_collator(together), self.args.device)
            for part in batch["parts"]:
                kinds = part.pop("kinds", None) if self.padding_reason else part.get("kinds")
                with self.compute_loss_context_manager():
                    output = model(**part, num_items_in_batch=1)
                total[0] += output.loss.double()
                if kinds is not None:
                    total[2:] += (
                        kind_losses_of_padded(output.logits, part["input_ids"], kinds)
                        if self.padding_reason
                        else output.kind_losses
                    ).double()
            total[1] += (batch["labels"] != IGNORED_LABEL).sum()
        loss, tokens, *nats = self.accelerator.reduce(total).tolist()
        figures = {f"{metric_key_prefix}_loss": loss / tokens}
        for name, summed in zip(KINDS.values(), nats, strict=True):
            if size := rows.shared_bytes[name]:
                figures[f"{metric_key_prefix}_{name}_bits_per_byte"] = summed / math.log(2) / size
        return EvalLoopOutput(None, None, figures, len(rows))

    def save_model(self, output_dir=None, **kwargs) -> None:
        """Save weights into a checkpoint. An existing one of the same step is incomplete from here on."""
        if self.args.should_save:
            (Path(output_dir) / STATE).unlink(missing_ok=True)
        super().save_model(output_dir, **kwargs)
        if self.args.should_save:  # a pickle that nobody reads, with the folder's absolute path in it
            (Path(output_dir) / TRAINING_ARGS_NAME).unlink()

    def _save_rng_state(self, output_dir: str) -> None:
        # Private, and without a public event: the main process must not write STATE, which marks a checkpoint complete,
        # before every process has saved its random state.
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()


def check_finite(loss: float, step: int) -> None:
    """Raise RunError for a loss from which no further step brings the run back."""
    if not math.isfinite(loss):
        raise RunError(
            f"the loss is {loss} after step {step}, so the model is lost; --overwrite starts from scratch, and a lower "
            "learning_rate may help"
        )
