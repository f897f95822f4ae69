"""The one conversation format: what is trained on, what a prompt is, and where a reply ends.

    System: {content}
    User: {content}
    Assistant: {content}<|endoftext|>

Training, evaluation and the chat template that travels with a model all come from here.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
ROLES = ("system", "user", "assistant")
USER_LABEL, ASSISTANT_LABEL = "User:", "Assistant:"
LOSS_ON = ("assistant", "all")
IGNORED_LABEL = -100  # the label torch's cross-entropy skips
_NEXT_TURN = re.compile(rf"^{USER_LABEL}", re.MULTILINE)

# Generation stops here, and `cut_reply` takes the label off. A turn always begins after a line break.
STOP_STRING = f"\n{USER_LABEL}"

# The same format for other tools. The space belongs to the reply, not to the prompt: "Assistant: " would end in a
# token that "Assistant: Yes" does not contain, so a model would be asked with text it never saw.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('unknown role ' ~ message['role']) -}}"
    "{%- endif -%}"
    "{%- if not loop.first -%}{{- '\\n' -}}{%- endif -%}"
    "{{- message['role'] | capitalize ~ ':' -}}"
    "{%- set content = message['content'] -%}"
    "{%- if content is not string -%}"  # a list of parts: {"type": "text", "text": ...}
    "{%- if content | rejectattr('type', 'equalto', 'text') | list -%}"
    "{{- raise_exception('only text can be read') -}}"
    "{%- endif -%}"
    "{%- set content = content | map(attribute='text') | join -%}"
    "{%- endif -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- ' ' ~ content | trim ~ eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- ' ' ~ content -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '\\nAssistant:' -}}{%- endif -%}"
)


class Piece(NamedTuple):
    """A stretch of the training text; `trained` says whether its tokens carry loss."""

    text: str
    trained: bool


class Encoded(NamedTuple):
    """ids: the whole training text; trained: same length, True where loss applies; cut: whether it was too long."""

    ids: list[int]
    trained: list[bool]
    cut: bool


def question_conversation(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def render(messages: Sequence[Message], end_of_text: str, loss_on: str = "assistant") -> list[Piece]:
    """Return the training text in pieces. End-of-text follows every assistant turn and is trained with it.

    Space around assistant text is dropped: a reply begins with a space, and clients send it back in the history.
    """
    if loss_on not in LOSS_ON:
        raise ValueError(f"loss_on is {loss_on!r}, expected one of {', '.join(LOSS_ON)}")
    pieces = []
    for i, message in enumerate(messages):
        label = f"{message['role'].capitalize()}:"
        opening, content = ("\n" if i else "") + label, message["content"]
        if message["role"] == "assistant":
            pieces += Piece(opening, loss_on == "all"), Piece(f" {content.strip()}{end_of_text}", True)
        else:
            pieces.append(Piece(f"{opening} {content}", loss_on == "all"))
    return pieces


def prompt_text(messages: Sequence[Message], end_of_text: str) -> str:
    """Return what the model is asked with, `User: {question}\\nAssistant:`: the beginning of the training text."""
    return "".join(piece.text for piece in render(messages, end_of_text)) + f"\n{ASSISTANT_LABEL}"


def encode_conversations(
    tokenizer, conversations: Sequence[Sequence[Message]], max_length: int | None = None, loss_on: str = "assistant"
) -> list[Encoded]:
    """Tokenise each conversation as one text and flag the tokens that carry loss.

    The flags come from the character spans of the pieces. Searching for the padding id instead would take the loss off
    end-of-text where the two share an id (GPT-2), and the model would never learn to stop.
    """
    rendered = [render(messages, tokenizer.eos_token, loss_on) for messages in conversations]
    texts = ["".join(piece.text for piece in pieces) for pieces in rendered]
    # verbose: no warning about rows longer than the model's context, which are cut below
    encoding = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    encoded = []
    for pieces, ids, offsets in zip(rendered, encoding["input_ids"], encoding["offset_mapping"], strict=True):
        ends = np.cumsum([len(piece.text) for piece in pieces])
        first_chars = np.fromiter((start for start, _ in offsets[:max_length]), np.int64)
        trained = np.array([piece.trained for piece in pieces])[np.searchsorted(ends, first_chars, side="right")]
        cut = max_length is not None and len(ids) > max_length
        encoded.append(Encoded(ids[:max_length], trained.tolist(), cut))
    return encoded


def labels(ids: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Return one label (int32) per token, `IGNORED_LABEL` where untrained, for a causal LM that shifts by itself."""
    return np.where(trained, ids, np.int32(IGNORED_LABEL))


def cut_reply(text: str, end_of_text: str = "<|endoftext|>") -> str:
    """Cut a reply at end-of-text or at the next `User:` line, whichever comes first."""
    text = text.split(end_of_text, 1)[0]
    match = _NEXT_TURN.search(text)
    return text[: match.start()] if match else text
