"""The part of supervised fine-tuning that must be identical in every stage and condition."""

import time
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import ExportableState

from domain_tokens.runs.errors import RunError


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
