"""Conversations to labelled token rows, and counts of what happened to them."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np

from domain_tokens.conditions import Condition
from domain_tokens.data.shared_text import KINDS, shared_texts
from domain_tokens.facts import placebo_token
from domain_tokens.prompt import IGNORED_LABEL, Message, encode_conversations

CUT_LIMIT = 0.01  # share of rows that are cut; more deserve a warning
ROWS = ("ids", "trained", "offsets")
ARRAYS, COUNTS = (*ROWS, "kinds"), ("cut", "dropped", "injected", "too_long", "shared_bytes")  # the fields of Prepared


@dataclass
class Prepared:
    """Labelled token rows, one after the other, and counts of how they came about.

    ids: int32; trained: bool, True where loss applies; offsets: int64, row i is [offsets[i] : offsets[i + 1]]. As a
    dataset for Trainer, item i is {"input_ids": …, "labels": …}, int32, unpadded. too_long: the lengths, in tokens, of
    rows that had to be cut, whether they were kept or dropped. kinds: uint8, of `shared_text` for each token; empty
    except in validation rows, whose items then have "kinds" too. shared_bytes: by the kinds' names.
    """

    ids: np.ndarray
    trained: np.ndarray
    offsets: np.ndarray
    cut: int
    dropped: int
    injected: Counter[str]
    too_long: list[int] = field(default_factory=list)
    kinds: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    shared_bytes: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        row = slice(self.offsets[i], self.offsets[i + 1])
        ids = np.array(self.ids[row])
        item = {"input_ids": ids, "labels": labels(ids, self.trained[row])}
        return item | {"kinds": np.array(self.kinds[row])} if len(self.kinds) else item

    @property
    def trained_tokens(self) -> int:
        """Number of labels that carry loss: a causal LM predicts each token from those before it, never the first."""
        return int(np.count_nonzero(self.trained) - np.count_nonzero(self.trained[self.offsets[:-1]]))

    def digest(self, names: Sequence[str] = ROWS) -> str:
        """Return the sha256, in hexadecimal, of these arrays; by default of tokens and where loss applies."""
        digest = hashlib.sha256()
        for name in names:
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        return digest.hexdigest()

    def counts(self) -> dict[str, int]:
        return {
            "kept": len(self),
            "cut": self.cut,
            "dropped": self.dropped,
            "injected_mul_tokens": self.injected.total(),
            "tokens": len(self.ids),
            "trained_tokens": self.trained_tokens,
        }


def labels(ids: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Return one label (int32) per token, `IGNORED_LABEL` where untrained, for a causal LM that shifts by itself."""
    return np.where(trained, ids, np.int32(IGNORED_LABEL))


def prepare(
    conversations: Iterable[list[Message]],
    tokenizer,
    max_length: int,
    loss_on: str,
    condition: Condition,
    is_measured: bool = False,
) -> Prepared:
    """Rewrite assistant text as the condition says, render, tokenise and label.

    Rows left without a trained token are dropped. is_measured: find the shared text too.
    """
    conversations = list(conversations)
    injected: Counter[str] = Counter()
    placebo = placebo_token(tokenizer.get_vocab())
    rewritten = [[_rewritten(each, condition, placebo, injected) for each in messages] for messages in conversations]
    encoded = encode_conversations(tokenizer, rewritten, max_length, loss_on)
    is_kept = [any(row.trained[1:]) for row in encoded]
    kept = [*compress(encoded, is_kept)]
    prepared = Prepared(
        np.array([i for row in kept for i in row.ids], np.int32),
        np.array([is_trained for row in kept for is_trained in row.trained], np.bool_),
        np.cumsum([0, *(len(row.ids) for row in kept)], dtype=np.int64),
        sum(len(row.ids) < row.length for row in kept),
        len(encoded) - len(kept),
        injected,
        [row.length for row in encoded if len(row.ids) < row.length],
    )
    if is_measured:
        shared = [*compress(shared_texts(tokenizer, conversations, condition, max_length), is_kept)]
        prepared.kinds = np.concatenate([np.empty(0, np.uint8), *(text.kinds for text in shared)])
        sums = [text.byte_sums([0, len(text.text)]) for text in shared]
        prepared.shared_bytes.update({name: sum(int(each[name][0]) for each in sums) for name in KINDS.values()})
    return prepared


def _rewritten(message: Message, condition: Condition, placebo: str | None, counts: Counter[str]) -> Message:
    if message["role"] != "assistant":
        return message
    text, found = condition.rewrite(message["content"], placebo)
    counts.update(found)
    return message | {"content": text}


def join(parts: Iterable[Prepared]) -> Prepared:
    """Return the rows of all parts, in order."""
    nothing = Prepared(np.empty(0, np.int32), np.empty(0, np.bool_), np.zeros(1, np.int64), 0, 0, Counter())
    parts = [nothing, *parts]
    return Prepared(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.trained for part in parts]),
        np.cumsum([0, *np.concatenate([np.diff(part.offsets) for part in parts])], dtype=np.int64),
        sum(part.cut for part in parts),
        sum(part.dropped for part in parts),
        sum((part.injected for part in parts), Counter()),
        [length for part in parts for length in part.too_long],
        np.concatenate([part.kinds for part in parts]),
        sum((part.shared_bytes for part in parts), Counter()),
    )


def cut_warning(prepared: Prepared, max_length: int, context: int) -> str | None:
    """Return a warning if too many training rows had to be cut, with a length that would do; None otherwise."""
    rows, lengths = len(prepared) + prepared.dropped, sorted(prepared.too_long)
    may_be_cut = int(CUT_LIMIT * rows)
    if len(lengths) <= may_be_cut:
        return None
    enough = lengths[-1 - may_be_cut]
    advice = f"max_length={enough} would cut at most {CUT_LIMIT:.0%}"
    if enough > context:
        advice += f", but the model has only {context} positions"
    return (
        f"warning: {len(lengths):,} of {rows:,} training rows ({len(lengths) / rows:.1%}) are longer than "
        f"data.max_length {max_length} and lose their end; {advice}\n"
    )
