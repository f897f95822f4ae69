"""Prompts decoded step by step: padded side by side, as any model takes them."""

import inspect

import torch
from transformers import DynamicCache, PreTrainedModel


class PaddedBatch:
    """Prompts side by side: padded on the left, with a mask and the library's own cache."""

    def __init__(self, model: PreTrainedModel, prompts: list[list[int]], pad_id: int, max_new_tokens: int = 0):
        """max_new_tokens: how far the prompts will go on; the library's cache grows by itself."""
        self.model, self.cache = model, DynamicCache(config=model.config)
        self.prompt_ids, self.mask = left_padded(prompts, pad_id, model.device)
        # Some models take no positions, or give only all logits.
        accepted = inspect.signature(model.forward).parameters
        self.only_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.takes_positions = "position_ids" in accepted

    def read(self) -> torch.Tensor:
        """Return the logits after each prompt: (rows, vocabulary)."""
        return self._logits(self.prompt_ids)

    def next(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the logits after one more token of each row: (rows, vocabulary). chosen: these tokens, (rows,)."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(chosen), 1)], dim=1)
        return self._logits(chosen[:, None])

    def _logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        placed = {}
        if self.takes_positions:  # counted from each prompt's own first token
            placed["position_ids"] = (self.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        return self.model(
            input_ids=input_ids, attention_mask=self.mask, past_key_values=self.cache, use_cache=True, **placed,
            **self.only_last,
        ).logits[:, -1]  # fmt: skip

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but these."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]

    def close(self) -> None:
        """Leave the model as it was."""


def left_padded(prompts: list[list[int]], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input_ids and attention_mask: int64, (prompts, longest prompt)."""
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    return input_ids.to(device), attention_mask.to(device)
