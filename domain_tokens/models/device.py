"""Opening and saving model folders, and refusing those whose numbers could not be trusted."""

import sys

import torch

from domain_tokens.models.folder import OpenModel
from domain_tokens.runs.errors import InputError


def place(checkpoint: OpenModel, device: str | torch.device | None = None) -> torch.device:
    """Move a model to a device by its name, by default to a GPU where there is one. InputError for none such here."""
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        checkpoint.model.to(chosen)
        torch.zeros(1, device=chosen).item()  # some devices, like meta, take a model and cannot compute with it
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {device} cannot be used ({reason}); expected cpu, or cuda on a GPU machine") from None
    return chosen


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """The most that was in use so far, in bytes: tensors on the GPU, and all of this process (null where unknown)."""
    process = None
    if sys.platform != "win32":
        import resource  # no such module on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"gpu": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None, "process": process}
