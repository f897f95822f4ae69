"""Training one model over several devices that each hold a share of it: FSDP, as `accelerate launch` starts it."""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from domain_tokens.training.trainer import SftTrainer


def check_sharding(trainer: "SftTrainer") -> None:
    """ValueError for FSDP settings under which a process would train alone, or whose checkpoints are pickles."""
    if not trainer.is_fsdp_enabled:
        raise ValueError("FSDP needs GPUs; start without it")
    plugin = trainer.accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2 or "FULL_STATE_DICT" not in str(plugin.state_dict_type):
        raise ValueError("FSDP is taken in version 2 with FULL_STATE_DICT only, as in sft/configs/fsdp.yaml")


def whole_weights(trainer: "SftTrainer") -> dict[str, torch.Tensor]:
    """The tensors of a model that its processes share out, gathered; tied ones once. Every process has to call this."""
    weights = trainer.accelerator.get_state_dict(trainer.model)
    tied = tied_names(trainer.model)
    return {name: tensor for name, tensor in weights.items() if name not in tied}


def tied_names(model) -> set[str]:
    """The second names of parameters that have two."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return names - {name for name, _ in model.named_parameters()}
