"""Greedy decoding of many prompts side by side: each gets the reply that it would get alone."""

from collections.abc import Iterator

import torch

from domain_tokens.evaluation.grouped_decoding import GroupedBatch, can_attend_in_groups
from domain_tokens.models.decoding import DECODERS
from domain_tokens.models.folder import OpenModel
from domain_tokens.prompt import STOP_STRING
from domain_tokens.runs.errors import RunError

CPU_MEMORY = 1 << 30  # bytes of keys and values; a GPU may use a third of what is free
LARGEST_GPU_BATCH = 1024
_STOP_TOKENS = 16  # more than the stop string can be spelled in
_COLONS, _LINE_BREAKS = (":", "<0x3A>"), ("\n", "Ċ", "<0x0A>")  # as vocabularies spell them


def fitting_batch_size(model, positions: int) -> int:
    """Return how many sequences of so many positions the device has room for side by side.

    Keys and values get a third of a GPU's free memory: they are copied when sequences leave a batch, and the last third
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


@torch.inference_mode()
def decode_greedy(
    checkpoint: OpenModel, prompts: list[list[int]], max_new_tokens: int, one_line: bool = False
) -> Iterator[tuple[int, list[int]]]:
    """Yield (place, new ids) as each sequence ends: at end-of-text, after the stop string, or at the limit.

    one_line: stop after the first line that is not empty, in place of the stop string.

    prompts: sorted, the longest first. Ended sequences leave the batch when they are an eighth of it: copying the
    others' keys and values costs as much as a few steps. Raises RunError if a GPU's memory is full.
    """
    tokenizer, model = checkpoint.tokenizer, checkpoint.model
    # The stop string ends in a colon, so only a token with a colon can complete it.
    marks = _LINE_BREAKS if one_line else _COLONS
    may_end = frozenset(i for token, i in tokenizer.get_vocab().items() if any(mark in token for mark in marks))
    new_ids: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # the place in `prompts` of each row of the batch
    ended: set[int] = set()
    is_grouped = checkpoint.decoding == "batched" and can_attend_in_groups(model)
    kind = GroupedBatch if is_grouped else DECODERS[checkpoint.decoding]
    batch = kind(model, prompts, tokenizer.pad_token_id, max_new_tokens)
    try:
        chosen = batch.read().argmax(dim=-1)
        for step in range(max_new_tokens):
            if step:
                chosen = batch.next(chosen).argmax(dim=-1)
            for row, token in zip(rows, chosen.tolist(), strict=True):
                if row in ended:
                    continue
                ids = new_ids[row]
                ids.append(token)
                stops = token in may_end and (
                    "\n" in tokenizer.decode(ids).lstrip()
                    if one_line
                    else STOP_STRING in tokenizer.decode(ids[-_STOP_TOKENS:])
                )
                if token == tokenizer.eos_token_id or stops or step == max_new_tokens - 1:
                    ended.add(row)
                    yield row, ids
            left = [place for place, row in enumerate(rows) if row not in ended]
            if not left:
                return
            if len(left) <= len(rows) * 7 // 8:
                kept = torch.tensor(left, device=chosen.device)
                batch.keep(kept)
                chosen, rows = chosen[kept], [rows[place] for place in left]
    except torch.OutOfMemoryError as error:
        raise RunError(f"the GPU's memory is full; give batch_size, less than {len(prompts)} ({error})") from error
    finally:
        batch.close()
