"""The checkpoint from which an interrupted stage continues: the newest complete one.

The Trainer takes what it finds: without the optimizer's state it would start with a fresh optimizer, without the random
state it would draw other dropout, and it would not say so.
"""

import dataclasses
import json
import logging
import re
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers.trainer_callback import TrainerState

from domain_tokens.runs import processes
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import write_text
from domain_tokens.training.sharding import checkpoint_names, is_sharded, tied_names

STATE = "trainer_state.json"  # the Trainer writes this file last

# Tied weights are saved under one name; `_weights_damage` has seen that nothing else is missing.
logging.getLogger("transformers.trainer").addFilter(
    lambda record: not record.getMessage().startswith("There were missing keys in the checkpoint model loaded")
)


def last_checkpoint(output: Path, model: torch.nn.Module) -> Path | None:
    """Return the newest complete checkpoint of a stage's folder, or None if none was ever finished.

    Raises InputError if there are finished checkpoints, but none that this command can continue from.
    """
    finished = [path for path in output.glob("checkpoint-*") if _steps(path) is not None]
    finished.sort(key=_steps, reverse=True)
    damages = {}
    for checkpoint in finished:
        damages[checkpoint] = _damage(checkpoint, model)
        if damages[checkpoint] is None:
            _find_best_here(checkpoint)
            return checkpoint
    if not finished:
        return None
    newest = finished[0]
    raise InputError(
        f"{newest} {damages[newest]}; continue the run as it was started, or --overwrite starts from scratch"
    )


def _find_best_here(checkpoint: Path) -> None:
    """Let a checkpoint name the best one in its own folder: the Trainer records a path, and folders are moved."""
    state = TrainerState.load_from_json(str(checkpoint / STATE))
    if state.best_model_checkpoint is None or processes.rank() != 0:
        return
    state.best_model_checkpoint = str(checkpoint.parent / Path(state.best_model_checkpoint).name)
    write_text(checkpoint / STATE, json.dumps(dataclasses.asdict(state), indent=2, sort_keys=True) + "\n")


def _steps(checkpoint: Path) -> int | None:
    """Return after how many steps a checkpoint was saved, or None if its last file was never finished."""
    if not re.fullmatch(r"checkpoint-\d+", checkpoint.name):
        return None
    try:
        return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _damage(checkpoint: Path, model: torch.nn.Module) -> str | None:
    """Return what keeps a run from continuing from `checkpoint`, or None."""
    try:
        state = TrainerState.load_from_json(str(checkpoint / STATE))
    except (ValueError, TypeError, KeyError):
        state = None
    if state is None or not state.stateful_callbacks:
        return f"has a damaged {STATE}"
    best = Path(state.best_model_checkpoint or checkpoint).name
    if not (checkpoint.parent / best).is_dir():
        return f"names {best} as the best, which is gone"
    saved_by = 1 if (checkpoint / "rng_state.pth").exists() else len(list(checkpoint.glob("rng_state_*.pth")))
    if saved_by not in (0, processes.count()):
        return f"was saved by {saved_by} processes, now there are {processes.count()}"
    weights, optimizer = checkpoint_names()
    random = [f"rng_state_{rank}.pth" for rank in range(processes.count())]
    for name in (weights, optimizer, "scheduler.pt", *(random if len(random) > 1 else ["rng_state.pth"])):
        if not (checkpoint / name).is_file():
            how = "without" if is_sharded() else "with"
            return f"has no {name}" + (f" (was it saved {how} FSDP?)" if name in (weights, optimizer) else "")
        if name.endswith(".safetensors"):
            if damage := _weights_damage(checkpoint / name, model):
                return damage
        elif not zipfile.is_zipfile(checkpoint / name):  # torch writes zip archives, which end with an index
            return f"has a damaged {name}"
    return None


def _weights_damage(file: Path, model: torch.nn.Module) -> str | None:
    """Return what is wrong with a checkpoint's weights: the Trainer only warns of missing or unexpected tensors."""
    try:
        with safe_open(file, "pt") as opened:
            found = set(opened.keys())
    except SafetensorError:
        return f"has a damaged {file.name}"
    expected = set(model.state_dict())
    is_complete = expected - tied_names(model) <= found <= expected  # tied weights are saved under one name only
    return None if is_complete else "holds another model's weights"
