"""How the rows of an optimizer step lie on the device: one behind the other, with no padding between them.

A step sees the same rows and has the same gradient whatever the layout: each part's loss is divided by the trained
tokens of the whole step, and no token sees another row. Models whose attention cannot be told where rows end get rows
of like length below each other, padded to the longest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from domain_tokens.models.grouping import fill_bins, split_by_length
from domain_tokens.prompt import IGNORED_LABEL

Part = dict[str, Any]  # the arguments of one call of the model


@dataclass
class Collator:
    """Rows to parts of at most `max_tokens` positions (one row may have more) and `max_rows` rows, None for no limit.

    is_packed: for a model that `packing.prepare_model` has prepared, else padded with `pad_id`. Of several processes
    each is given all rows of a step and takes its share. All get equally many parts, for they exchange gradients (or,
    where a model is sharded over them, weights): what one lacks is made up with a single token that carries no loss.
    """

    pad_id: int
    max_tokens: int
    max_rows: int | None
    is_packed: bool
    rank: int = 0
    processes: int = 1

    def __call__(self, rows: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
        """parts: what goes through the model, one after the other; labels: all labels, int64, for counting only."""
        shares = [rows[rank :: self.processes] for rank in range(self.processes)]
        groups = [self._groups(share) for share in shares]
        lacking = max(map(len, groups)) - len(groups[self.rank])
        rows = [_without_first_label(row) for row in shares[self.rank]]
        filler = {name: values[:1] for name, values in _without_first_label(shares[0][0]).items()}
        laid_out = [[rows[i] for i in group] for group in groups[self.rank]] + [[filler]] * lacking
        labels = np.concatenate([row["labels"] for part in laid_out for row in part])
        lay_out = packed if self.is_packed else self._padded
        return {"labels": torch.from_numpy(labels).long(), "parts": [lay_out(part) for part in laid_out]}

    def _groups(self, rows: Sequence[dict[str, np.ndarray]]) -> list[list[int]]:
        lengths = np.array([len(row["input_ids"]) for row in rows])
        return list((fill_bins if self.is_packed else split_by_length)(lengths, self.max_tokens, self.max_rows))

    def _padded(self, rows: list[dict[str, np.ndarray]]) -> Part:
        """input_ids, labels: int64, (rows, longest row).

        Without a mask: behind a causal model's rows, padding is seen by nothing that has loss, and attention is faster
        where there is no mask to look at.
        """
        shape = len(rows), max(len(row["input_ids"]) for row in rows)
        part = {"input_ids": torch.full(shape, self.pad_id), "labels": torch.full(shape, IGNORED_LABEL)}
        for i, row in enumerate(rows):
            for name, tensor in part.items():
                tensor[i, : len(row[name])] = torch.from_numpy(row[name])
        return part


def packed(rows: Sequence[dict[str, np.ndarray]]) -> Part:
    """input_ids, position_ids: int64, (1, tokens of all rows). row_ends: int32, (rows + 1,), the first one 0.

    trained: int64, the positions whose next token carries loss; targets: int64, those next tokens.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    labels = np.concatenate([row["labels"] for row in rows])
    trained = np.flatnonzero(labels != IGNORED_LABEL)
    return {
        "input_ids": torch.from_numpy(np.concatenate([row["input_ids"] for row in rows])).long()[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "row_ends": torch.from_numpy(np.cumsum([0, *lengths])).int(),
        "longest_row": max(lengths),
        "trained": torch.from_numpy(trained - 1),
        "targets": torch.from_numpy(labels[trained]).long(),
    }


def _without_first_label(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A causal model predicts a token from those before it, and a row's first has none."""
    labels = row["labels"].copy()
    labels[0] = IGNORED_LABEL
    return {"input_ids": row["input_ids"], "labels": labels}
