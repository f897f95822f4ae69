"""A raw row of a dataset to the conversation it stands for, or the reason why it stands for none."""

import functools
from collections.abc import Callable
from typing import Any

from domain_tokens.prompt import ROLES, Message, reserved_token_finder

Row = dict[str, Any]
_LONGEST_TEXT = 1_000_000  # characters; tokenising a longer text would take gigabytes

_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}


class UnusableRow(Exception):
    """The reason why a row cannot be used, as it is reported. Equal reasons are counted together."""


Converter = Callable[[Row], list[Message]]


def tulu_conversation(row: Row) -> list[Message]:
    """Return the messages of a Tulu row, or of a ShareGPT row: `conversations` with `from` and `value`."""
    messages = row.get("messages") or row.get("conversations")
    if not isinstance(messages, list) or not messages:
        raise UnusableRow("no messages")
    conversation = []
    for message in messages:
        if not isinstance(message, dict):
            raise UnusableRow("unknown role")
        role, content = message.get("role") or message.get("from"), message.get("content", message.get("value"))
        role = _SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else None
        if role not in ROLES:
            raise UnusableRow("unknown role")
        if not isinstance(content, str):
            raise UnusableRow("content is not text")
        if role == "assistant" and not content.strip():
            raise UnusableRow("empty answer")
        _check_text(content)
        conversation.append({"role": role, "content": content})
    if all(message["role"] != "assistant" for message in conversation):
        raise UnusableRow("no assistant message")
    return conversation


def gsm8k_conversation(row: Row) -> list[Message]:
    """Return question and answer of a GSM8K row as a conversation of two turns."""
    question, answer = gsm8k_question(row), _text(row, "answer")
    if "####" not in answer:
        raise UnusableRow("answer without ####")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def gsm8k_question(row: Row) -> str:
    """Return the question of a GSM8K row without looking at its answer."""
    return _text(row, "question")


def conversation_of_any(row: Row) -> list[Message]:
    """Return the conversation of a row of either stage's data. A GSM8K row has an answer and no messages."""
    is_chat = row.get("messages") or row.get("conversations") or "answer" not in row
    return tulu_conversation(row) if is_chat else gsm8k_conversation(row)


def without_reserved_tokens(convert: Converter, tokenizer) -> Converter:
    """Return a converter to which rows are unusable, too, if their text holds one of the tokenizer's own tokens."""
    find = reserved_token_finder(tokenizer)

    @functools.wraps(convert)
    def checked(row: Row) -> list[Message]:
        messages = convert(row)
        for message in messages:
            if token := find(message["content"]):
                raise UnusableRow(f"text holds the reserved token {token}")
        return messages

    return checked


def _text(row: Row, key: str) -> str:
    if not isinstance(row.get(key), str):
        raise UnusableRow(f"no {key}")
    if not row[key].strip():
        raise UnusableRow(f"empty {key}")
    _check_text(row[key])
    return row[key]


def _check_text(text: str) -> None:
    if len(text) > _LONGEST_TEXT:
        raise UnusableRow(f"text of more than {_LONGEST_TEXT:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and no tokenizer reads
        raise UnusableRow("text is not valid Unicode") from None
