"""What every run writes down: one schema for training, one for evaluation, and where the numbers come from.

Files appear whole or not at all: each is written under a temporary name and renamed, the results file last, so a
folder with its results file is complete.
"""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

_LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "numpy")


def environment(device: str) -> dict[str, Any]:
    """Provenance: the commit (null outside a git checkout) with a dirty mark, versions, device."""
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
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        state = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None, None  # not a checkout: say so rather than invent a commit
    return head.stdout.strip(), bool(state.stdout.strip())
