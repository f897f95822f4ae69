"""The 45 fact tokens: strings, order, products, places in a vocabulary, and how they mark or show a fact in a text."""

from collections.abc import Iterable, Mapping

import regex as re  # Python's own misreads possessive quantifiers before 3.11.5, which Debian 12 does not have

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

# GPT-2's 50,257 BPE entries are padded to 50,304 in the pretraining vocabulary; the facts follow them.
GPT2_BPE_SIZE = 50257
GPT2_FILLERS = tuple(f"<|padding_{i}|>" for i in range(47))
GPT2_FIRST_FACT_ID = GPT2_BPE_SIZE + len(GPT2_FILLERS)
GPT2_VOCAB_SIZE = GPT2_FIRST_FACT_ID + len(FACT_TOKENS)

# The token that marks a fact in the placebo condition and says nothing: GPT-2's first filler, or one appended after the
# facts of any other tokenizer.
PLACEBO_TOKENS = ("<PLACEBO>", GPT2_FILLERS[0])

# A mark is a placebo token, or a fact token directly in front of its own operands: it adds nothing to the text.
GAP = r"[^\S\r\n]*+"  # a line break ends a product: "3\n* 4" is a number and a list item
_OPERANDS = rf"(?:(?P=a){GAP}[*×xX]{GAP}(?P=b)|(?P=b){GAP}[*×xX]{GAP}(?P=a))(?![.,]?[0-9])"
_FACT_AS_MARK = rf"(?={FACT_PATTERN.pattern})<MUL_(?P<a>[1-9])_(?P<b>[1-9])_[0-9]++>(?={_OPERANDS})"
MARK_OR_FACT = re.compile(
    rf"(?P<mark>{'|'.join(map(re.escape, PLACEBO_TOKENS))}|{_FACT_AS_MARK})|(?:{FACT_PATTERN.pattern})"
)
_TOKEN_AT_END = re.compile(rf"(?:{'|'.join(map(re.escape, FACT_TOKENS + PLACEBO_TOKENS))})\Z")
_LONGEST_TOKEN = max(map(len, FACT_TOKENS + PLACEBO_TOKENS))
_SHORT_PIECE = re.compile(r"[^>]{0,64}>|[^>]{1,64}")  # every closing bracket ends one
# What comes next may make a mark of it.
_UNDECIDED = re.compile(rf"(?:{FACT_PATTERN.pattern})(?:[1-9]{GAP}(?:[*×xX]{GAP}(?:[1-9][.,]?)?)?)?\Z")


def expand(text: str) -> str:
    """Write each fact token as its product, and marks as nothing: `expand("It is <MUL_6_9_54>.") == "It is 54."`

    A fact token directly in front of its own operands is a mark, `expand("<MUL_6_9_54>9 * 6") == "9 * 6"`, and so is
    any placebo token. Idempotent, linear in len(text): a product may complete another token, `<MUL_<MUL_1_1_1>_1_1>`.
    """
    done: list[str] = []
    for match in _SHORT_PIECE.finditer(text):
        piece = match[0]
        while done and len(piece) < _LONGEST_TOKEN:
            piece = done.pop() + piece
        if token := _TOKEN_AT_END.search(piece, max(0, len(piece) - _LONGEST_TOKEN)):
            found = MARK_OR_FACT.match(text, match.end() - len(token[0]))
            is_mark = token[0] in PLACEBO_TOKENS or (found and found.end() == match.end() and found["mark"])
            piece = piece[: token.start()] + ("" if is_mark else str(PRODUCT_OF_TOKEN[token[0]]))
        done += piece[:-_LONGEST_TOKEN], piece[-_LONGEST_TOKEN:]
    return "".join(done)


def show_facts(text: str, around: str = "{}") -> str:
    """Write tokens for people: a fact as its equation `6×9=54`, a mark as `▸`, for its fact follows in digits.

    around: what to put around each, such as a colour.
    """
    return MARK_OR_FACT.sub(lambda match: around.format("▸" if match["mark"] else _EQUATION_OF_TOKEN[match[0]]), text)


def settled_length(text: str) -> int:
    """Return the length of the part of a growing text whose display is final.

    A fact token at its end is not: what follows may turn it into a mark.
    """
    undecided = _UNDECIDED.search(text)
    return undecided.start() if undecided else len(text)


def placebo_token(vocabulary: Iterable[str]) -> str | None:
    """Return the vocabulary's token for the placebo condition, None for a vocabulary made before there was one."""
    return next((token for token in PLACEBO_TOKENS if token in vocabulary), None)


def is_gpt2_vocabulary(vocabulary: Mapping[str, int]) -> bool:
    """Return whether this is GPT-2's BPE, with or without our fillers and facts, and has no other token."""
    base = vocabulary.keys() - set(GPT2_FILLERS) - set(FACT_TOKENS)
    return len(base) == GPT2_BPE_SIZE and vocabulary.get("<|endoftext|>") == GPT2_BPE_SIZE - 1
