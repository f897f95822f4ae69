"""Several processes: sharding one model over their devices (FSDP, as `accelerate launch` starts it), and agreeing."""

import os
from typing import TYPE_CHECKING

import torch
from accelerate.utils import reduce

from domain_tokens.runs import processes

if TYPE_CHECKING:
    from domain_tokens.training.trainer import SftTrainer


def is_sharded() -> bool:
    """Return whether `accelerate launch` was told to shard the model over its processes."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def check_sharding(trainer: "SftTrainer") -> None:
    """Raise ValueError for FSDP settings under which processes would train alone, or checkpoints would be pickles."""
    if not is_sharded():
        return
    if not trainer.is_fsdp_enabled:
        raise ValueError("FSDP needs GPUs; start without it")
    plugin = trainer.accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2 or "FULL_STATE_DICT" not in str(plugin.state_dict_type):
        raise ValueError("FSDP is taken in version 2 with FULL_STATE_DICT only, as in sft/configs/fsdp.yaml")


def checkpoint_names() -> tuple[str, str]:
    """Return the names of the files that hold weights and optimizer state in a checkpoint."""
    return ("pytorch_model_fsdp.bin", "optimizer.bin") if is_sharded() else ("model.safetensors", "optimizer.pt")


def whole_weights(trainer: "SftTrainer") -> dict[str, torch.Tensor] | None:
    """Return a sharded model's whole tensors, tied ones under one name; None for a model that is not sharded.

    Every process must call this.
    """
    if not trainer.is_fsdp_enabled:
        return None
    tied = tied_names(trainer.model)
    weights = trainer.accelerator.get_state_dict(trainer.model)
    return {name: tensor for name, tensor in weights.items() if name not in tied}


def tied_names(model: torch.nn.Module) -> set[str]:
    """Return the second names of parameters that have two."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return names - {name for name, _ in model.named_parameters()}


def on_any_process(value: bool, device: torch.device) -> bool:
    """Return whether `value` is true on any process: a process that goes on without the others waits forever."""
    return value if processes.count() == 1 else bool(reduce(torch.tensor(float(value), device=device)) > 0)
