"""A model for rows that lie one behind the other: attention within each row, and logits only where there is loss."""

import types

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import linear_cross_entropy, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint as recomputed
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from domain_tokens.training.batches import packed

ATTENTION = "domain_tokens_packed"
_LOGIT_BYTES = 12  # a logit and its gradient, in 16 bits and in float32 each
_LOGIT_SHARE = 6  # logits may take a sixth of a GPU's memory; weights, Adam and activations need the rest
_CPU_LOGITS = 1 << 30  # bytes
_TOLERANCE = 1e-4


def prepare_model(model: PreTrainedModel) -> bool:
    """Make `model` take packed parts and return their loss. False, and nothing changed, if it cannot.

    It cannot where its architecture does not let its attention be chosen, or does something with its logits: told by a
    trial.
    """
    if model.config._attn_implementation == ATTENTION:
        return True
    before, was_training = model.config._attn_implementation, model.training
    rows = [{"input_ids": ids, "labels": ids} for ids in (torch.arange(3, 8).numpy(), torch.arange(9, 12).numpy())]
    part = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in packed(rows).items()}
    row_ids = [torch.from_numpy(row["input_ids"]).to(model.device)[None] for row in rows]
    model.eval()
    try:
        with torch.no_grad():
            expected = torch.cat([model(input_ids=ids, use_cache=False).logits[0] for ids in row_ids])
            model.set_attn_implementation(ATTENTION)
            hidden = _hidden_states(model, part)
            found = model.get_output_embeddings()(hidden)
        # Some refuse with a warning only, and would attend over all rows with a mask.
        took_it = model.config._attn_implementation == ATTENTION
        is_same = took_it and torch.allclose(
            found, expected, rtol=_TOLERANCE, atol=_TOLERANCE * float(expected.abs().max())
        )
    except (TypeError, ValueError):
        is_same = False
    finally:
        model.train(was_training)
    if is_same:
        model.forward = types.MethodType(_loss_of_packed_rows, model)
    else:
        model.set_attn_implementation(before)
    return is_same


def _loss_of_packed_rows(model: PreTrainedModel, trained, targets, num_items_in_batch, **part) -> CausalLMOutput:
    """In place of a model's own forward. loss: summed cross-entropy of the targets over `num_items_in_batch`."""
    hidden, head = _hidden_states(model, part)[trained], model.get_output_embeddings()

    def summed(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(hidden, head.weight, targets, linear_bias=head.bias, reduction="sum")

    at_once = _logits_at_once(hidden.device, len(head.weight))
    if len(targets) <= at_once:
        loss = summed(hidden, targets)
    else:  # logits again in the backward pass: slower, but only one piece's are ever there
        pieces = zip(hidden.split(at_once), targets.split(at_once), strict=True)
        loss = sum(recomputed(summed, *piece, use_reentrant=False) for piece in pieces)
    return CausalLMOutput(loss=loss / num_items_in_batch)


def _hidden_states(model: PreTrainedModel, part) -> torch.Tensor:
    """(tokens, width): the last layer's, of the packed rows."""
    names = ("input_ids", "position_ids", "row_ends", "longest_row")
    return model.base_model(**{name: part[name] for name in names}, use_cache=False).last_hidden_state[0]


def _logits_at_once(device: torch.device, vocabulary: int) -> int:
    """Positions whose logits may be in memory together."""
    room = _CPU_LOGITS
    if device.type == "cuda":
        room = torch.cuda.get_device_properties(device).total_memory // _LOGIT_SHARE
    return max(1, room // (_LOGIT_BYTES * vocabulary))


def _attend_within_rows(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, row_ends=None, longest_row=None,
    sliding_window=None, softcap=None, **kwargs,
):  # fmt: skip
    """query, key, value: (1, heads, tokens, head width). Returns (1, tokens, heads, head width) and no weights.

    FlashAttention for rows of any length on GPUs that have it, else row by row.
    """
    if row_ends is None or sliding_window is not None or softcap is not None:
        raise ValueError("this attention is over whole rows only, without windows or capped scores")
    if torch.is_autocast_enabled(query.device.type):  # rotary positions leave queries and keys in float32
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    shared_heads = key.shape[1] != query.shape[1]
    if _has_flash(query) and not dropout:
        query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        attended = varlen_attn(
            query, key, value, row_ends, row_ends, longest_row, longest_row, scale=scaling, window_size=(-1, 0),
            enable_gqa=shared_heads,
        )  # fmt: skip
        return attended[None], None
    lengths = row_ends.diff().tolist()
    rows = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    attended = [
        scaled_dot_product_attention(*row, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=shared_heads)
        for row in rows
    ]
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _has_flash(query: torch.Tensor) -> bool:
    fits = query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256
    return query.is_cuda and fits and torch.cuda.get_device_capability(query.device) >= (8, 0)


AttentionInterface.register(ATTENTION, _attend_within_rows)
