"""Plain text to text with fact tokens, and back.

`inject` may only rewrite a product where the rewritten text still says the same: the fact token stands for the
number a·b, so everything that binds tighter than the multiplication (a longer number, a power, a percentage, a
division to its left) makes a product untouchable. What is doubtful is left alone.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from domain_tokens.tokens import FACT_PATTERN, FACT_TOKENS, PLACEBO_TOKENS, PRODUCT_OF_TOKEN, fact_token

_GAP = r"[^\S\r\n]*"  # a line break ends a product: "3\n* 4" is a number and a list item
_FACT = "\ue000"  # one fact token in the text that the rules look at; to them it is a number
_PRODUCT = re.compile(rf"([1-9])({_GAP})([*×xX])({_GAP})([1-9])")
_NUMBER = r"(?:[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)"

# What stands behind "=": perhaps a currency sign, perhaps a GSM8K annotation <<6*9=54>>, then the number.
_ANNOTATION = rf"(?:<<(?:[^<>\n]|{_FACT}){{0,200}}>>)?"
_RESULT = re.compile(rf"{_GAP}=(?!=){_GAP}[$€£]?{_ANNOTATION}{_GAP}(?P<sign>[-−+]?)[$€£]?(?P<number>{_NUMBER})")
# A power, and not the ** that closes bold text: "12**2", "12 ** n", but "**3*4 = 12** apples".
_POWER = rf"(?:{_GAP}\^|\*\*{_GAP}[0-9(+\-−.√]|\*\*\w|[^\S\r\n]+\*\*{_GAP}[\w(]|[²³¹⁰⁴-⁹⁺⁻])"
# The number goes on in a way that is no longer the plain number: 12,5  12:30  12 1/2  12 000  12%  12e3  12^2
_NUMBER_GOES_ON = re.compile(rf"[,.:'’][0-9]|[eE][-+]?[0-9]|{_GAP}(?:[0-9]|{_FACT}|%|\\%|per\s?cent\b)|{_POWER}|[_½¼¾]")
# The number is only the first operand of an expression: 6*9 = 54 - 4
_EXPRESSION_GOES_ON = re.compile(rf"{_GAP}[-−–+*×÷/xX]{_GAP}[-−]?{_GAP}(?:[$€£.(√]|[0-9]|{_FACT}|<<)")

# Directly in front of the first operand: part of a longer number, a name, a root, a closed bracket.
_BOUND_BEFORE = re.compile(rf"(?:[\w.٫٬√∛∜\\)\]}}{_FACT}]|[0-9>{_FACT}][,:'’])\Z")
# In front of the first operand, gaps and signs skipped: divided, raised, under a root or function, "5 percent".
_TIGHTER_BEFORE = re.compile(
    r"(?:[/÷∕⁄／√∛∜%]|\b(?:divided by|mod|sqrt|log|ln|exp|sin|cos|tan)|[\w)\]}>][^\S\r\n]*(?:\^|\*\*))\Z", re.IGNORECASE
)
_NUMBER_BEFORE = re.compile(rf"(?:[0-9½¼¾²³%]|{_FACT})\Z")
_EXPONENT_SIGN_BEFORE = re.compile(r"[0-9.][eE]\Z")
# Directly behind the second operand: part of a longer number or a name, a power, a percentage, a factorial.
_BOUND_BEHIND = re.compile(
    rf"[\w!√]|[.,:'’][0-9]|{_GAP}(?:[0-9½¼¾]|{_FACT})|{_GAP}\.[0-9]|{_POWER}"
    rf"|{_GAP}(?:%|\\%|٪|per\s?cent\b|squared\b|cubed\b|and{_GAP}[0-9]+/[0-9])"
)
_OPERAND_END = re.compile(rf"(?:[\w)\]}}%]|{_FACT})\Z")

# A bare x between digits is a product only where the text goes on like arithmetic, not like "2 x 4 boards".
_X_CHAIN = re.compile(rf"(?:{_GAP}[xX×*]{_GAP}[0-9.,]+){{0,4}}[)\]}}]*")
_X_GOES_ON = re.compile(rf"{_GAP}(?:[=+*/÷×\r\n]|[-−]{_GAP}[0-9]|(?:is|are|equals|gives|makes){_GAP}[$€£]?[0-9]|$)")
_X_ENDS = re.compile(rf"{_GAP}[.,;:?!]")  # "= 3 x 4." ends a calculation, "The room is 3 x 4." does not
_CALCULATION_BEFORE = re.compile(r"[=+\-−*×/÷(]\Z")
_EQUALS = re.compile(rf"{_GAP}=(?!=)")
_ARTICLE_BEFORE = re.compile(r"\b(?:a|an|the)\Z", re.IGNORECASE)

_FACT_TOKEN = rf"(?:{FACT_PATTERN.pattern})"
_PLACEBO = "|".join(map(re.escape, PLACEBO_TOKENS))
_OPERANDS = rf"(?:(?P=a){_GAP}[*×xX]{_GAP}(?P=b)|(?P=b){_GAP}[*×xX]{_GAP}(?P=a))(?![.,]?[0-9])"
_MARK = rf"{_PLACEBO}|(?={_FACT_TOKEN})<MUL_(?P<a>[1-9])_(?P<b>[1-9])_[0-9]++>(?={_OPERANDS})"
_MARK_OR_FACT = re.compile(rf"(?P<mark>{_MARK})|{_FACT_TOKEN}")
_TOKEN_AT_END = re.compile(rf"(?:{_FACT_TOKEN}|{_PLACEBO})\Z")
_LONGEST_TOKEN = max(map(len, FACT_TOKENS + PLACEBO_TOKENS))
_SHORT_PIECE = re.compile(r"[^>]{0,64}>|[^>]{1,64}")  # every closing bracket ends one

_WINDOW = 32  # characters of context the anchored patterns need; slicing keeps the whole pass linear


def inject(text: str, strict: bool = False) -> str:
    """Replace each `a*b`, `a × b`, `a x b` of whole one-digit operands, and a correct `= c` after it, by its fact.

    Replace only where the text says the same afterwards: `12.5*4`, `1/2*6`, `6*9%` and the wrong `6*9=55` stay.
    strict: only where the correct result is present. Idempotent, linear in len(text).
    """
    return inject_counted(text, strict)[0]


def inject_counted(text: str, strict: bool = False) -> tuple[str, Counter[str]]:
    """Return what `inject` returns, and how often each fact token was put in."""
    facts = [*find_facts(text, strict)]
    return _replace(text, facts), Counter(token for _, _, token in facts)


def find_facts(text: str, strict: bool = False) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, token) for each fact written out in text, in order: `text[start:end]` is `a*b` or `a*b = c`.

    To render a condition, write the token in place of the span, or any mark in front of it. A mark is the fact's own
    token or a placebo token directly in front of its span. A marked fact is not found again, and marks are not part of
    the text otherwise: every rendering of a text holds the same facts, so each rendering is idempotent.
    """
    for start, end, token, is_marked in _all_facts(text, strict):
        if not is_marked:
            yield start, end, token


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
            found = _MARK_OR_FACT.match(text, match.end() - len(token[0]))
            is_mark = token[0] in PLACEBO_TOKENS or (found and found.end() == match.end() and found["mark"])
            piece = piece[: token.start()] + ("" if is_mark else str(PRODUCT_OF_TOKEN[token[0]]))
        done += piece[:-_LONGEST_TOKEN], piece[-_LONGEST_TOKEN:]
    return "".join(done)


