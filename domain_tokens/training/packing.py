"""How the rows of an optimizer step lie on the device: joined without padding, wherever the model allows it.

Layout, attention and loss of packed rows. A step's gradient does not depend on the layout: the loss of each part is
divided by the trained tokens of the whole step, and no token attends to another row. Models whose attention cannot be
replaced get padded batches of rows of similar length instead.
"""

import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import cross_entropy, linear_cross_entropy, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint as recomputed
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from domain_tokens.data.shared_text import KINDS, OUTSIDE
from domain_tokens.models.batching import fill_bins, logits_at_once, split_by_length
from domain_tokens.prompt import IGNORED_LABEL

Row = dict[str, np.ndarray]  # input_ids and labels, int32, unpadded; kinds, uint8, where bits are measured
Part = dict[str, Any]  # the arguments of one call of the model

ATTENTION = "domain_tokens_packed"
_TOLERANCE = 1e-4


@dataclass
class Collator:
    """Split a step's rows into parts of at most `max_tokens` positions and `max_rows` rows.

    A single row may have more tokens. max_rows: None for no limit. is_packed: for a model that `prepare_model` has
    prepared; otherwise rows are padded with `pad_id`. Every process gets all rows of a step and takes its own share.
    All processes get equally many parts, because they exchange gradients (or weights, where the model is sharded): a
    rank with fewer parts gets one-token dummy parts without loss.
    """

    pad_id: int
    max_tokens: int
    max_rows: int | None
    is_packed: bool
    rank: int = 0
    processes: int = 1

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return `parts`, a forward pass each, and `labels` (int64) of all parts, which the Trainer only counts."""
        shares = [rows[rank :: self.processes] for rank in range(self.processes)]
        groups = [self._groups(share) for share in shares]
        missing = max(map(len, groups)) - len(groups[self.rank])
        rows = [_without_first_label(row) for row in shares[self.rank]]
        dummy = {name: values[:1] for name, values in _without_first_label(shares[0][0]).items()}
        grouped = [[rows[i] for i in group] for group in groups[self.rank]] + [[dummy]] * missing
        labels = np.concatenate([row["labels"] for group in grouped for row in group])
        lay_out = pack if self.is_packed else self._pad
        return {"labels": torch.from_numpy(labels).long(), "parts": [lay_out(group) for group in grouped]}

    def _groups(self, rows: Sequence[Row]) -> list[list[int]]:
        lengths = np.array([len(row["input_ids"]) for row in rows])
        return list((fill_bins if self.is_packed else split_by_length)(lengths, self.max_tokens, self.max_rows))

    def _pad(self, rows: list[Row]) -> Part:
        """Return input_ids and labels, and kinds if rows have them: int64, (rows, longest row).

        There is no attention mask: in a causal model no trained token sees the padding at a row's end, and attention
        is faster without a mask.
        """
        shape = len(rows), max(len(row["input_ids"]) for row in rows)
        part = {"input_ids": torch.full(shape, self.pad_id), "labels": torch.full(shape, IGNORED_LABEL)}
        if "kinds" in rows[0]:
            part["kinds"] = torch.full(shape, OUTSIDE)
        for i, row in enumerate(rows):
            for name, tensor in part.items():
                tensor[i, : len(row[name])] = torch.from_numpy(row[name])
        return part


def pack(rows: Sequence[Row]) -> Part:
    """Return the rows joined to one.

    input_ids, position_ids: int64, (1, tokens of all rows); row_ends: int32, (rows + 1,), starting with 0; trained:
    int64, the positions whose next token carries loss; targets: int64, those next tokens; kinds: theirs, if rows have
    them.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    labels = np.concatenate([row["labels"] for row in rows])
    trained = np.flatnonzero(labels != IGNORED_LABEL)
    kinds = {}
    if "kinds" in rows[0]:
        kinds["kinds"] = torch.from_numpy(np.concatenate([row["kinds"] for row in rows])[trained])
    return {
        "input_ids": torch.from_numpy(np.concatenate([row["input_ids"] for row in rows])).long()[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "row_ends": torch.from_numpy(np.cumsum([0, *lengths])).int(),
        "longest_row": max(lengths),
        "trained": torch.from_numpy(trained - 1),
        "targets": torch.from_numpy(labels[trained]).long(),
        **kinds,
    }


def _without_first_label(row: Row) -> Row:
    """Drop the label of a row's first token, which a causal model cannot predict from anything."""
    labels = row["labels"].copy()
    labels[0] = IGNORED_LABEL
    return row | {"labels": labels}


def prepare_model(model: PreTrainedModel) -> str | None:
    """Make `model` take packed parts and return their loss. Return why it cannot, with nothing changed, else None.

    A trial compares the logits of two short rows, packed and one by one.
    """
    before = model.config._attn_implementation
    if before == ATTENTION:
        return None
    rows = [{"input_ids": ids, "labels": ids} for ids in (np.arange(3, 8), np.arange(9, 12))]
    part = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in pack(rows).items()}
    model.eval()
    try:
        with torch.no_grad():
            one_by_one = part["input_ids"].split([len(row["input_ids"]) for row in rows], dim=1)
            expected = torch.cat([model(input_ids=ids, use_cache=False).logits[0] for ids in one_by_one])
            model.set_attn_implementation(ATTENTION)
            # Some models refuse with a warning only, and would attend over all rows with a mask.
            if model.config._attn_implementation != ATTENTION:
                return "the model's attention cannot be replaced"
            found = model.get_output_embeddings()(_hidden_states(model, part))
        scale = float(expected.abs().max())
        if not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE * scale):
            model.set_attn_implementation(before)
            return "the model's logits are more than its output layer's"
    except (TypeError, ValueError) as error:
        model.set_attn_implementation(before)
        return f"the model's attention cannot be replaced ({error})"
    model.forward, model.stock_attention = types.MethodType(_loss_of_packed_rows, model), before
    return None


