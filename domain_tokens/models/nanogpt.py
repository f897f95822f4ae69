"""nanoGPT's .pt checkpoints as GPT-2 models of transformers."""

import re
import warnings
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from domain_tokens.facts import GPT2_BPE_SIZE
from domain_tokens.runs.errors import InputError

_SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
_LARGEST = 1_000_000  # of any size

# Where a checkpoint keeps its sizes tells which GELU it was trained with. nanoGPT (model.py, `nn.GELU()`) has the
# exact one, build-nanogpt (train_gpt2.py, `nn.GELU(approximate='tanh')`) the tanh form, which is GPT-2's own.
_ACTIVATION_OF_KEY = {"model_args": "gelu", "config": "gelu_new"}

# nanoGPT's nn.Linear stores its weight as (out, in), transformers' Conv1D as (in, out). Told by name, not by shape:
# attn.c_proj is square, so a wrong orientation would show in no shape.
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def load_nanogpt(path: Path, activation: str | None = None) -> GPT2LMHeadModel:
    """Return a checkpoint as a GPT-2 in float32 with the same logits.

    The checkpoint is {"model": weights, "model_args": sizes} (nanoGPT) or {"model": weights, "config": sizes}
    (build-nanogpt). activation: transformers' name of it, where the checkpoint does not tell or tells it wrong.
    Raises InputError for anything but such a whole checkpoint, and for an activation that nothing tells.
    """
    checkpoint = _read(path)
    keys = [key for key in _ACTIVATION_OF_KEY if isinstance(checkpoint.get(key), dict)]
    keys = [key for key in keys if all(name in checkpoint[key] for name in _SIZES)]
    if not keys or "model" not in checkpoint:
        raise InputError(f"{path} is no nanoGPT checkpoint; expected 'model' and 'model_args' with {', '.join(_SIZES)}")
    if len(keys) > 1 and activation is None:
        raise InputError(
            f"{path} has its sizes in both {' and '.join(keys)}, so nothing tells its activation; "
            "give --activation gelu (nanoGPT) or gelu_tanh (build-nanogpt)"
        )
    sizes = {name: checkpoint[keys[0]][name] for name in _SIZES}
    for name, size in sizes.items():
        if type(size) is not int or not 1 <= size <= _LARGEST:
            raise InputError(f"{path} says {name} {size!r:.40}, expected 1 to {_LARGEST:,}; save the checkpoint again")
    if sizes["n_embd"] % sizes["n_head"]:
        raise InputError(f"{path} says n_embd {sizes['n_embd']}, which its n_head {sizes['n_head']} does not divide")
    weights = _weights(path, checkpoint["model"])
    layers = len({name.split(".")[2] for name in weights if name.startswith("transformer.h.")})
    if sizes["n_layer"] != layers:
        raise InputError(f"{path} says n_layer {sizes['n_layer']:,}, but its weights have {layers} layers")
    embedding = weights["transformer.wte.weight"]
    config = GPT2Config(
        vocab_size=embedding.shape[0], n_positions=sizes["block_size"], n_embd=sizes["n_embd"],
        n_layer=sizes["n_layer"], n_head=sizes["n_head"],
        activation_function=activation or _ACTIVATION_OF_KEY[keys[0]],
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=GPT2_BPE_SIZE - 1, eos_token_id=GPT2_BPE_SIZE - 1,
        tie_word_embeddings=torch.equal(weights.setdefault("lm_head.weight", embedding), embedding),
    )  # fmt: skip
    with torch.device("meta"):  # nothing of a size is made before it is known to be the weights' own
        expected = GPT2LMHeadModel(config).state_dict()
    for name, parameter in expected.items():
        if name.endswith(".bias"):  # a nanoGPT without biases computes the same as one with zeros
            weights.setdefault(name, torch.zeros(parameter.shape))
    if missing := expected.keys() - weights.keys():
        raise InputError(f"{path} lacks {min(missing)}, expected a whole nanoGPT checkpoint")
    if strange := weights.keys() - expected.keys():
        raise InputError(f"{path} holds {min(strange)}, which no GPT-2 has; expected a nanoGPT checkpoint")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, its sizes say {tuple(expected[name].shape)}"
            raise InputError(f"{path}: {name} has the shape {shapes}; expected a nanoGPT checkpoint")
    model = GPT2LMHeadModel(config)
    model.load_state_dict(weights)
    return model


def _read(path: Path) -> dict:
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of what it raises an error for next
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own message advises running the pickled program
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it holds a pickled {found[1]}" if found else type(error).__name__
        raise InputError(
            f"{path} is no checkpoint of plain tensors ({what}), and no other is read; save it again with only 'model' "
            "and 'model_args' or 'config', an object as a plain dict: checkpoint['config'] = vars(checkpoint['config'])"
        ) from error
    return checkpoint if isinstance(checkpoint, dict) else {}


def _weights(path: Path, tensors) -> dict[str, torch.Tensor]:
    """Return a checkpoint's weights in float32, named and oriented as in transformers."""
    is_weights = isinstance(tensors, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
        and tensor.layout == torch.strided
        for name, tensor in tensors.items()
    )  # fmt: skip
    if not is_weights:
        raise InputError(f"{path}: 'model' is no dict of weights by name; expected a nanoGPT checkpoint")
    if any(tensor.nbytes > path.stat().st_size for tensor in tensors.values()):  # one number, repeated without end
        raise InputError(f"{path}: its weights are larger than the file itself; expected a nanoGPT checkpoint")
    weights = {
        name.removeprefix("_orig_mod."): tensor.t() if name.endswith(_TRANSPOSED) and tensor.ndim == 2 else tensor
        for name, tensor in tensors.items()
        if not name.endswith((".attn.bias", ".attn.masked_bias"))  # the causal mask, no parameter
    }
    embedding = weights.get("transformer.wte.weight")
    if embedding is None or embedding.ndim != 2:
        raise InputError(f"{path} lacks transformer.wte.weight, expected a whole nanoGPT checkpoint")
    return {name: tensor.float() for name, tensor in weights.items()}