def evaluate_facts(text: str) -> str:
    """Write each fact as its product, in whatever form: `6*9 = 54`, `<MUL_6_9_54>`, `<PLACEBO>6*9 = 54` are `54`."""
    # where a fact is marked with its token, that stands for it
    facts = ((start, end, "" if text.endswith(token, 0, start) else token) for start, end, token, _ in _all_facts(text))
    return expand(_replace(text, facts))


def _replace(text: str, spans: Iterable[tuple[int, int, str]]) -> str:
    parts, copied = [], 0
    for start, end, new in spans:
        parts += text[copied:start], new
        copied = end
    return "".join(parts) + text[copied:]


def _all_facts(text: str, strict: bool = False) -> Iterator[tuple[int, int, str, bool]]:
    """Yield what `find_facts` yields, the marked facts too, and for each whether it is marked."""
    plain, origin = _without_marks(text)
    position = 0
    while product := _PRODUCT.search(plain, position):
        start, token = origin[product.start()], fact_token(int(product[1]), int(product[5]))
        is_marked = text.endswith((token, *PLACEBO_TOKENS), 0, start)
        holds_a_mark = origin[product.end() - 1] - start != product.end() - 1 - product.start()
        end = None if holds_a_mark else _end_of_fact(plain, product, strict)
        if end is not None:
            yield start, origin[end - 1] + 1, token, is_marked
        # else the second operand may open the next product: 10/2*3*4
        position = end or product.end() - (not is_marked)


