"""The one conversation format: what is trained on, what a prompt is, and where a reply ends.

    System: {content}
    User: {content}
    Assistant: {content}<|endoftext|>

Training, evaluation and the chat template that travels with a model all come from here.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
ROLES = ("system", "user", "assistant")
USER_LABEL, ASSISTANT_LABEL = "User:", "Assistant:"
LOSS_ON = ("assistant", "all")
IGNORED_LABEL = -100  # the label torch's cross-entropy skips
_NEXT_TURN = re.compile(rf"^{USER_LABEL}", re.MULTILINE)
_ORDINARY_TEXT = re.compile(r"[\w\s▁]+|.", re.DOTALL)  # ▁ is the space of SentencePiece

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
    """A training text, cut at the end if it was too long. trained: same length as ids, True where loss applies."""

    ids: list[int]
    trained: list[bool]
    length: int  # tokens before the text was cut


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
    import numpy as np

    rendered = [render(messages, tokenizer.eos_token, loss_on) for messages in conversations]
    texts = ["".join(piece.text for piece in pieces) for pieces in rendered]
    # verbose: no warning about rows longer than the model's context, which are cut below
    encoding = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    encoded = []
    for pieces, ids, offsets in zip(rendered, encoding["input_ids"], encoding["offset_mapping"], strict=True):
        ends = np.cumsum([len(piece.text) for piece in pieces])
        first_chars = np.fromiter((start for start, _ in offsets[:max_length]), np.int64)
        trained = np.array([piece.trained for piece in pieces])[np.searchsorted(ends, first_chars, side="right")]
        encoded.append(Encoded(ids[:max_length], trained.tolist(), len(ids)))
    return encoded


def reserved_token_finder(tokenizer) -> Callable[[str], str | None]:
    """Return a function that finds the first special or added token of the tokenizer in a text, or None.

    In training text such a token would end a reply early, or be a fact in every condition. Added tokens that are not
    special are ordinary text if they are nothing but letters, digits and spaces, or a single character: many
    vocabularies add runs of spaces or whole words.
    """
    added = [token for token in tokenizer.added_tokens_decoder.values() if token.content]
    special = {token.content for token in added if token.special} | set(tokenizer.all_special_tokens)
    reserved = special | {token.content for token in added if not _ORDINARY_TEXT.fullmatch(token.content)}
    in_text = _any_of(reserved)
    normalizer = tokenizer.backend_tokenizer.normalizer
    if normalizer is None:
        return lambda text: match[0] if (match := in_text.search(text)) else None
    # The tokenizer looks for some tokens in the normalised text, which may be in lower case, and a Unigram vocabulary
    # has its special tokens among its pieces: full-width ＜/s＞ becomes one.
    normalised = {token: token for token in reserved} | {
        normalizer.normalize_str(token.content): token.content
        for token in added
        if token.normalized and token.content in reserved
    }
    in_normalised = _any_of(normalised)

    def find(text: str) -> str | None:
        if match := in_text.search(text):
            return match[0]
        match = in_normalised.search(normalizer.normalize_str(text))
        return normalised[match[0]] if match else None

    return find


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern of any of the texts, the longest first; without texts, a pattern that nothing matches."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def cut_reply(text: str, end_of_text: str = "<|endoftext|>") -> str:
    """Cut a reply at end-of-text or at the next `User:` line, whichever comes first."""
    text = text.split(end_of_text, 1)[0]
    match = _NEXT_TURN.search(text)
    return text[: match.start()] if match else text
