"""Start models out of Hub ids, local folders, .gguf files and nanoGPT checkpoints, brought to one vocabulary."""

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Tokenizer

from domain_tokens.hub.client import hub_errors
from domain_tokens.models.folder import missing_weights, reason
from domain_tokens.models.nanogpt import load_nanogpt
from domain_tokens.runs.errors import InputError

GPT2_HUB_ID = "openai-community/gpt2"


def load_source(source: str, tokenizer: str | None = None):
    """Return (model in float32, tokenizer) of a source. `tokenizer` names another place to take the tokenizer from.

    Only safetensors, GGUF and weights-only .pt files are read; a source's own code is never run.
    """
    path = Path(source).expanduser()
    if path.suffix in (".pt", ".pth"):
        return load_nanogpt(_file(path)), load_tokenizer(tokenizer or GPT2_HUB_ID)
    if path.suffix == ".gguf":
        return _load_gguf(_file(path), tokenizer)
    if _is_missing(source):
        raise InputError(f"source {source} does not exist; expected a Hub id, a model folder, a .gguf or a .pt file")
    loaded_from = str(path) if path.is_dir() else source

    def read():
        return AutoModelForCausalLM.from_pretrained(
            loaded_from, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )

    model, report = _reading(source, read)
    if absent := missing_weights(report):
        raise InputError(f"source {source} lacks weights, {absent[0]} among {len(absent)}; expected a whole causal LM")
    return model, load_tokenizer(tokenizer or loaded_from)


def load_tokenizer(source: str):
    """A tokenizer by Hub id or folder; GPT-2's bare vocab.json and merges.txt will do."""
    path = Path(source).expanduser()
    vocab, merges = path / "vocab.json", path / "merges.txt"
    if vocab.is_file() and merges.is_file() and not (path / "tokenizer.json").is_file():
        return GPT2Tokenizer(vocab=str(vocab), merges=str(merges))
    if _is_missing(source):
        raise InputError(f"tokenizer {source} does not exist; expected a Hub id or a folder")
    tokenizer = _reading(source, lambda: AutoTokenizer.from_pretrained(source, trust_remote_code=False))
    if not tokenizer.is_fast:
        raise InputError(
            f"the tokenizer of {source} gives no character offsets, which the loss mask needs; choose another"
        )
    return tokenizer


def _load_gguf(path: Path, tokenizer: str | None):
    folder, name = str(path.parent), path.name
    quantised = _reading(str(path), lambda: AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, trust_remote_code=False))  # fmt: skip
    # A model read from GGUF counts as quantised and can be neither saved nor trained, so its weights, dequantised by
    # now, move into a plain one.
    config = copy.deepcopy(quantised.config)
    del config.quantization_config
    model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict())
    if tokenizer is not None:
        return model, load_tokenizer(tokenizer)

    def read():
        return AutoTokenizer.from_pretrained(folder, gguf_file=name, trust_remote_code=False)

    return model, _reading(str(path), read)


def _reading(source: str, read):
    """Call `read`. What is wrong with a local file is the user's to mend, what is wrong with the Hub mostly not."""
    if not Path(source).expanduser().exists():
        with hub_errors(f"fetching {source}"):
            return read()
    try:
        return read()
    except SafetensorError as error:
        raise InputError(f"source {source} has a broken weights file ({error}); fetch it again") from error
    except Exception as error:  # whatever a foreign file can make the libraries stumble over
        raise InputError(f"source {source} cannot be read ({reason(error)}); check it, or fetch it again") from error


def _is_missing(source: str) -> bool:
    """Is it spelled as no Hub id is, and not here?"""
    looks_local = source.startswith((".", "/", "~")) or source.count("/") > 1
    return looks_local and not Path(source).expanduser().is_dir()


def _file(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"source {path} does not exist; expected a Hub id, a model folder, a .gguf or a .pt file")
    return path
