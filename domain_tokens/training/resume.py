"""Which checkpoint an interrupted stage goes on from: the newest that is whole, and none that lacks something.

The Trainer takes what it finds: without its optimizer it would start that anew, without its random state it would draw
other dropout, and say nothing.
"""

import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer_callback import TrainerState

from domain_tokens.runs import processes
from domain_tokens.runs.errors import InputError

_ZIP_END_BYTES = 22  # the record that a zip archive ends with
STATE = "trainer_state.json"  # the Trainer writes it last


def last_checkpoint(output: Path) -> Path | None:
    """The newest whole one in a stage's folder; None where no checkpoint was written to its end.

    InputError where there are some, but none that this command can go on from.
    """
    ended = [path for path in output.glob("checkpoint-*") if _steps(path) is not None]
    ended.sort(key=_steps, reverse=True)
    if not ended:
        return None
    found = {checkpoint: _damage(checkpoint) for checkpoint in ended}
    for checkpoint, damage in found.items():
        if damage is None:
            return checkpoint
    raise InputError(f"{ended[0]} {found[ended[0]]}; continue the run as it was started, or --overwrite starts anew")


def _steps(checkpoint: Path) -> int | None:
    """After how many steps it was saved; None for one whose last file was not written to its end."""
    if not re.fullmatch(r"checkpoint-\d+", checkpoint.name):
        return None
    try:
        return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _damage(checkpoint: Path) -> str | None:
    """What keeps a run from going on from it."""
    try:
        is_complete = bool(TrainerState.load_from_json(str(checkpoint / STATE)).stateful_callbacks)
    except (ValueError, TypeError, KeyError):
        is_complete = False
    if not is_complete:
        return f"has a damaged {STATE}"
    saved_by = 1 if (checkpoint / "rng_state.pth").exists() else len(list(checkpoint.glob("rng_state_*.pth")))
    if saved_by not in (0, processes.count()):
        return f"was saved by {saved_by} processes, now there are {processes.count()}"
    weights, optimizer = "model.safetensors", "optimizer.pt"
    if processes.are_sharding():
        weights, optimizer = "pytorch_model_fsdp.bin", "optimizer.bin"
    random = [f"rng_state_{rank}.pth" for rank in range(processes.count())]
    for name in (weights, optimizer, "scheduler.pt", *(random if len(random) > 1 else ["rng_state.pth"])):
        if not (checkpoint / name).is_file():
            how = "without" if processes.are_sharding() else "with"
            return f"has no {name}" + (f" (was it saved {how} FSDP?)" if name in (weights, optimizer) else "")
        if not _is_readable(checkpoint / name):
            return f"has a damaged {name}"
    return None


def _is_readable(file: Path) -> bool:
    """Whether it goes on to its end: both kinds of files say at one end what is at the other."""
    if file.suffix != ".safetensors":
        with file.open("rb") as opened:  # torch's files end with where their parts are
            opened.seek(max(0, file.stat().st_size - _ZIP_END_BYTES))
            return opened.read().startswith(b"PK\x05\x06")
    try:
        with safe_open(file, "pt"):
            return True
    except SafetensorError:
        return False
