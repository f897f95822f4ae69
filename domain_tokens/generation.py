"""Batched greedy generation, the same replies whatever the batch."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from domain_tokens.checkpoints import Checkpoint
from domain_tokens.errors import InputError
from domain_tokens.prompt import STOP_STRING, Message, cut_reply, prompt_text
from domain_tokens.tokens import count_facts


class Reply(NamedTuple):
    text: str  # the assistant's text, fact tokens as written
    tokens: int  # in that text, end-of-text not counted
    mul_tokens: int  # of them, counted from ids
    finished: bool  # ended by end-of-text, not by the length limit or a further "User:"


def generate_replies(
    checkpoint: Checkpoint, conversations: Sequence[Sequence[Message]], max_new_tokens: int, batch_size: int
) -> Iterator[tuple[int, Reply]]:
    """Yield (index, reply) in batches of similar prompt length, longest first.

    Left-padded, with positions counted from each prompt's own first token. Raises InputError for a prompt that
    leaves less than `max_new_tokens` of the model's context: cutting it would change the question.
    """
    tokenizer, model = checkpoint.tokenizer, checkpoint.model
    texts = [prompt_text(messages, tokenizer.eos_token) for messages in conversations]
    prompts = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    if prompts and len(prompts[order[0]]) + max_new_tokens > checkpoint.context:
        raise InputError(
            f"prompt {order[0]} has {len(prompts[order[0]])} tokens and max_new_tokens is {max_new_tokens}, but the "
            f"model has {checkpoint.context} positions; lower max_new_tokens"
        )
    model.eval()
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        yield from zip(batch, _generate(checkpoint, [prompts[i] for i in batch], max_new_tokens), strict=True)


@torch.inference_mode()
def _generate(checkpoint: Checkpoint, prompts: list[list[int]], max_new_tokens: int) -> list[Reply]:
    tokenizer, model = checkpoint.tokenizer, checkpoint.model
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    output = model.generate(
        input_ids=input_ids.to(model.device),
        attention_mask=attention_mask.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        stop_strings=STOP_STRING,
        tokenizer=tokenizer,
    )
    return [_reply(checkpoint, ids) for ids in output[:, width:].tolist()]


def _reply(checkpoint: Checkpoint, ids: list[int]) -> Reply:
    """Cut generated ids where the reply ends. Padding behind the end looks like end-of-text, so find the first."""
    tokenizer = checkpoint.tokenizer
    finished = tokenizer.eos_token_id in ids
    if finished:
        ids = ids[: ids.index(tokenizer.eos_token_id)]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    reply = cut_reply(text, tokenizer.eos_token)
    if reply != text:
        finished = False
        while ids and len(tokenizer.decode(ids[:-1], skip_special_tokens=True)) >= len(reply):
            ids = ids[:-1]
    return Reply(reply.strip(), len(ids), count_facts(ids, checkpoint.fact_ids), finished)
