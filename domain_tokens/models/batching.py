"""Which rows go through a model together, in training and in evaluation."""

from collections.abc import Iterator

import numpy as np
import torch

# Positions that go through a model at a time: enough to be worth the call, but not more than a CPU's caches hold
# (progress/2026-11-22-speed.md). A GPU needs far more to be busy.
CPU_TOKENS, GPU_TOKENS = 4096, 16384

_LOGIT_BYTES = 12  # one logit and its gradient, each in 16 bits and in float32
_LOGIT_SHARE = 6  # logits may take a sixth of a GPU's memory; weights, Adam and activations need the rest
_CPU_LOGITS = 1 << 30  # bytes


def tokens_at_once(device: torch.device) -> int:
    return GPU_TOKENS if device.type == "cuda" else CPU_TOKENS


def logits_at_once(device: torch.device, vocabulary: int) -> int:
    """Return for how many positions logits may be in memory together."""
    room = _CPU_LOGITS
    if device.type == "cuda":
        room = torch.cuda.get_device_properties(device).total_memory // _LOGIT_SHARE
    return max(1, room // (_LOGIT_BYTES * vocabulary))


def fill_bins(lengths: np.ndarray, max_tokens: int, max_rows: int | None = None) -> list[list[int]]:
    """Return groups of row numbers, each of at most `max_tokens` tokens and `max_rows` rows, by first-fit decreasing.

    A row longer than `max_tokens` is a group of its own.
    """
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
    """Yield groups of row numbers of similar length, the longest first.

    A group padded to its longest row has at most `max_tokens` positions and `max_rows` rows. A row longer than
    `max_tokens` is a group of its own.
    """
    order = np.argsort(-lengths, kind="stable").tolist()
    while order:
        rows = max(1, max_tokens // int(lengths[order[0]]))
        rows = min(rows, max_rows or rows)
        yield order[:rows]
        order = order[rows:]