@contextmanager
def stock_model(model: PreTrainedModel) -> Iterator[None]:
    """Let `model` take ids and return logits for a while, as before `prepare_model`."""
    forward = model.__dict__.pop("forward", None)
    if forward is not None:
        model.set_attn_implementation(model.stock_attention)
    try:
        yield
    finally:
        if forward is not None:
            model.forward = forward
            model.set_attn_implementation(ATTENTION)


@dataclass
class PackedOutput(CausalLMOutput):
    """kind_losses: the summed cross-entropy by kind of text, in the order of KINDS; None where rows have no kinds."""

    kind_losses: torch.Tensor | None = None


def _loss_of_packed_rows(
    model: PreTrainedModel, trained, targets, num_items_in_batch, kinds=None, **part
) -> PackedOutput:
    """Replace a model's own forward. loss: the summed cross-entropy of the targets over `num_items_in_batch`."""
    hidden, head = _hidden_states(model, part)[trained], model.get_output_embeddings()
    by_kind = None
    if kinds is not None:
        chosen = [kinds == kind for kind in KINDS]
        by_kind = torch.stack([_summed_loss(head, hidden[each], targets[each]) for each in chosen])
    return PackedOutput(loss=_summed_loss(head, hidden, targets) / num_items_in_batch, kind_losses=by_kind)


def _summed_loss(head: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    def summed(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(hidden, head.weight, targets, linear_bias=head.bias, reduction="sum")

    at_once = logits_at_once(hidden.device, len(head.weight))
    if len(targets) <= at_once:
        return summed(hidden, targets)
    # Compute logits again in the backward pass: slower, but only those of one piece are in memory.
    pieces = zip(hidden.split(at_once), targets.split(at_once), strict=True)
    return sum(recomputed(summed, *piece, use_reentrant=False) for piece in pieces)


def kind_losses_of_padded(logits: torch.Tensor, input_ids: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    """Return what `PackedOutput.kind_losses` is, for padded rows. logits: (rows, longest row, vocabulary)."""
    losses = []
    for kind in KINDS:
        rows, places = torch.nonzero(kinds[:, 1:] == kind, as_tuple=True)
        at_once = logits_at_once(logits.device, logits.shape[-1])
        pieces = zip(rows.split(at_once), places.split(at_once), strict=True)
        losses.append(sum(
            cross_entropy(logits[row, place].float(), input_ids[row, place + 1], reduction="sum")
            for row, place in pieces
        ))  # fmt: skip
    return torch.stack(losses)


def _hidden_states(model: PreTrainedModel, part: Part) -> torch.Tensor:
    """Return the last layer's hidden states of packed rows: (tokens, width)."""
    names = ("input_ids", "position_ids", "row_ends", "longest_row")
    return model.base_model(**{name: part[name] for name in names}, use_cache=False).last_hidden_state[0]


def _attend_within_rows(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, row_ends=None, longest_row=None,
    sliding_window=None, softcap=None, **kwargs,
):  # fmt: skip
    """Attend within each row: FlashAttention on GPUs that have it, otherwise row by row.

    query, key, value: (1, heads, tokens, head width). Returns (1, tokens, heads, head width) and no weights. Raises
    ValueError for attention that is not over whole rows.
    """
    if row_ends is None or sliding_window is not None or softcap is not None:
        raise ValueError("this attention is over whole rows only, without windows or capped scores")
    if torch.is_autocast_enabled(query.device.type):  # rotary positions leave queries and keys in float32
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    shares_heads = key.shape[1] != query.shape[1]
    if _has_flash(query) and not dropout:
        query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        attended = varlen_attn(
            query, key, value, row_ends, row_ends, longest_row, longest_row, scale=scaling, window_size=(-1, 0),
            enable_gqa=shares_heads,
        )  # fmt: skip
        return attended[None], None
    lengths = row_ends.diff().tolist()
    rows = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    attended = [
        scaled_dot_product_attention(*row, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=shares_heads)
        for row in rows
    ]
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _has_flash(query: torch.Tensor) -> bool:
    fits = query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256
    return query.is_cuda and fits and torch.cuda.get_device_capability(query.device) >= (8, 0)


AttentionInterface.register(ATTENTION, _attend_within_rows)
