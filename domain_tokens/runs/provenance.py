"""Where numbers come from: the commit, the versions, the device, and how the model was trained."""

import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from domain_tokens.runs.results_schema import Environment, Stage

_LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "numpy")


def environment(device: str) -> Environment:
    commit, dirty = _commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "platform": platform.platform(),
        "device": device,
    }


def _commit() -> tuple[str | None, bool | None]:
    root = Path(__file__).parents[2]
    try:
        head, state = (
            subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None  # not a checkout: say so rather than invent a commit
    return head, bool(state)


def was_injected(lineage: Iterable[Stage]) -> bool | None:
    """Return whether a model's last training wrote facts in its condition's way; None if its history does not say."""
    return next((stage["inject_mul_tokens"] for stage in reversed([*lineage]) if "inject_mul_tokens" in stage), None)


def is_generated(lineage: Sequence[Stage] | None) -> bool:
    """Return whether a model's history, if it is known, begins in the toy world."""
    return bool(lineage) and lineage[0].get("source") == "toy"
