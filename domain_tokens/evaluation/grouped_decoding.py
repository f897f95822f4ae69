"""Greedy decoding in groups: all prompts go through the model together, and only attention is computed by group.

Prompts of similar length make a group, whose keys and values are as wide as its longest prompt needs.
"""

import numpy as np
import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from domain_tokens.models.batching import GPU_TOKENS, split_by_length
from domain_tokens.models.decoding import PaddedBatch

ATTENTION = "domain_tokens_grouped"

# Positions of a CPU's group: wider groups are padded more, smaller ones wait for Python (progress/2026-11-22-speed.md).
CPU_GROUP = 10_000
CPU_PIECE = 1024  # positions of prompts read at a time: padding and attention over it stay small
_TOLERANCE = 1e-4


class GroupedBatch:
    """As `PaddedBatch`, in groups of prompts of similar length; for models that `can_attend_in_groups`."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], pad_id: int, max_new_tokens: int):
        self.model, self.room, self.stock_attention = model, max_new_tokens, model.config._attn_implementation
        lengths = [len(prompt) + max_new_tokens for prompt in prompts]
        limit, piece_size = max(lengths) * len(lengths), GPU_TOKENS
        if model.device.type == "cpu":
            limit, piece_size = CPU_GROUP, CPU_PIECE
        self.pieces = []  # of each group: prompts are read in pieces that suit the device
        for rows in split_by_length(np.array(lengths), limit):
            size = max(1, piece_size // len(prompts[rows[0]]))
            pieces = [rows[first : first + size] for first in range(0, len(rows), size)]
            self.pieces.append([PaddedBatch(model, [prompts[i] for i in piece], pad_id) for piece in pieces])

    def read(self) -> torch.Tensor:
        """Return the logits after each prompt: (rows, vocabulary)."""
        logits, masks, states = [], [], []
        for pieces in self.pieces:
            logits += [piece.read() for piece in pieces]
            width = max(piece.mask.shape[1] for piece in pieces)
            masks.append(torch.cat([pad(piece.mask, (width - piece.mask.shape[1], 0)) for piece in pieces]))
            layers = zip(*(piece.cache.layers for piece in pieces), strict=True)
            states.append([_with_room(layer, width, self.room) for layer in layers])
            for piece in pieces:
                piece.cache = None
        self.positions = torch.cat([mask.sum(dim=1) for mask in masks])
        self.groups = [_Group(mask, self.room, logits[0].dtype) for mask in masks]
        self.cache = DynamicCache(config=self.model.config)
        self.cache.layers = [_GroupedLayer(self.groups, list(layer)) for layer in zip(*states, strict=True)]
        self.model.set_attn_implementation(ATTENTION)
        return torch.cat(logits)

    def next(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the logits after one more token of each row: (rows, vocabulary). chosen: these tokens, (rows,)."""
        logits = self.model(
            input_ids=chosen[:, None], position_ids=self.positions[:, None], past_key_values=self.cache, use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip
        self.positions = self.positions + 1
        for group in self.groups:
            group.length += 1
        return logits

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but these. rows: in ascending order."""
        self.positions = self.positions[rows]
        ends = torch.tensor([len(group.mask) for group in self.groups]).cumsum(dim=0)
        parts = rows.cpu().tensor_split(torch.searchsorted(rows.cpu(), ends)[:-1])
        kept = [(part - first).to(rows.device) for part, first in zip(parts, [0, *ends.tolist()], strict=False)]
        for layer in self.cache.layers:
            layer.states = [
                states if len(own) == len(states[0]) else tuple(tensor[own] for tensor in states)
                for states, own in zip(layer.states, kept, strict=True) if len(own)
            ]  # fmt: skip
        for group, own in zip(self.groups, kept, strict=True):
            group.mask = group.mask[own]
        self.groups[:] = [group for group in self.groups if len(group.mask)]  # in place: the layers share this list

    def close(self) -> None:
        """Leave the model as it was."""
        self.model.set_attn_implementation(self.stock_attention)


class _Group:
    """What the layers share of one group.

    length: positions so far, padding included. mask: added to attention scores, minus infinity for padding and else
    zero, (rows, 1, 1, width of the prompts and the room).
    """

    def __init__(self, mask: torch.Tensor, room: int, dtype: torch.dtype):
        """mask: 1 for tokens, (rows, width of the prompts)."""
        padding = pad(mask, (0, room), value=1) == 0
        self.mask = torch.zeros(padding.shape, dtype=dtype, device=mask.device)
        self.mask = self.mask.masked_fill_(padding, float("-inf"))[:, None, None]
        self.length = mask.shape[1]


def _with_room(parts: tuple[DynamicLayer, ...], width: int, room: int) -> tuple[torch.Tensor, ...]:
    """Return keys and values of one layer: (rows of all parts, heads, width + room, head width).

    New tokens are written into the room, where the library's layer would copy all others. Padding is zero: what is
    masked still gets multiplied.
    """
    states = [part.keys for part in parts], [part.values for part in parts]
    return tuple(torch.cat([pad(part, (0, 0, width - part.shape[2], room)) for part in kind]) for kind in states)


class _GroupedLayer(DynamicLayer):
    """Keys and values of one layer, by group; attention gets them as a list of (keys, values, mask)."""

    def __init__(self, groups: list[_Group], states: list[tuple[torch.Tensor, ...]]):
        super().__init__()
        self.groups, self.states, self.is_initialized = groups, states, True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        sizes = [len(keys) for keys, _ in self.states]
        new = zip(key_states.split(sizes), value_states.split(sizes), strict=True)
        updated = []
        for group, states, added in zip(self.groups, self.states, new, strict=True):
            end = group.length + 1
            for tensor, token in zip(states, added, strict=True):
                tensor[:, :, group.length : end] = token
            updated.append((*(tensor[:, :, :end] for tensor in states), group.mask[..., :end]))
        return updated, None

    def get_seq_length(self) -> int:
        return max(group.length for group in self.groups)


def _attend_group_by_group(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """Return attention, (rows of all groups, 1, heads, head width), and no weights.

    query: (rows of all groups, heads, 1, head width); key: the list that `_GroupedLayer.update` returns.
    """
    if kwargs.get("sliding_window") is not None or kwargs.get("softcap") is not None or not isinstance(key, list):
        raise ValueError("this attention is over whole groups only, without windows or capped scores")
    rows = query.split([len(keys) for keys, _, _ in key])
    shares = key[0][0].shape[1] != query.shape[1]  # heads share keys and values
    attended = [
        scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scaling, enable_gqa=shares)
        for queries, (keys, values, mask) in zip(rows, key, strict=True)
    ]
    return torch.cat(attended).transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attend_group_by_group)


@torch.inference_mode()
def can_attend_in_groups(model: PreTrainedModel) -> bool:
    """Return whether a model gives the same logits in groups, by trial on two short prompts.

    An architecture may attend in a way of its own, or cache other things than keys and values.
    """
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return False
    prompts, next_tokens = [[5, 3, 4], [6, 7]], torch.tensor([3, 8], device=model.device)
    expected, found = (kind(model, prompts, 0, 1) for kind in (PaddedBatch, GroupedBatch))
    wanted = torch.cat([expected.read(), expected.next(next_tokens)])
    try:
        given = torch.cat([found.read(), found.next(next_tokens)])
        took_it = model.config._attn_implementation == ATTENTION  # some refuse with a warning only
    except (TypeError, ValueError, AttributeError):
        return False
    finally:
        found.close()
    return took_it and torch.allclose(given, wanted, rtol=_TOLERANCE, atol=_TOLERANCE * float(wanted.abs().max()))
