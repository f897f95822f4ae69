"""Start models out of Hub ids, local folders, .gguf files and nanoGPT checkpoints, brought to one vocabulary."""

import copy
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from domain_tokens.checkpoints import missing_weights, reason
from domain_tokens.errors import InputError
from domain_tokens.hub import hub_errors
from domain_tokens.prompt import CHAT_TEMPLATE
from domain_tokens.tokens import (
    FACT_TOKENS,
    FACTS,
    GPT2_BPE_SIZE,
    GPT2_FILLERS,
    GPT2_VOCAB_SIZE,
    is_gpt2_vocabulary,
)

GPT2_HUB_ID = "openai-community/gpt2"

# nanoGPT's nn.Linear keeps its weight as (out, in), the Conv1D of transformers as (in, out). By name, not by shape:
# attn.c_proj is square, so a shape test would leave it as it is and only the outputs would tell.
_CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


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


def bring_vocabulary(model, tokenizer) -> int:
    """Give model and tokenizer the 45 facts, end-of-text padding and the chat template. Returns the rows made anew.

    A GPT-2 vocabulary gets the fillers too and ends at 50,349 rows; any other gets the facts at its end. A new
    fact starts as the mean of the rows of `a*b=c` in the old vocabulary, a filler as the mean of all rows.
    """
    old_rows = model.get_input_embeddings().num_embeddings
    if old_rows < len(tokenizer):
        raise InputError(
            f"the model has {old_rows} embedding rows for {len(tokenizer)} tokens; give --tokenizer the model's own"
        )
    is_gpt2 = is_gpt2_vocabulary(tokenizer.get_vocab())
    wanted = [*GPT2_FILLERS, *FACT_TOKENS] if is_gpt2 else list(FACT_TOKENS)
    pieces = {
        token: tokenizer.encode(f"{a}*{b}={a * b}", add_special_tokens=False)
        for token, (a, b) in zip(FACT_TOKENS, FACTS, strict=True)
    }
    known = tokenizer.get_vocab()
    added = [token for token in wanted if token not in known]
    # Ordinary added tokens, not special ones: decoding with skip_special_tokens=True must keep them.
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in added])
    tokenizer.chat_template = CHAT_TEMPLATE
    if tokenizer.eos_token is None:
        raise InputError("the source's tokenizer has no end-of-text token; choose another source or --tokenizer")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    # A nanoGPT pretrained with the facts brings their rows along. Fewer rows than that hold no facts, whatever
    # padding there is behind the BPE.
    has_facts = is_gpt2 and old_rows >= GPT2_VOCAB_SIZE
    rows = GPT2_VOCAB_SIZE if is_gpt2 else max(old_rows, len(tokenizer))
    tables = _embedding_tables(model)
    means = [table[: len(known)].mean(dim=0) for table in tables]
    starts = [{token: table[pieces[token]].mean(dim=0) for token in FACT_TOKENS} for table in tables]
    model.resize_token_embeddings(rows, mean_resizing=False)
    if has_facts:
        return 0
    with torch.no_grad():
        for table, mean, start in zip(_embedding_tables(model), means, starts, strict=True):
            for token in added:
                row = tokenizer.convert_tokens_to_ids(token)
                if token in start or row >= old_rows:
                    table[row] = start.get(token, mean)
    return len(added)


def _embedding_tables(model) -> list[torch.Tensor]:
    """The input embedding, and the output one where it is not the same tensor."""
    inputs, outputs = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    return [inputs] if outputs.data_ptr() == inputs.data_ptr() else [inputs, outputs]


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
