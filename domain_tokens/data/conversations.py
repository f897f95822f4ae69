"""Datasets in, conversations out: reading, checking and splitting rows.

A row is read, checked and converted the same way whether it comes from the Hub, a folder or a file. Only the
split asked for is ever opened.
"""

import re
from collections.abc import Callable
from typing import Any

from domain_tokens.facts import FACT_TOKENS
from domain_tokens.prompt import ROLES, Message

Row = dict[str, Any]
_LONGEST_TEXT = 1_000_000  # characters; a longer one is no conversation, and would take gigabytes to tokenise


class UnusableRow(Exception):
    """Why a row cannot be used, in the words of the report; equal reasons are counted together."""


Converter = Callable[[Row], list[Message]]


def tulu_conversation(row: Row) -> list[Message]:
    """The messages of a Tulu row: user, assistant, perhaps system."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UnusableRow("no messages")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise UnusableRow("unknown role")
        if not isinstance(message.get("content"), str):
            raise UnusableRow("content is not text")
        if message["role"] == "assistant" and not message["content"].strip():
            raise UnusableRow("empty answer")
        _check_text(message["content"])
    if all(message["role"] != "assistant" for message in messages):
        raise UnusableRow("no assistant message")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def gsm8k_conversation(row: Row) -> list[Message]:
    """Question and answer of a GSM8K row as a conversation of two turns."""
    question, answer = gsm8k_question(row), _text(row, "answer")
    if "####" not in answer:
        raise UnusableRow("answer without ####")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def gsm8k_question(row: Row) -> str:
    """The question of a GSM8K row and nothing else of it."""
    return _text(row, "question")


def conversation_of_any(row: Row) -> list[Message]:
    """A row of either stage's data; GSM8K's are known by their answer."""
    return gsm8k_conversation(row) if "answer" in row else tulu_conversation(row)


def _text(row: Row, key: str) -> str:
    if not isinstance(row.get(key), str):
        raise UnusableRow(f"no {key}")
    if not row[key].strip():
        raise UnusableRow(f"empty {key}")
    _check_text(row[key])
    return row[key]


# Texts that would turn into control or fact tokens: a baseline row could smuggle in a fact, any row could end early.
_RESERVED = re.compile("|".join(map(re.escape, ("<|endoftext|>", *FACT_TOKENS))))


def _check_text(text: str) -> None:
    if len(text) > _LONGEST_TEXT:
        raise UnusableRow(f"text of more than {_LONGEST_TEXT:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell and no tokenizer reads
        raise UnusableRow("text is not valid Unicode") from None
    if match := _RESERVED.search(text):
        raise UnusableRow(f"text holds the reserved token {match[0]}")
