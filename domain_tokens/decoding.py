"""Greedy decoding of many prompts side by side: what each says is what it would say alone."""

import inspect
from collections.abc import Iterator

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from domain_tokens.batches import tokens_at_once
from domain_tokens.checkpoints import Checkpoint
from domain_tokens.errors import RunError
from domain_tokens.prompt import STOP_STRING

# Positions whose keys and values a CPU keeps at a time: more of them crowd each other out of its cache, fewer leave it
# waiting for Python (progress/2026-11-22-speed.md).
CPU_POSITIONS, LARGEST_GPU_BATCH = 14000, 1024
_STOP_TOKENS = 16  # more than the stop string can be spelled in


def fitting_batch_size(model, positions: int) -> int:
    """How many sequences of so many positions may be generated side by side.

    On a GPU what a third of the free memory holds of keys and values: they are copied where sequences leave a batch,
    and the last third is for activations and logits.
    """
    if model.device.type != "cuda":
        return max(1, CPU_POSITIONS // positions)
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_sequence = 2 * config.num_hidden_layers * heads * width * positions * model.dtype.itemsize
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(1, min(LARGEST_GPU_BATCH, free // 3 // per_sequence))


def decode_greedy(
    checkpoint: Checkpoint, prompts: list[list[int]], max_new_tokens: int
) -> Iterator[tuple[int, list[int]]]:
    """Yield (place, new ids) as each sequence ends: at end-of-text, behind the stop string, or at the limit.

    prompts: the longest first. What has ended leaves the batch, once it is an eighth of it: copying the others' keys
    and values costs as much as a few steps with them. Raises RunError where a GPU's memory is full.
    """
    tokenizer = checkpoint.tokenizer
    colons = _ids_with_colon(tokenizer)
    new_ids: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # in the batch, by their place in `prompts`
    ended: set[int] = set()
    model = _Model(checkpoint)
    try:
        chosen, attention_mask, cache = _prefill(model, prompts, max_new_tokens)
        for step in range(max_new_tokens):
            if step:
                chosen = model(chosen[:, None], attention_mask, cache)
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
                cache.batch_select_indices(kept)
                chosen, attention_mask = chosen[kept], attention_mask[kept]
                rows = [rows[place] for place in left]
            attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(rows), 1)], dim=1)
    except torch.OutOfMemoryError as error:
        raise RunError(f"the GPU's memory is full; give batch_size, less than {len(prompts)} ({error})") from error


class _Model:
    """A model asked for the likeliest next token of every row. Some take no positions, or give only all logits."""

    def __init__(self, checkpoint: Checkpoint):
        self.model, self.pad_id = checkpoint.model, checkpoint.tokenizer.pad_token_id
        accepted = inspect.signature(self.model.forward).parameters
        self.only_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.takes_positions = "position_ids" in accepted

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """input_ids: (rows, new tokens); attention_mask: (rows, tokens so far, these included). Returns ids (rows,)."""
        placed = {}
        if self.takes_positions:  # counted from each prompt's own first token
            placed["position_ids"] = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        with torch.inference_mode():
            output = self.model(
                input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True,
                **placed, **self.only_last,
            )  # fmt: skip
            return output.logits[:, -1].argmax(dim=-1)


def _prefill(
    model: _Model, prompts: list[list[int]], max_new_tokens: int
) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
    """The first new token of every prompt (rows,), the mask, and the keys and values of all prompts.

    In parts of like length, as in training. Only plain keys and values can be joined: a model with others, such as
    sliding windows, reads its prompts in one piece.
    """
    config, device = model.model.config, model.model.device
    width = len(prompts[0])
    is_plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
    rows = max(1, tokens_at_once(device) // width) if is_plain else len(prompts)
    chosen, masks, caches = [], [], []
    for first in range(0, len(prompts), rows):
        input_ids, attention_mask = left_padded(prompts[first : first + rows], model.pad_id, device)
        cache = DynamicCache(config=config)
        chosen.append(model(input_ids, attention_mask, cache))
        masks.append(torch.nn.functional.pad(attention_mask, (width - attention_mask.shape[1], 0)))
        caches.append(cache)
    if is_plain:
        cache = DynamicCache(config=config)
        parts = zip(*(part.layers for part in caches), strict=True)
        with torch.inference_mode():
            cache.layers = [_RoomyLayer(list(layers), max_new_tokens) for layers in parts]
    return torch.cat(chosen), torch.cat(masks), cache


class _RoomyLayer(DynamicLayer):
    """Keys and values with room behind them: a token's are written there, where the stock layer copies all others."""

    def __init__(self, parts: list[DynamicLayer], room: int):
        """parts: layers whose rows go below each other, padded on the left; each loses its own copy."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = parts[0].dtype, parts[0].device, True
        width = max(part.keys.shape[2] for part in parts)
        self.key_room, self.value_room = (
            self._join([getattr(part, name) for part in parts], width, room) for name in ("keys", "values")
        )
        self._show(width)
        for part in parts:
            part.keys = part.values = None

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
        length = self.keys.shape[2]
        self.key_room, self.value_room = self.key_room[indices], self.value_room[indices]
        self._show(length)


def left_padded(prompts: list[list[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids, attention_mask: int64, (prompts, longest prompt)."""
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    return input_ids.to(device), attention_mask.to(device)


def _ids_with_colon(tokenizer) -> frozenset[int]:
    return frozenset(i for token, i in tokenizer.get_vocab().items() if ":" in token or token == "<0x3A>")
