"""How rows lie on the device: the rows of an optimizer step, laid out so that little of it is padding.

An optimizer step sees the same rows and has the same gradient whatever the layout: each part's loss is divided by the
trained tokens of the whole step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from domain_tokens.prompt import IGNORED_LABEL

Batch = dict[str, torch.Tensor]

# Positions that go through a model at a time. A CPU is fastest where what it works on stays in its cache
# (progress/2026-11-22-speed.md); a GPU wants work for all of it.
CPU_TOKENS, GPU_TOKENS = 1024, 16384


def tokens_at_once(device: torch.device) -> int:
    return GPU_TOKENS if device.type == "cuda" else CPU_TOKENS


@dataclass
class Collator:
    """Pad rows on the right to the longest of them. Padding has no loss; the mask tells where each row ends."""

    pad_id: int

    def __call__(self, rows: list[dict[str, np.ndarray]]) -> Batch:
        """input_ids, labels, attention_mask: int64, (rows, longest row)."""
        shape = len(rows), max(len(row["input_ids"]) for row in rows)
        input_ids = torch.full(shape, self.pad_id)
        labels = torch.full(shape, IGNORED_LABEL)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        for i, row in enumerate(rows):
            length = len(row["input_ids"])
            input_ids[i, :length] = torch.tensor(row["input_ids"])
            labels[i, :length] = torch.tensor(row["labels"])
            attention_mask[i, :length] = 1
        return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


def split_by_length(lengths: np.ndarray, max_tokens: int, max_rows: int | None = None) -> Iterator[np.ndarray]:
    """Row numbers in groups of like length, the longest first.

    A group padded to its longest row has at most `max_tokens` positions, padding included (one row may have more),
    and at most `max_rows` rows.
    """
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(order):
        rows = max(1, max_tokens // int(lengths[order[first]]))
        rows = min(rows, max_rows or rows)
        yield order[first : first + rows]
        first += rows


def micro_batches(batch: Batch, max_tokens: int, max_rows: int | None = None) -> Iterator[Batch]:
    """The rows of a padded batch in parts, each padded only to its own longest row.

    Without a mask: behind a causal model's rows, padding is seen by nothing that has loss, and attention is faster
    where there is no mask to look at.
    """
    lengths = batch["attention_mask"].sum(dim=1).cpu().numpy()
    for rows in split_by_length(lengths, max_tokens, max_rows):
        width = int(lengths[rows].max())
        yield {name: batch[name][rows.tolist(), :width] for name in ("input_ids", "labels")}
