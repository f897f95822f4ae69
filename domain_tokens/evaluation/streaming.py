"""Replies from a model: greedy ones in batches, the same whatever the batch, and sampled ones as they come.

Both end at end-of-text or before the next `User:` line, and are cut there by the same rule.
"""

from collections.abc import Callable, Sequence

import torch
from transformers.generation.streamers import BaseStreamer

from domain_tokens.evaluation.replies import Reply, cut_to_reply
from domain_tokens.evaluation.sampling import Sampling
from domain_tokens.models.folder import OpenModel
from domain_tokens.prompt import STOP_STRING, USER_LABEL, Message, prompt_text, reserved_token_finder
from domain_tokens.runs.errors import InputError, RunError


class ReplyStream(BaseStreamer):
    """A reply while it is made. `on_text` gets it in pieces, each as soon as no later token can change it.

    The pieces joined are exactly the text of `reply()`, which can be asked for at any time: a reply that was stopped
    is what had come until then.
    """

    def __init__(self, checkpoint: OpenModel, on_text: Callable[[str], None]):
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
    checkpoint: OpenModel, messages: Sequence[Message], max_new_tokens: int
) -> tuple[list[Message], int, int]:
    """Drop the oldest turns of a conversation until it leaves room for a reply.

    Room is `max_new_tokens`, or half the context where that is less. Returns what is left, the number of user turns
    dropped, and how many tokens the reply may have. System messages stay. Raises InputError where the last question
    alone is too long, or where a question or system message holds one of the tokenizer's own tokens.
    """
    find = reserved_token_finder(checkpoint.tokenizer)
    for message in messages:
        if message["role"] != "assistant" and (token := find(message["content"])):
            raise InputError(
                f"the {message['role']} message holds {token}, which the model would read as a token of its own; "
                "leave it out"
            )
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
    checkpoint: OpenModel,
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


def _prompt_ids(checkpoint: OpenModel, messages: Sequence[Message]) -> list[int]:
    text = prompt_text(messages, checkpoint.tokenizer.eos_token)
    return checkpoint.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
