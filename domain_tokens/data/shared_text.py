"""The shared text: what every condition writes alike in assistant turns, so that its cost in bits can be compared.

That is all outside the facts, but only in whole tokens: GPT-2's ` 6` holds a fact's digit and a space. A character
whose token also covers other text in any condition's rendering is left out, and so on until nothing changes. What
remains is the same characters for all conditions, whichever of them a model was trained in. End-of-text is not part.

Its digits, with whatever shares a token with a digit in any rendering, are numbers. The rest are words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from domain_tokens.conditions import CONDITIONS, Condition
from domain_tokens.facts import placebo_token
from domain_tokens.prompt import Message, render

OUTSIDE, NUMBER, WORD = range(3)
KINDS = {NUMBER: "number", WORD: "word"}
_PLAIN = next(condition for condition in CONDITIONS.values() if not condition.injects)


@dataclass(frozen=True)
class SharedText:
    """One conversation as a model reads it. Places are those of characters in `text`, the conversation as it stands.

    ids: the tokens of the model's own rendering, as it is trained, cut to the length asked for. first, last: the places
    of each token's first and last character; a fact, however written, is at its beginning. kinds: OUTSIDE, NUMBER or
    WORD for each token. character_kinds: the same for each character, equal in all conditions.
    """

    text: str
    ids: list[int]
    first: np.ndarray
    last: np.ndarray
    kinds: np.ndarray
    character_kinds: np.ndarray

    def byte_sums(self, borders: Sequence[int]) -> dict[str, np.ndarray]:
        """Return by kind the bytes (UTF-8) of the shared text in each stretch from one border to the next."""
        sizes = np.array([len(character.encode()) for character in self.text])
        return {name: _sums(sizes * (self.character_kinds == kind), borders) for kind, name in KINDS.items()}


def _sums(values: np.ndarray, borders: Sequence[int]) -> np.ndarray:
    return np.diff(np.concatenate([[0], np.cumsum(values)])[list(borders)])


class _Rendering(NamedTuple):
    """A conversation as one condition writes it.

    origin: for each character, its place in the conversation as it stands. starts, ends: of each token, in characters
    of the rendering.
    """

    origin: np.ndarray
    ids: list[int]
    starts: np.ndarray
    ends: np.ndarray


def shared_texts(
    tokenizer, conversations: Sequence[Sequence[Message]], condition: Condition, max_length: int | None = None
) -> list[SharedText]:
    """Return the shared text of each conversation, tokenised as `condition` trains it.

    max_length: in tokens. Text that one condition's rendering has beyond it is left out for all conditions.
    """
    placebo = placebo_token(tokenizer.get_vocab())
    # A vocabulary without a placebo needs no rendering with it: its token would stand where `annotated` has the fact's.
    others = [each for each in CONDITIONS.values() if placebo or not each.needs_placebo]
    asked, texts, origins = [], [], []
    for messages in conversations:
        plain = [*_pieces(messages, tokenizer.eos_token, _PLAIN, placebo)]
        has_facts = any(is_fact for _, _, is_fact in plain)
        conditions = [condition, *others] if has_facts else [condition]
        for each in conditions:
            text, origin = _render(plain, [*_pieces(messages, tokenizer.eos_token, each, placebo)])
            texts.append(text)
            origins.append(origin)
        asked.append((plain, len(conditions)))
    renderings = map(_tokens, origins, _exact_tokenizer(tokenizer).encode_batch(texts, add_special_tokens=False))
    return [_shared(plain, [next(renderings) for _ in range(count)], max_length) for plain, count in asked]


def _pieces(
    messages: Sequence[Message], end_of_text: str, condition: Condition, placebo: str | None
) -> Iterator[tuple[str, bool, bool]]:
    """Yield the training text in pieces: (text, whether it is an assistant's, whether it is a fact)."""
    contents = (message["content"] for message in messages if message["role"] == "assistant")
    for piece in render(messages, end_of_text):
        if not piece.trained:
            yield piece.text, False, False
            continue
        parts = [[text, token is not None] for text, token in condition.pieces(next(contents), placebo)]
        parts[0][0] = parts[0][0].lstrip()
        parts[-1][0] = parts[-1][0].rstrip()
        for text, is_fact in ([" ", False], *parts):
            yield text, True, is_fact
        yield end_of_text, False, False


def _render(plain: list[tuple[str, bool, bool]], own: list[tuple[str, bool, bool]]) -> tuple[str, np.ndarray]:
    """Return a rendering's text and origin. A fact's characters all come from the place where the fact begins."""
    origin, place = [], 0
    for (before, *_), (text, _, is_fact) in zip(plain, own, strict=True):
        origin.append(np.full(len(text), place) if is_fact else place + np.arange(len(text)))
        place += len(before)
    return "".join(text for text, *_ in own), np.concatenate(origin)


def _exact_tokenizer(tokenizer) -> Tokenizer:
    """Return a copy that says which characters each token has; post-processors trim spaces from that."""
    exact = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    exact.post_processor = None
    exact.no_truncation()
    exact.no_padding()
    return exact


def _tokens(origin: np.ndarray, encoding) -> _Rendering:
    starts, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
    ends = np.maximum(ends, starts + 1).clip(max=len(origin))  # some tokenizers give a character's last byte no width
    return _Rendering(origin, encoding.ids, starts.clip(max=len(origin) - 1), ends)


def _shared(plain: list[tuple[str, bool, bool]], renderings: list[_Rendering], max_length: int | None) -> SharedText:
    text = "".join(part for part, *_ in plain)
    inside = np.repeat([own and not is_fact for _, own, is_fact in plain], [len(part) for part, *_ in plain])
    for origin, ids, starts, ends in renderings:
        kept = np.zeros(len(origin) + 1, np.int64)  # by how many tokens each character is kept, as differences
        np.add.at(kept, starts[:max_length], 1)
        np.add.at(kept, ends[:max_length], -1)
        inside[origin[np.cumsum(kept)[:-1] == 0]] = False
        if max_length is not None and len(ids) > max_length:
            inside[origin[starts[max_length]] :] = False
    _leave_out_straddled(inside, renderings)
    words = inside & ~np.array([character.isdigit() for character in text])
    _leave_out_straddled(words, renderings)
    character_kinds = np.where(words, WORD, np.where(inside, NUMBER, OUTSIDE)).astype(np.uint8)
    origin, ids, starts, ends = renderings[0]
    first, last = origin[starts][:max_length], origin[ends - 1][:max_length]
    return SharedText(text, ids[:max_length], first, last, character_kinds[first], character_kinds)


def _leave_out_straddled(inside: np.ndarray, renderings: list[_Rendering]) -> None:
    """Clear `inside`, a bool for each character, under every token that is only partly inside, until there is none."""
    is_changed = True
    while is_changed:
        is_changed = False
        for origin, _, starts, ends in renderings:
            counts = np.concatenate([[0], np.cumsum(inside[origin])])
            covered = counts[ends] - counts[starts]
            for i in np.flatnonzero((covered > 0) & (covered < ends - starts)):
                inside[origin[starts[i] : ends[i]]] = False
                is_changed = True