def _without_marks(text: str) -> tuple[str, Sequence[int]]:
    """Return the text that the rules look at, and the index in text of each of its characters.

    Marks are left out, and any other fact token is the one character `_FACT`.
    """
    if "<MUL_" not in text and not any(token in text for token in PLACEBO_TOKENS):
        return text, range(len(text))
    parts, origin, copied = [], [], 0
    for match in _MARK_OR_FACT.finditer(text):
        parts += text[copied : match.start()], "" if match["mark"] else _FACT
        origin += range(copied, match.start() + (not match["mark"]))
        copied = match.end()
    return "".join(parts) + text[copied:], [*origin, *range(copied, len(text))]


def _end_of_fact(text: str, match: re.Match[str], strict: bool) -> int | None:
    """Where the text replaced by the fact ends (behind `a*b`, or behind `a*b = c`); None to leave it alone."""
    start, end = match.start(), match.end()
    if _BOUND_BEHIND.match(text, end) or _is_number_sign(text, start - 1) or _is_number_sign(text, end):
        return None
    continues_left = _left_context(text, start)
    if continues_left is None:
        return None
    if not _EQUALS.match(text, end) and not _reads_as_product(text, match):
        return None

    result = _RESULT.match(text, end)
    if result is None or _EXPRESSION_GOES_ON.match(text, result.end()):
        return None if strict else end
    if continues_left == "operator":
        # In 10 + 3*4 = 22 the number is the result of more than this product: it stays, right or wrong.
        return None if strict else end
    product = int(match[1]) * int(match[5])
    if _NUMBER_GOES_ON.match(text, result.end()) or not _equals(result["sign"] + result["number"], product):
        return None
    plainly_written = re.fullmatch(rf"{_GAP}={_GAP}{product}", result[0])
    return result.end() if plainly_written and continues_left == "" else end


def _left_context(text: str, start: int) -> str | None:
    """What the product hangs on: "" nothing, "operator", "equation" (a number and =), or None: leave it alone."""
    if _BOUND_BEFORE.search(text[max(0, start - 2) : start]):
        return None
    i = _skip_gap(text, start)
    if i < start and _NUMBER_BEFORE.search(text[max(0, i - _WINDOW) : i]):
        return None  # "1 3*4" could be a mixed number, "2 000 3*4" a spaced one
    signed = False
    while i and text[i - 1] in "-−–+±":
        signed = True
        sign_at = i - 1
        if _EXPONENT_SIGN_BEFORE.search(text[max(0, sign_at - 2) : sign_at]):
            return None
        i = _skip_gap(text, sign_at)
    before = text[max(0, i - _WINDOW) : i]
    if _TIGHTER_BEFORE.search(before):
        return None
    if signed:
        # "-3*4" is a signed product and "5 - 3*4" a difference, but "- 3*4" opens a list item.
        is_operator = bool(_OPERAND_END.search(before)) or text[start - 1] in "-−–±"
        return "operator" if is_operator else ""
    if before.endswith(("*", "×", "x", "X", "=")):
        left = text[max(0, i - 1 - _WINDOW) : _skip_gap(text, i - 1)]
        behind_number = _NUMBER_BEFORE.search(left) or left.endswith((")", "]", "}", ">"))
        if before[-1] == "=":
            return "equation" if behind_number else ""
        if before[-1] in "xX":
            return "operator" if behind_number else ""
        return "operator" if _OPERAND_END.search(left) else ""
    return ""


def _skip_gap(text: str, i: int) -> int:
    """The index behind the last character in front of i that is not horizontal space."""
    while i and text[i - 1].isspace() and text[i - 1] not in "\r\n":
        i -= 1
    return i


def _is_number_sign(text: str, i: int) -> bool:
    """Digits of other scripts, ½, ² and the like are numbers too."""
    return 0 <= i < len(text) and text[i].isnumeric()


def _reads_as_product(text: str, match: re.Match[str]) -> bool:
    """Whether a product without "=" behind it is meant as one, and not as "an 8×8 board" or "2 x 4 boards"."""
    before = text[max(0, match.start() - _WINDOW) : _skip_gap(text, match.start())]
    if _ARTICLE_BEFORE.search(before):
        return False
    if match[3] not in "xX":
        return True
    if not (match[2] and match[4]):
        return False
    behind = _X_CHAIN.match(text, match.end()).end()
    return bool(_X_GOES_ON.match(text, behind) or (_X_ENDS.match(text, behind) and _CALCULATION_BEFORE.search(before)))


def _equals(written: str, product: int) -> bool:
    return float(written.replace(",", "").replace("−", "-")) == product
