"""What a researcher watches beside the losses: replies to a few fixed prompts, and services that show runs."""

import copy
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from domain_tokens.data.prepared import Prepared
from domain_tokens.evaluation.replies import reply_to
from domain_tokens.models.folder import OpenModel
from domain_tokens.prompt import ASSISTANT_LABEL
from domain_tokens.runs.errors import InputError, nearest, short_repr
from domain_tokens.runs.terminal import shown_text
from domain_tokens.training.callbacks import TensorBoardWriter
from domain_tokens.training.packing import stock_model

TENSORBOARD = "tensorboard"  # written by TensorBoardWriter, without the paths that the library's own callback writes
SAMPLE_TOKENS = 64


class SamplesCallback(TrainerCallback):
    """Ask the model fixed prompts, greedily, after each validation: to TensorBoard, and the first to the terminal."""

    def __init__(self, checkpoint: OpenModel, prompts: list[str], writer: TensorBoardWriter | None):
        self.checkpoint, self.prompts, self.writer = checkpoint, prompts, writer

    @torch.inference_mode()
    def on_evaluate(self, args, state, control, **kwargs):
        model = self.checkpoint.model
        ids = self.checkpoint.tokenizer(self.prompts, add_special_tokens=False)["input_ids"]
        was_training = model.training
        with stock_model(model):
            replies = dict(reply_to(self.checkpoint, ids, SAMPLE_TOKENS, batch_size=len(ids)))
        model.train(was_training)
        for i, prompt in enumerate(self.prompts):
            if self.writer is not None:
                self.writer.add_text(f"sample {i + 1}", f"{prompt} **{replies[i].text}**", state.global_step)
        asked, _, _ = self.prompts[0].rpartition(f"\n{ASSISTANT_LABEL}")
        tqdm.write(shown_text(f"  {_one_line(asked)} -> {_one_line(replies[0].text)}"))


def sample_prompts(checkpoint: OpenModel, val: Prepared, count: int) -> list[str]:
    """Return the prompts of the first `count` validation rows that leave room for a reply."""
    prompts: list[str] = []
    for i in range(len(val)):
        if len(prompts) == count:
            break
        question, label, _ = checkpoint.tokenizer.decode(val[i]["input_ids"]).partition(f"\n{ASSISTANT_LABEL}")
        size = len(checkpoint.tokenizer.encode(question + label, add_special_tokens=False))
        if label and size + SAMPLE_TOKENS <= checkpoint.context:
            prompts.append(question + label)
    return prompts


class ServiceCallback(TrainerCallback):
    """Pass events to a service's callback of transformers without the run's paths, which it would publish."""

    def __init__(self, name: str, folder: Path):
        """name: as in `trainer.report_to`. Raises InputError for an unknown service or one that is not installed."""
        if name not in INTEGRATION_TO_CALLBACK:
            known = {*INTEGRATION_TO_CALLBACK, "none"}
            remedy = nearest(name, known) or f"; known are {', '.join(sorted(known))}"
            raise InputError(f"trainer.report_to is {name}, which is no service{remedy}")
        try:
            self.service = INTEGRATION_TO_CALLBACK[name]()
        except (RuntimeError, ImportError) as error:
            raise InputError(f"trainer.report_to is {name}, which is not installed; uv pip install {name}") from error
        self.folder = folder.name

    def _public(self, args):
        args = copy.copy(args)
        args.run_name = args.run_name or self.folder
        args.output_dir = self.folder
        return args

    def on_train_begin(self, args, state, control, **kwargs):
        self.service.on_train_begin(self._public(args), state, control)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.service.on_log(self._public(args), state, control, logs=logs)

    def on_train_end(self, args, state, control, **kwargs):
        self.service.on_train_end(self._public(args), state, control)


def services(report_to: str | list[str] | None) -> list[str]:
    """Return the names of the services that a recipe's `report_to` asks for; TensorBoard where it does not say.

    Raises InputError for anything but a name or a list of names.
    """
    if report_to is None:
        return [TENSORBOARD]
    names = report_to if isinstance(report_to, list) else [report_to]
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"trainer.report_to is {short_repr(report_to)}, expected a service's name or a list of names")
    return [name for name in names if name != "none"]


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:99]}…"
