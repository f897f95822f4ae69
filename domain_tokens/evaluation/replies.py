"""A reply of a model: the prompt it answers, where it ends, and greedy replies to many conversations.

A reply ends at end-of-text or before the next `User:` line, whether it is greedy or sampled.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from domain_tokens.evaluation.greedy import decode_greedy, fitting_batch_size
from domain_tokens.models.folder import OpenModel
from domain_tokens.prompt import Message, cut_reply, prompt_text
from domain_tokens.runs.errors import InputError

_FIRST_LINE = re.compile(r"\s*\S[^\n]*(?=\n)")


class Reply(NamedTuple):
    text: str  # the assistant's text, fact tokens as written
    tokens: int  # in that text, end-of-text not counted
    mul_tokens: int  # fact tokens among them
    finished: bool  # ended by end-of-text, not by the length limit or a further "User:"


def tokenize_prompts(checkpoint: OpenModel, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Return the ids of each conversation's prompt."""
    texts = [prompt_text(messages, checkpoint.tokenizer.eos_token) for messages in conversations]
    return checkpoint.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []


def check_room(checkpoint: OpenModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raise InputError if a prompt leaves no room for `max_new_tokens`. Cutting it would change its question."""
    longest = max(map(len, prompts), default=0)
    if prompts and longest + max_new_tokens > checkpoint.context:
        raise InputError(
            f"the longest prompt has {longest} tokens and max_new_tokens is {max_new_tokens}, but the model has "
            f"{checkpoint.context} positions; lower max_new_tokens"
        )


def reply_to(
    checkpoint: OpenModel, prompts: list[list[int]], max_new_tokens: int, batch_size: int | None, one_line: bool = False
) -> Iterator[tuple[int, Reply]]:
    """Yield (index, greedy reply) for each prompt as its reply ends, in batches of similar prompt length.

    batch_size: prompts side by side; None for as many as the device has room for. one_line: a reply is a single line.
    """
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    checkpoint.model.eval()
    while order:
        size = batch_size or fitting_batch_size(checkpoint.model, len(prompts[order[0]]) + max_new_tokens)
        batch, order = order[:size], order[size:]
        for place, ids in decode_greedy(checkpoint, [prompts[i] for i in batch], max_new_tokens, one_line):
            yield batch[place], cut_to_reply(checkpoint, ids, one_line)


def cut_to_reply(checkpoint: OpenModel, ids: list[int], one_line: bool = False) -> Reply:
    """Cut generated ids where the reply ends: padding looks like end-of-text, so the first one counts.

    one_line: at the end of the first line that is not empty, which counts as finished.
    """
    tokenizer = checkpoint.tokenizer
    finished = tokenizer.eos_token_id in ids
    if finished:
        ids = ids[: ids.index(tokenizer.eos_token_id)]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    reply = cut_reply(text, tokenizer.eos_token)
    if reply != text:
        finished = False
    if one_line and (line := _FIRST_LINE.match(reply)):
        reply, finished = line[0], True
    if reply != text:
        while ids and len(tokenizer.decode(ids[:-1], skip_special_tokens=True)) >= len(reply):
            ids = ids[:-1]
    fact_ids = checkpoint.fact_ids
    return Reply(reply.strip(), len(ids), sum(i in fact_ids for i in ids), finished)
