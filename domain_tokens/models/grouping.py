"""How the rows of an optimizer step lie on the device: one behind the other, with no padding between them.

A step sees the same rows and has the same gradient whatever the layout: each part's loss is divided by the trained
tokens of the whole step, and no token sees another row. Models whose attention cannot be told where rows end get rows
of like length below each other, padded to the longest.
"""

from collections.abc import Iterator

import numpy as np
import torch

# Positions that go through a model at a time: enough to be worth the call, not more than a CPU works well with
# (progress/2026-11-22-speed.md); a GPU wants work for all of it.
CPU_TOKENS, GPU_TOKENS = 4096, 16384


def tokens_at_once(device: torch.device) -> int:
    return GPU_TOKENS if device.type == "cuda" else CPU_TOKENS


def fill_bins(lengths: np.ndarray, max_tokens: int, max_rows: int | None = None) -> list[list[int]]:
    """Row numbers in groups of at most `max_tokens` tokens and `max_rows` rows: first-fit decreasing."""
    groups: list[list[int]] = []
    room: list[int] = []
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        for place, left in enumerate(room):
            if length <= left and len(groups[place]) != max_rows:
                break
        else:
            place = len(groups)
            groups.append([])
            room.append(max_tokens)
        groups[place].append(i)
        room[place] -= length
    return groups


def split_by_length(lengths: np.ndarray, max_tokens: int, max_rows: int | None = None) -> Iterator[list[int]]:
    """Row numbers in groups of like length, the longest first.

    A group padded to its longest row has at most `max_tokens` positions, padding included (one row may have more),
    and at most `max_rows` rows.
    """
    order = np.argsort(-lengths, kind="stable").tolist()
    while order:
        rows = max(1, max_tokens // int(lengths[order[0]]))
        rows = min(rows, max_rows or rows)
        yield order[:rows]
        order = order[rows:]
