"""Models and tokenizers to start from: Hub ids, local folders, .gguf files and nanoGPT checkpoints."""

import copy
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from gguf import GGUFReader, TokenType
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Tokenizer

from domain_tokens.hub.client import hub_errors, require_hub
from domain_tokens.models.checks import check_tokenizer
from domain_tokens.models.folder import check_loaded, load_causal_lm, reading
from domain_tokens.models.nanogpt import load_nanogpt
from domain_tokens.runs.errors import InputError

GPT2_HUB_ID = "openai-community/gpt2"


def load_source(source: str, tokenizer: str | None = None, activation: str | None = None):
    """Return (model in float32, tokenizer) of a source.

    tokenizer: another place to take the tokenizer from. activation: of a nanoGPT checkpoint, see `load_nanogpt`.

    Only safetensors, GGUF and weights-only .pt files are read; a source's own code is never run.
    Raises InputError for a source that does not exist, lacks weights or cannot be read.
    """
    path = Path(source).expanduser()
    kind = path.suffix.lower()
    is_file = kind in (".pt", ".pth", ".gguf")
    if activation and kind not in (".pt", ".pth"):
        raise InputError(f"--activation is for nanoGPT checkpoints (.pt), but {source} says its own; leave it out")
    if path.is_file() and not is_file:
        raise InputError(f"source {source} is a single file; expected a Hub id, a model folder, a .gguf or a .pt file")
    if not path.is_file() if is_file else _is_missing(source):
        raise InputError(f"source {source} does not exist; expected a Hub id, a model folder, a .gguf or a .pt file")
    if kind == ".gguf":
        return _load_gguf(path, tokenizer)
    if is_file:
        return load_nanogpt(path, activation), load_tokenizer(tokenizer or GPT2_HUB_ID)
    place = str(path) if path.is_dir() else source
    with _reading(source):
        model = load_causal_lm(place, torch.float32, f"source {source}")
    return model, load_tokenizer(tokenizer or place)


def load_tokenizer(source: str):
    """Return the tokenizer of a Hub id or folder; GPT-2's bare vocab.json and merges.txt will do."""
    path = Path(source).expanduser()
    vocab, merges = path / "vocab.json", path / "merges.txt"
    if vocab.is_file() and merges.is_file() and not (path / "tokenizer.json").is_file():
        return GPT2Tokenizer(vocab=str(vocab), merges=str(merges))
    if _is_missing(source):
        raise InputError(f"tokenizer {source} does not exist; expected a Hub id or a folder")
    with _reading(source):
        check_tokenizer(path, f"source {source}")
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise InputError(
            f"the tokenizer of {source} gives no character offsets, which the loss mask needs; choose another"
        )
    return tokenizer


def _load_gguf(path: Path, tokenizer_source: str | None):
    settings = {"gguf_file": path.name, "trust_remote_code": False}
    with _reading(str(path)):
        quantised, report = AutoModelForCausalLM.from_pretrained(
            path.parent, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **settings
        )
        check_loaded(report, f"source {path}")
        if tokenizer_source is None:
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **settings)
    if tokenizer_source is not None:
        tokenizer = load_tokenizer(tokenizer_source)
    _check_gguf_vocabulary(path, quantised.get_input_embeddings().num_embeddings, tokenizer, tokenizer_source)
    # A model read from GGUF counts as quantised and can be neither saved nor trained. Its weights are dequantised by
    # now and move into a plain model.
    config = copy.deepcopy(quantised.config)
    del config.quantization_config
    model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict())
    return model, tokenizer


def _check_gguf_vocabulary(path: Path, rows: int, tokenizer, tokenizer_source: str | None) -> None:
    """Raise InputError unless the tokenizer has the file's own tokens at their ids: each row belongs to one of them."""
    fields = GGUFReader(path).fields
    own, kinds = (
        fields[name].contents() if name in fields else []
        for name in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")
    )
    if own and len(own) != rows:
        raise InputError(f"{path} has {rows} embedding rows, but {len(own)} tokens; export or fetch it again")
    fillers = {i for i, kind in enumerate(kinds) if kind == TokenType.UNUSED}  # no tokenizer needs to know these
    found = tokenizer.convert_ids_to_tokens(list(range(len(own))))
    for i, (expected, token) in enumerate(zip(own, found, strict=True)):
        if token is None and i in fillers:
            continue
        if token is None or token.replace("▁", " ") != expected.replace("▁", " "):  # converters write some as spaces
            who, remedy = f"tokenizer {tokenizer_source}", "leave --tokenizer out, or give the model's own"
            if tokenizer_source is None:
                who, remedy = "the tokenizer made of it", "give the model's own with --tokenizer, or fetch it again"
            raise InputError(f"{path} has {expected!r} as token {i}, but {who} has {token!r}; {remedy}")


def _reading(source: str) -> AbstractContextManager[None]:
    """Turn errors into one line: a broken local file is the user's to fix (InputError), a failing Hub is not."""
    if Path(source).expanduser().exists():
        return reading(f"source {source}")
    if not isinstance(try_to_load_from_cache(source, "config.json"), str):
        require_hub(f"fetching {source}")
    return hub_errors(f"fetching {source}")


def _is_missing(source: str) -> bool:
    """Return whether `source` looks like a local folder that does not exist."""
    looks_local = source.startswith((".", "/", "~")) or source.count("/") > 1
    return looks_local and not Path(source).expanduser().is_dir()
