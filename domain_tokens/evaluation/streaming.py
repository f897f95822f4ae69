"""One reply for a person: sampled, shown while it is generated, in a conversation that fits the model's context."""

from collections.abc import Callable, Sequence

import torch
from transformers.generation.streamers import BaseStreamer

from domain_tokens.evaluation.replies import Reply, cut_to_reply, tokenize_prompts
from domain_tokens.evaluation.sampling import Sampling
from domain_tokens.models.folder import OpenModel
from domain_tokens.prompt import STOP_STRING, USER_LABEL, Message, reserved_token_finder
from domain_tokens.runs.errors import InputError, RunError


class ReplyStream(BaseStreamer):
    """A reply while it is generated: `on_text` gets each piece of it as soon as no later token can change the piece.

    The pieces joined are exactly the text of `reply()`, also when the reply was stopped early.
    """

    def __init__(self, checkpoint: OpenModel, on_text: Callable[[str], None]):
        self.checkpoint, self.on_text = checkpoint, on_text
        self.ids: list[int] = []
        self.shown = ""
        self.is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt's ids, (1, tokens), and after that one new id at a time, (1,)."""
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
    """Return an unfinished reply without half a character or the beginning of the next turn's label at its end."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    before, line_break, last_line = text.rpartition("\n")
    if USER_LABEL.startswith(last_line):
        text = before if line_break else ""
    return text.rstrip()


def fit_context(
    checkpoint: OpenModel, messages: Sequence[Message], max_new_tokens: int
) -> tuple[list[Message], int, int]:
    """Drop the oldest turns of a conversation until there is room for a reply; system messages stay.

    Room is `max_new_tokens`, or half the context if that is less. Returns the messages left, the number of user turns
    dropped, and how many tokens the reply may have. Raises InputError if the last question alone is too long, or if a
    question or system message holds one of the tokenizer's own tokens.
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
        length = len(tokenize_prompts(checkpoint, [left])[0])
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
    """Generate one reply into `stream`. The same seed always gives the same reply. Raises RunError on a full GPU."""
    model = checkpoint.model
    torch.manual_seed(seed)
    model.eval()
    prompt = torch.tensor(tokenize_prompts(checkpoint, [messages]), device=model.device)
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
        reason = str(error).splitlines()[0]
        raise RunError(f"the GPU's memory is full ({reason}); start again, or with --device cpu") from error
    return stream.reply()
