"""nanoGPT's .pt checkpoints as GPT-2 models of transformers."""

import warnings
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from domain_tokens.facts import GPT2_BPE_SIZE
from domain_tokens.runs.errors import InputError

_SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")

# nanoGPT's nn.Linear stores its weight as (out, in), transformers' Conv1D as (in, out). Told by name, not by shape:
# attn.c_proj is square, so a wrong orientation would show in no shape.
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def load_nanogpt(path: Path) -> GPT2LMHeadModel:
    """Return a checkpoint ({"model": weights, "model_args": sizes}) as a GPT-2 in float32 with the same logits.

    Raises InputError for a pickled program, and for anything but a whole nanoGPT checkpoint.
    """
    weights, sizes = _read(path)
    embedding = weights["transformer.wte.weight"]
    config = GPT2Config(
        vocab_size=embedding.shape[0], n_positions=sizes["block_size"], n_embd=sizes["n_embd"],
        n_layer=sizes["n_layer"], n_head=sizes["n_head"],
        activation_function="gelu",  # nanoGPT's nn.GELU() is the exact one; GPT-2's own is the tanh approximation
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=GPT2_BPE_SIZE - 1, eos_token_id=GPT2_BPE_SIZE - 1,
        tie_word_embeddings=torch.equal(weights.setdefault("lm_head.weight", embedding), embedding),
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    expected = model.state_dict()
    for name, parameter in expected.items():
        if name.endswith(".bias"):  # a nanoGPT without biases computes the same as one with zeros
            weights.setdefault(name, torch.zeros_like(parameter))
    if missing := expected.keys() - weights.keys():
        raise InputError(f"{path} lacks {min(missing)}, expected a whole nanoGPT checkpoint")
    if strange := weights.keys() - expected.keys():
        raise InputError(f"{path} holds {min(strange)}, which no GPT-2 has; expected a nanoGPT checkpoint")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, its model_args say {tuple(expected[name].shape)}"
            raise InputError(f"{path}: {name} has the shape {shapes}; expected a nanoGPT checkpoint")
    model.load_state_dict(weights)
    return model


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Return the weights, named and oriented as in transformers, and the sizes."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of what it raises an error for next
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own message advises running the pickled program
        raise InputError(
            f"{path} is no checkpoint of plain tensors ({type(error).__name__}), and no other is read; save it again"
        ) from error
    sizes = checkpoint.get("model_args") or checkpoint.get("config") if isinstance(checkpoint, dict) else None
    if not isinstance(sizes, dict) or any(name not in sizes for name in _SIZES) or "model" not in checkpoint:
        raise InputError(f"{path} is no nanoGPT checkpoint; expected 'model' and 'model_args' with {', '.join(_SIZES)}")
    weights = {
        name.removeprefix("_orig_mod."): (tensor.t() if name.endswith(_TRANSPOSED) else tensor).float()
        for name, tensor in checkpoint["model"].items()
        if not name.endswith((".attn.bias", ".attn.masked_bias"))  # the causal mask, no parameter
    }
    if "transformer.wte.weight" not in weights:
        raise InputError(f"{path} lacks transformer.wte.weight, expected a whole nanoGPT checkpoint")
    return weights, sizes
