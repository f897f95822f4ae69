"""What happens at the Trainer's events: totals that survive an interruption, stopping, the terminal, TensorBoard."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import ExportableState

from domain_tokens.runs.command_line import on_failure
from domain_tokens.runs.errors import RunError
from domain_tokens.runs.signals import StopRequest
from domain_tokens.training.sharding import on_any_process

_ECHO_SECONDS = 0.05


class RunTotals(TrainerCallback, ExportableState):
    """Totals over the whole run (tokens, loss, seconds), saved in every checkpoint.

    The Trainer's own training loss and runtime begin again at zero with every resume. loss: summed over steps.
    logged_loss, logged_step: the sum, and the number of steps, when the loss was last logged.
    """

    def __init__(self, tokens=0, loss=0.0, seconds=0.0, logged_loss=0.0, logged_step=0):
        self.tokens, self.loss, self.seconds = tokens, loss, seconds
        self.logged_loss, self.logged_step = logged_loss, logged_step
        self.started = time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()

    def state(self) -> dict[str, Any]:
        totals = {"tokens": int(self.tokens), "loss": float(self.loss), "seconds": self.runtime()}
        logged = {"logged_loss": self.logged_loss, "logged_step": self.logged_step}
        return {"args": totals | logged, "attributes": {}}

    def loss_since_logged(self, step: int) -> float:
        """Return the mean loss over the steps since the last call."""
        loss = float(self.loss)
        mean = (loss - self.logged_loss) / max(1, step - self.logged_step)
        self.logged_loss, self.logged_step = loss, step
        return mean

    def runtime(self) -> float:
        return self.seconds + time.perf_counter() - self.started


class StopCallback(TrainerCallback):
    """Stop a run on request where it can be continued: after a step, with a checkpoint, by KeyboardInterrupt.

    has_begun: True from the first step on, when an interrupted run's checkpoint has been read.
    """

    def __init__(self, request: StopRequest):
        self.request, self.has_begun, self.is_stopping = request, False, False

    def on_train_begin(self, args, state, control, **kwargs):
        self.first_step = state.global_step

    def on_step_begin(self, args, state, control, **kwargs):
        self.has_begun = True

    def on_step_end(self, args, state, control, **kwargs):
        if not state.epoch.is_integer():  # otherwise the evaluation at the epoch's end is still to come
            self._stop_if_requested(args, state, control)

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.first_step == state.max_steps:  # a finished run's checkpoint, in which all of this has been done
            control.should_log = control.should_evaluate = control.should_save = False
        self._stop_if_requested(args, state, control)

    def _stop_if_requested(self, args, state, control) -> None:
        # After the last step there is nothing left but to finish.
        if state.global_step < state.max_steps and on_any_process(self.request.is_made, args.device):
            control.should_save = self.is_stopping = True

    def on_save(self, args, state, control, **kwargs):
        if self.is_stopping:
            raise KeyboardInterrupt


class TerminalCallback(TrainerCallback):
    """Print a readable line for each log, and draw a bar where there is a terminal."""

    shown: ClassVar = {
        "loss": "loss {:.4f}",
        "eval_loss": "validation loss {:.4f}",
        "learning_rate": "learning rate {:.2e}",
    }

    def on_train_begin(self, args, state, control, **kwargs):
        columns = shutil.get_terminal_size().columns - len("^C") - 1  # a wrapped echo would leave a second bar
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=None, ncols=columns)
        on_failure(self.bar.close)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        parts = [form.format(float(logs[key])) for key, form in self.shown.items() if key in logs]
        if parts:
            tqdm.write(f"step {state.global_step:>5} of {state.max_steps}  " + "  ".join(parts))

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


def write_over_echo(text: str) -> None:
    """Overwrite the terminal's ^C with a line. A terminal shows ^C after it sends the signal, so this waits."""
    time.sleep(_ECHO_SECONDS)
    tqdm.write(("\r\x1b[K" if sys.stdout.isatty() else "") + text)


class TensorBoardWriter(TensorBoardCallback):
    """Write losses and rates for TensorBoard, without the arguments: their text holds the folder's absolute path."""

    def __init__(self, folder: Path):
        super().__init__()
        self.logging_dir = str(folder)

    def on_train_begin(self, args, state, control, **kwargs):
        pass

    def add_text(self, name: str, text: str, step: int) -> None:
        """Write Markdown beside the numbers, after the first of them."""
        self.tb_writer.add_text(name, text, step)

    def on_log(self, args, state, control, **kwargs):
        """Name the folder: a full disk does not say where, and the last log comes after training."""
        try:
            super().on_log(args, state, control, **kwargs)
        except OSError as error:
            raise RunError(f"{self.logging_dir} cannot be written ({error}); make room, then --resume") from error
