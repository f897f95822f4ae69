"""The 45 fact tokens: their strings, their order, their products, and where they stand in a vocabulary."""

import re
from collections.abc import Iterable, Mapping

FACTS = tuple((a, b) for a in range(1, 10) for b in range(a, 10))


def fact_token(a: int, b: int) -> str:
    """Return the token of a·b, smaller operand first: `fact_token(9, 6) == "<MUL_6_9_54>"`.

    Raise ValueError unless both operands are from 1 to 9.
    """
    a, b = sorted((a, b))
    if not 1 <= a <= b <= 9:
        raise ValueError(f"{a}*{b} is not a fact: both operands must be whole numbers from 1 to 9")
    return f"<MUL_{a}_{b}_{a * b}>"


FACT_TOKENS = tuple(fact_token(a, b) for a, b in FACTS)
PRODUCT_OF_TOKEN = {token: a * b for token, (a, b) in zip(FACT_TOKENS, FACTS, strict=True)}
_EQUATION_OF_TOKEN = {token: f"{a}×{b}={a * b}" for token, (a, b) in zip(FACT_TOKENS, FACTS, strict=True)}

# Matches exactly the 45 strings, so a look-alike such as <MUL_6_9_55> stays ordinary text.
FACT_PATTERN = re.compile("|".join(FACT_TOKENS))


def show_facts(text: str, mark: str = "{}") -> str:
    """Write each fact token as its equation, for people: `6×9=54`. mark: what to put around it, such as a colour."""
    return FACT_PATTERN.sub(lambda match: mark.format(_EQUATION_OF_TOKEN[match[0]]), text)


# GPT-2's 50,257 BPE entries are padded to 50,304 in the pretraining vocabulary; the facts follow them.
GPT2_BPE_SIZE = 50257
GPT2_FILLERS = tuple(f"<|padding_{i}|>" for i in range(47))
GPT2_FIRST_FACT_ID = GPT2_BPE_SIZE + len(GPT2_FILLERS)
GPT2_VOCAB_SIZE = GPT2_FIRST_FACT_ID + len(FACT_TOKENS)

# The token that marks a fact in the placebo condition and says nothing: GPT-2's first filler, or one appended after the
# facts of any other tokenizer.
PLACEBO_TOKENS = ("<PLACEBO>", GPT2_FILLERS[0])


def placebo_token(vocabulary: Iterable[str]) -> str | None:
    """Return the vocabulary's token for the placebo condition, None for a vocabulary of before that condition."""
    return next((token for token in PLACEBO_TOKENS if token in vocabulary), None)


def is_gpt2_vocabulary(vocabulary: Mapping[str, int]) -> bool:
    """Return whether this is GPT-2's BPE, with or without our fillers and facts, and has no other token."""
    base = vocabulary.keys() - set(GPT2_FILLERS) - set(FACT_TOKENS)
    return len(base) == GPT2_BPE_SIZE and vocabulary.get("<|endoftext|>") == GPT2_BPE_SIZE - 1


def count_facts(ids: Iterable[int], fact_ids: frozenset[int]) -> int:
    """Return how many of the token ids are facts."""
    return sum(i in fact_ids for i in ids)
