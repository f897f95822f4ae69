"""Replies from a model: greedy ones in batches, the same whatever the batch, and sampled ones as they come.

Both end at end-of-text or before the next `User:` line, and are cut there by the same rule.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from transformers.generation.streamers import BaseStreamer

from domain_tokens.checkpoints import Checkpoint
from domain_tokens.decoding import decode_greedy, fitting_batch_size
from domain_tokens.errors import InputError, RunError
from domain_tokens.prompt import STOP_STRING, USER_LABEL, Message, cut_reply, prompt_text
from domain_tokens.sampling import Sampling
from domain_tokens.tokens import count_facts


class Reply(NamedTuple):
    text: str  # the assistant's text, fact tokens as written
    tokens: int  # in that text, end-of-text not counted
    mul_tokens: int  # of them, counted from ids
    finished: bool  # ended by end-of-text, not by the length limit or a further "User:"


def encode(checkpoint: Checkpoint, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[list[int]]:
    """The prompts' ids. Raises InputError for one that leaves less than `max_new_tokens` of the model's context:
    cutting it would change the question.
    """
    texts = [prompt_text(messages, checkpoint.tokenizer.eos_token) for messages in conversations]
    prompts = checkpoint.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    longest = max(map(len, prompts), default=0)
    if prompts and longest + max_new_tokens > checkpoint.context:
        raise InputError(
            f"the longest prompt has {longest} tokens and max_new_tokens is {max_new_tokens}, but the model has "
            f"{checkpoint.context} positions; lower max_new_tokens"
        )
    return prompts


def generate_replies(
    checkpoint: Checkpoint, conversations: Sequence[Sequence[Message]], max_new_tokens: int, batch_size: int | None
) -> Iterator[tuple[int, Reply]]:
    """Yield (index, reply) for each conversation as its reply ends, greedy, in batches of similar prompt length.

    batch_size: prompts side by side, None for as many as the device has room for. Raises InputError as `encode` does.
    """
    prompts = encode(checkpoint, conversations, max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    checkpoint.model.eval()
    while order:
        size = batch_size or fitting_batch_size(checkpoint.model, len(prompts[order[0]]) + max_new_tokens)
        batch, order = order[:size], order[size:]
        for place, ids in decode_greedy(checkpoint, [prompts[i] for i in batch], max_new_tokens):
            yield batch[place], cut_to_reply(checkpoint, ids)


class ReplyStream(BaseStreamer):
    """A reply while it is made. `on_text` gets it in pieces, each as soon as no later token can change it.

    The pieces joined are exactly the text of `reply()`, which can be asked for at any time: a reply that was stopped
    is what had come until then.
    """

    def __init__(self, checkpoint: Checkpoint, on_text: Callable[[str], None]):
        self.checkpoint, self.on_text = checkpoint, on_text
        self.ids: list[int] = []
        self.shown = ""
        self.is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        """value: the prompt's ids (1, tokens) at first, then one new id at a time (1,)."""
        if self.is_prompt:
            self.is_prompt = False
            return
        self.ids += value.tolist()
        self._show(_settled(cut_to_reply(self.checkpoint, self.ids).text))

    def end(self) -> None:
        self._show(self.reply().text)

    def reply(self) -> Reply:
        return cut_to_reply(self.checkpoint, self.ids)

    def _show(self, text: str) -> None:
        if new := text[len(self.shown) :]:
            self.shown = text
            self.on_text(new)


def _settled(text: str) -> str:
    """The part of an unfinished reply that stays: no half of a character, no beginning of the next turn's label."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    before, line_break, last_line = text.rpartition("\n")
    if USER_LABEL.startswith(last_line):
        text = before if line_break else ""
    return text.rstrip()


def fit_context(
    checkpoint: Checkpoint, messages: Sequence[Message], max_new_tokens: int
) -> tuple[list[Message], int, int]:
    """Drop the oldest turns of a conversation until it leaves room for a reply.

    Room is `max_new_tokens`, or half the context where that is less. Returns what is left, the number of user turns
    dropped, and how many tokens the reply may have. System messages stay. Raises InputError where the last question
    alone is too long.
    """
    reserved = min(max_new_tokens, checkpoint.context // 2)
    system = [message for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    dropped = 0
    while True:
        left = [*system, *turns]
        length = len(_prompt_ids(checkpoint, left))
        if length + reserved <= checkpoint.context:
            return left, dropped, min(max_new_tokens, checkpoint.context - length)
        later = [i for i, message in enumerate(turns) if message["role"] == "user" and i > 0]
        if not later:
            what = "the question and the system message have" if system else "the question has"
            raise InputError(
                f"{what} {length} tokens with the prompt, which leaves less than {reserved} of the model's "
                f"{checkpoint.context} positions for the reply; make it shorter"
            )
        turns = turns[later[0] :]
        dropped += 1


def stream_reply(
    checkpoint: Checkpoint,
    messages: Sequence[Message],
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
    stream: ReplyStream,
) -> Reply:
    """Generate one reply into `stream`. The same seed gives the same reply, whatever was generated before."""
    model = checkpoint.model
    torch.manual_seed(seed)
    model.eval()
    prompt = torch.tensor([_prompt_ids(checkpoint, messages)], device=model.device)
    try:
        with torch.inference_mode():
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=max_new_tokens,
                stop_strings=STOP_STRING,
                tokenizer=checkpoint.tokenizer,
                streamer=stream,
                **sampling.settings(),
            )
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"the GPU's memory is full ({str(error).splitlines()[0]}); start anew or on --device cpu"
        ) from error
    return stream.reply()


def _prompt_ids(checkpoint: Checkpoint, messages: Sequence[Message]) -> list[int]:
    text = prompt_text(messages, checkpoint.tokenizer.eos_token)
    return checkpoint.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def cut_to_reply(checkpoint: Checkpoint, ids: list[int]) -> Reply:
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
