"""Start models out of Hub ids, local folders, .gguf files and nanoGPT checkpoints, brought to one vocabulary."""

import warnings
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from domain_tokens.facts import GPT2_BPE_SIZE
from domain_tokens.runs.errors import InputError

# nanoGPT's nn.Linear keeps its weight as (out, in), the Conv1D of transformers as (in, out). By name, not by shape:
# attn.c_proj is square, so a shape test would leave it as it is and only the outputs would tell.
_CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def load_nanogpt(path: Path) -> GPT2LMHeadModel:
    """A nanoGPT checkpoint ({"model": weights, "model_args": sizes}) as a transformers GPT-2 with the same logits."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about what is an error in the next moment
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's advice for a pickled program is to run it
        raise InputError(
            f"{path} is no checkpoint of plain tensors ({type(error).__name__}), and no other is read; save it again"
        ) from error
    sizes = checkpoint.get("model_args") or checkpoint.get("config") if isinstance(checkpoint, dict) else None
    needed = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
    if not isinstance(sizes, dict) or any(name not in sizes for name in needed) or "model" not in checkpoint:
        raise InputError(f"{path} is no nanoGPT checkpoint; expected 'model' and 'model_args' with {', '.join(needed)}")

    if "transformer.wte.weight" not in {name.removeprefix("_orig_mod.") for name in checkpoint["model"]}:
        raise InputError(f"{path} lacks transformer.wte.weight, expected a whole nanoGPT checkpoint")
    weights = {name.removeprefix("_orig_mod."): tensor.float() for name, tensor in checkpoint["model"].items()}
    weights = {
        name: tensor for name, tensor in weights.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))
    }
    tied = "lm_head.weight" not in weights or torch.equal(weights["lm_head.weight"], weights["transformer.wte.weight"])
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=weights["transformer.wte.weight"].shape[0],
            n_positions=sizes["block_size"],
            n_embd=sizes["n_embd"],
            n_layer=sizes["n_layer"],
            n_head=sizes["n_head"],
            activation_function="gelu",  # nanoGPT's nn.GELU() is the exact one; GPT-2's own is the tanh approximation
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            bos_token_id=GPT2_BPE_SIZE - 1, eos_token_id=GPT2_BPE_SIZE - 1,
            tie_word_embeddings=tied,
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                tensor = weights.pop(name)
                tensor = tensor.t() if name.endswith(_CONV1D) else tensor
                if tensor.shape != parameter.shape:
                    shapes = f"{tuple(tensor.shape)}, its model_args say {tuple(parameter.shape)}"
                    raise InputError(f"{path}: {name} has the shape {shapes}; expected a nanoGPT checkpoint")
                parameter.copy_(tensor)
            elif name.endswith(".bias"):
                parameter.zero_()  # nanoGPT without biases: zero ones are the same
            else:
                raise InputError(f"{path} lacks {name}, expected a whole nanoGPT checkpoint")
    weights.pop("lm_head.weight", None)
    if weights:
        raise InputError(f"{path} holds {min(weights)}, which no GPT-2 has; expected a nanoGPT checkpoint")
    return model
