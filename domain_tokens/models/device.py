"""The device a model computes on: choosing it, its name, and the memory that was used."""

import sys

import torch

from domain_tokens.models.folder import OpenModel
from domain_tokens.runs.errors import InputError


def place(opened: OpenModel, device: str | torch.device | None = None) -> torch.device:
    """Move a model to a device, by default to a GPU where there is one. InputError for a device it cannot use here."""
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        opened.model.to(chosen)
        torch.zeros(1, device=chosen).item()  # "meta", for one, takes a model but cannot compute
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {device} cannot be used ({reason}); expected cpu, or cuda on a GPU machine") from None
    return chosen


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Return the largest memory use so far, in bytes, of tensors on the GPU and of this process; None if unknown."""
    process = None
    if sys.platform != "win32":
        import resource  # no such module on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"gpu": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None, "process": process}
