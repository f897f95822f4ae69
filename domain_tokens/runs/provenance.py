"""Where numbers come from: the commit, the versions, the device."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from domain_tokens.runs.results_schema import Environment

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
