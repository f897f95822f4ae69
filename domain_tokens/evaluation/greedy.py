"""Greedy decoding of many prompts side by side: what each says is what it would say alone.

Prompts of like length make a group, with keys and values as wide as its longest needs; all groups go through the model
together, and only attention is computed group by group.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from domain_tokens.models.decoding import DECODERS, PaddedBatch
from domain_tokens.models.folder import OpenModel
from domain_tokens.models.grouping import GPU_TOKENS, split_by_length
from domain_tokens.prompt import STOP_STRING
from domain_tokens.runs.errors import RunError

ATTENTION = "domain_tokens_grouped"

# Positions of a CPU's group: wider groups are padded more, smaller ones wait for Python (progress/2026-11-22-speed.md).
CPU_GROUP = 10_000
CPU_PIECE = 1024  # positions of prompts read at a time: padding and attention over it stay small
CPU_MEMORY = 1 << 30  # bytes of keys and values; a GPU may use a third of what is free
LARGEST_GPU_BATCH = 1024
_STOP_TOKENS = 16  # more than the stop string can be spelled in
_TOLERANCE = 1e-4


def fitting_batch_size(model, positions: int) -> int:
    """How many sequences of so many positions the device has room for side by side.

    On a GPU in a third of the free memory: keys and values are copied where sequences leave a batch, and the last third
    is for activations and logits.
    """
    config = model.config
    all_heads = getattr(config, "num_attention_heads", 1)  # a model without attention keeps about as much
    heads = getattr(config, "num_key_value_heads", None) or all_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // all_heads
    per_sequence = 2 * config.num_hidden_layers * heads * width * positions * model.dtype.itemsize
    if model.device.type != "cuda":
        return max(1, CPU_MEMORY // per_sequence)
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(1, min(LARGEST_GPU_BATCH, free // 3 // per_sequence))


def decode_greedy(
    checkpoint: OpenModel, prompts: list[list[int]], max_new_tokens: int
) -> Iterator[tuple[int, list[int]]]:
    """Yield (place, new ids) as each sequence ends: at end-of-text, behind the stop string, or at the limit.

    prompts: the longest first. What has ended leaves the batch, once it is an eighth of it: copying the others' keys
    and values costs as much as a few steps with them. Raises RunError where a GPU's memory is full.
    """
    tokenizer, model = checkpoint.tokenizer, checkpoint.model
    colons = _ids_with_colon(tokenizer)
    new_ids: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # in the batch, by their place in `prompts`
    ended: set[int] = set()
    is_grouped = checkpoint.decoding == "batched" and _can_attend_in_groups(model)
    kind = _Groups if is_grouped else DECODERS[checkpoint.decoding]
    batch = kind(model, prompts, tokenizer.pad_token_id, max_new_tokens)
    try:
        with torch.inference_mode():
            chosen = batch.read().argmax(dim=-1)
        for step in range(max_new_tokens):
            if step:
                with torch.inference_mode():
                    chosen = batch.next(chosen).argmax(dim=-1)
            for row, token in zip(rows, chosen.tolist(), strict=True):
                if row in ended:
                    continue
                ids = new_ids[row]
                ids.append(token)
                # The stop string ends in a colon, so only a token with one can complete it.
                stops = token in colons and STOP_STRING in tokenizer.decode(ids[-_STOP_TOKENS:])
                if token == tokenizer.eos_token_id or stops or step == max_new_tokens - 1:
                    ended.add(row)
                    yield row, ids
            left = [place for place, row in enumerate(rows) if row not in ended]
            if not left:
                return
            if len(left) <= len(rows) * 7 // 8:
                kept = torch.tensor(left, device=chosen.device)
                with torch.inference_mode():
                    batch.keep(kept)
                chosen, rows = chosen[kept], [rows[place] for place in left]
    except torch.OutOfMemoryError as error:
        raise RunError(f"the GPU's memory is full; give batch_size, less than {len(prompts)} ({error})") from error
    finally:
        batch.close()


class _Groups:
    """Prompts in groups of like length, for models whose attention can be computed group by group."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], pad_id: int, max_new_tokens: int):
        self.model, self.room, self.stock_attention = model, max_new_tokens, model.config._attn_implementation
        lengths = [len(prompt) + max_new_tokens for prompt in prompts]
        limit = CPU_GROUP if model.device.type == "cpu" else max(lengths) * len(lengths)
        self.groups = []
        for rows in split_by_length(np.array(lengths), limit):
            piece_size = CPU_PIECE if model.device.type == "cpu" else GPU_TOKENS
            part = max(1, piece_size // len(prompts[rows[0]]))
            pieces = [rows[first : first + part] for first in range(0, len(rows), part)]
            self.groups.append([PaddedBatch(model, [prompts[i] for i in piece], pad_id) for piece in pieces])

    def read(self) -> torch.Tensor:
        """As `PaddedBatch.read`, in pieces that fit a CPU's cache."""
        logits, masks, layers = [], [], []
        for pieces in self.groups:
            logits += [piece.read() for piece in pieces]
            width = max(piece.mask.shape[1] for piece in pieces)
            masks.append(torch.cat([pad(piece.mask, (width - piece.mask.shape[1], 0)) for piece in pieces]))
            parts = zip(*(piece.cache.layers for piece in pieces), strict=True)
            layers.append([_RoomyLayer(list(part), self.room) for part in parts])
            for piece in pieces:
                piece.cache = None
        self.positions = torch.cat([mask.sum(dim=1) for mask in masks])
        self.masks = [_GroupMask(mask, self.room, logits[0].dtype) for mask in masks]
        self.cache = DynamicCache(config=self.model.config)
        self.cache.layers = [_GroupedLayer(list(part), self.masks) for part in zip(*layers, strict=True)]
        self.model.set_attn_implementation(ATTENTION)
        return torch.cat(logits)

    def next(self, chosen: torch.Tensor) -> torch.Tensor:
        for mask in self.masks:
            mask.length += 1
        logits = self.model(
            input_ids=chosen[:, None], position_ids=self.positions[:, None], past_key_values=self.cache, use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip
        self.positions = self.positions + 1
        return logits

    def close(self) -> None:
        self.model.set_attn_implementation(self.stock_attention)

    def keep(self, rows: torch.Tensor) -> None:
        self.positions = self.positions[rows]
        self.cache.batch_select_indices(rows)
        for mask, own in zip(self.masks, _within_groups(rows, [len(mask.added) for mask in self.masks]), strict=True):
            mask.added = mask.added[own]
        self.masks[:] = [mask for mask in self.masks if len(mask.added)]  # in place: the layers look at the same list


def _within_groups(rows: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    """For each group its own rows, counted from its first, of row numbers over all groups."""
    firsts = [sum(sizes[:i]) for i in range(len(sizes))]
    spans = zip(firsts, sizes, strict=True)
    return [rows[(rows >= first) & (rows < first + size)] - first for first, size in spans]


class _GroupMask:
    """What is added to a group's attention scores: nothing, or minus infinity at the padding."""

    def __init__(self, mask: torch.Tensor, room: int, dtype: torch.dtype):
        """mask: 1 for tokens, (rows, width of the prompts)."""
        padding = pad(mask, (0, room), value=1) == 0
        self.added = torch.zeros(padding.shape, dtype=dtype, device=mask.device)
        self.added = self.added.masked_fill_(padding, float("-inf"))[:, None, None]
        self.length = mask.shape[1]

    def now(self) -> torch.Tensor:
        """(rows, 1, 1, positions so far)."""
        return self.added[..., : self.length]


class _GroupedLayer(DynamicLayer):
    """A layer's keys and values, group by group; attention gets them as a list of (keys, values, mask)."""

    def __init__(self, groups: list["_RoomyLayer"], masks: list[_GroupMask]):
        super().__init__()
        self.groups, self.masks, self.is_initialized = groups, masks, True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        sizes = [len(group.keys) for group in self.groups]
        new = zip(key_states.split(sizes), value_states.split(sizes), strict=True)
        updated = [group.update(*states) for group, states in zip(self.groups, new, strict=True)]
        return [(*states, mask.now()) for states, mask in zip(updated, self.masks, strict=True)], None

    def get_seq_length(self) -> int:
        return max(group.get_seq_length() for group in self.groups)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        sizes = [len(group.keys) for group in self.groups]
        for group, own in zip(self.groups, _within_groups(indices, sizes), strict=True):
            group.batch_select_indices(own)
        self.groups = [group for group in self.groups if len(group.keys)]


class _RoomyLayer(DynamicLayer):
    """Keys and values with room behind them: a token's are written there, where the stock layer copies all others."""

    def __init__(self, parts: list[DynamicLayer], room: int):
        """parts: layers whose rows go below each other, padded on the left."""
        super().__init__()
        self.is_initialized = True
        width = max(part.keys.shape[2] for part in parts)
        self.key_room, self.value_room = (
            self._join([getattr(part, name) for part in parts], width, room) for name in ("keys", "values")
        )
        self._show(width)

    @staticmethod
    def _join(parts: list[torch.Tensor], width: int, room: int) -> torch.Tensor:
        rows = sum(len(part) for part in parts)
        _, heads, _, size = parts[0].shape
        joined = parts[0].new_zeros(rows, heads, width + room, size)  # zeros: what is masked still gets multiplied
        first = 0
        for part in parts:
            joined[first : first + len(part), :, width - part.shape[2] : width] = part
            first += len(part)
        return joined

    def _show(self, length: int) -> None:
        self.keys, self.values = self.key_room[:, :, :length], self.value_room[:, :, :length]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        before, after = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        self.key_room[:, :, before:after] = key_states
        self.value_room[:, :, before:after] = value_states
        self._show(after)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if len(indices) < len(self.keys):
            length = self.keys.shape[2]
            self.key_room, self.value_room = self.key_room[indices], self.value_room[indices]
            self._show(length)


def _attend_group_by_group(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """query: (rows of all groups, heads, 1, head width); key: what `_GroupedLayer` gives.

    Returns (rows of all groups, 1, heads, head width) and no weights.
    """
    if kwargs.get("sliding_window") is not None or kwargs.get("softcap") is not None or not isinstance(key, list):
        raise ValueError("this attention is over whole groups only, without windows or capped scores")
    attended, first = [], 0
    for keys, values, mask in key:
        rows = query[first : first + len(keys)]
        shares = keys.shape[1] != query.shape[1]
        attended.append(
            scaled_dot_product_attention(rows, keys, values, attn_mask=mask, scale=scaling, enable_gqa=shares)
        )
        first += len(keys)
    return torch.cat(attended).transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attend_group_by_group)


@torch.inference_mode()
def _can_attend_in_groups(model: PreTrainedModel) -> bool:
    """Told by a trial: an architecture may attend in a way of its own, or keep other things than keys and values."""
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return False
    prompts, next_tokens = [[5, 3, 4], [6, 7]], torch.tensor([3, 8], device=model.device)
    expected, found = (kind(model, prompts, 0, 1) for kind in (PaddedBatch, _Groups))
    wanted = torch.cat([expected.read(), expected.next(next_tokens)])
    try:
        given = torch.cat([found.read(), found.next(next_tokens)])
        took_it = model.config._attn_implementation == ATTENTION  # some go on in a way of their own, with a warning
    except (TypeError, ValueError, AttributeError):
        return False
    finally:
        found.close()
    return took_it and torch.allclose(given, wanted, rtol=_TOLERANCE, atol=_TOLERANCE * float(wanted.abs().max()))


def _ids_with_colon(tokenizer) -> frozenset[int]:
    return frozenset(i for token, i in tokenizer.get_vocab().items() if ":" in token or token == "<0x3A>")
