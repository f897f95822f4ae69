"""Checks of a model folder's files before anything is built from them: a few bytes can ask for years or terabytes."""

import math
import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from domain_tokens.runs.errors import InputError

_PATIENCE = 30  # seconds; a large tokenizer needs two or three
_TOKENIZER_TRIAL = """
import string, sys
from tokenizers import Tokenizer
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
except ImportError:  # Windows
    pass
try:
    tokenizer = Tokenizer.from_file(sys.argv[1])
except Exception:  # loading the model says it better
    sys.exit()
for character in string.printable:
    tokenizer.encode(64 * character + "\\0")
"""


def check_sizes(folder: Path, what: str) -> None:
    """Raise InputError, naming `what`, for a config.json that promises more than the weights beside it can be."""
    shapes = []
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            shapes += [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118  (no dict)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if not shapes or getattr(config, "quantization_config", None):
        return
    text_config, rows = config.get_text_config(), sum(shape[0] for shape in shapes if shape)
    limits = {name: rows for name in text_config.to_dict() if name.startswith("num_")} | {
        "num_hidden_layers": len(shapes)
    }
    for name, most in limits.items():
        least = 1 if name == "num_hidden_layers" else 0
        value = getattr(text_config, name, None)
        if isinstance(value, int) and not least <= value <= most:
            raise InputError(
                f"{what}: its config says {name} {value:,}, but its weights have room for {least} to {most:,}; "
                "export or fetch it again"
            )
    with torch.device("meta"):
        promised = AutoModelForCausalLM.from_config(config, trust_remote_code=False).num_parameters()
    held = sum(map(math.prod, shapes))
    if promised > 2 * held:
        raise InputError(
            f"{what}: its config promises {promised:,} parameters, but its weights are {held:,} numbers; "
            "export or fetch it again"
        )


def check_tokenizer(folder: Path, what: str) -> None:
    """Raise InputError, naming `what`, for a tokenizer.json whose rules fail, never end or fill the memory.

    Only regular expressions and replacements can do that: they are tried on short texts in a process of their own.
    """
    file = folder / "tokenizer.json"
    if not file.is_file() or not any(rule in file.read_bytes() for rule in (b'"Regex"', b'"Replace"')):
        return
    try:
        command = [sys.executable, "-c", _TOKENIZER_TRIAL, str(file)]
        breaks_down = subprocess.run(command, capture_output=True, timeout=_PATIENCE).returncode != 0
    except subprocess.TimeoutExpired:
        breaks_down = True
    if breaks_down:
        raise InputError(
            f"{what}: the rules of its tokenizer.json fail or find no end on a short text; fetch or choose another"
        )
