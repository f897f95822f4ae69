"""Plain text to text with fact tokens, and back.

A fact token stands for the number a·b, so a product may be replaced only where the text says the same afterwards.
Whatever binds tighter than the multiplication (a longer number, a power, a percentage, a division to its left) rules a
product out, and so does a "3 x 4" that may be a size. Leave what is doubtful alone: a missed fact costs little.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from math import prod

import regex as re  # Python's own misreads possessive quantifiers before 3.11.5, which Debian 12 does not have

from domain_tokens.facts import GAP, MARK_OR_FACT, PLACEBO_TOKENS, expand, fact_token

_FACT = "\ue000"  # one fact token in the text that the rules look at; to them it is a number
_NUMERIC = rf"\d{_FACT}¼-¾²³¹⁰-₉⅐-↉"  # digits of any script, fractions, superscripts
CURRENCY = "$€£¥₹₩₽₱"
PART_IN_WORDS = (  # of a mixed number: 2 and a half, 2 and three-quarters
    r"(?:an?|one|two|three|four|five)[ -]"
    r"(?:half|halves|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth)s?)\b"
)

_PRODUCT = re.compile(rf"([1-9])({GAP})([*×xX])({GAP})([1-9])")
_NUMBER = rf"[0-9{_FACT}]++(?:[.,][0-9{_FACT}]++)*+"
_EXPRESSION = re.compile(  # numbers with operators between them: 5 + 3 x 4 = 17
    rf"(?<![0-9{_FACT}.,]){_NUMBER}[)\]}}]*+"
    rf"(?:{GAP}[-−–+*×xX÷/=]{GAP}[{CURRENCY}(\[{{<+\-−]*+{_NUMBER}[)\]}}]*+)++"
)

# A power, and not the ** that closes bold text: "12**2", "12 ** n", but "**3*4 = 12** apples".
_POWER = rf"(?:{GAP}\^|\*\*{GAP}[(+\-−.√0-9{_FACT}]|\*\*\w|[^\S\r\n]++\*\*{GAP}[\w({_FACT}]|[²³¹⁰⁴-⁹⁺⁻])"
# The number in front is only a part of another: 12 000, 12 1/2, 12 and a half, 12 %, 12 \%, 12 \frac{1}{2}, 12 million.
_GOES_ON = (
    rf"(?:{GAP}(?:[{_NUMERIC}%‰]|\.[0-9]|\\[A-Za-z%]|per\s?cent|pct|hundred|thousand|[a-z]{{1,6}}illion|squared"
    rf"|cubed|factorial|choose|raised|to the\b|-?and[ -](?:[0-9]+/|{PART_IN_WORDS}))|{_POWER})"
)
_OPERAND = rf"(?:[{CURRENCY}.(√0-9{_FACT}]|<<|[A-Za-z]\b)"

# In front of the first operand: only these characters touch it without being part of it, a name or a tighter operator.
_OPENS = re.compile(rf"(?:[\s(\[{{<=+\-−–±*×|`{CURRENCY}]|(?<!>)>|(?<![0-9{_FACT}])[:\"'“‘])\Z")
_NUMBER_BEFORE = re.compile(rf"[%{_NUMERIC}]\Z")
_TIGHTER_BEFORE = re.compile(
    rf"(?:[/÷∕⁄／∶√∛∜%^~}}]|\\[A-Za-z,;:!]+|[0-9){_FACT}][^\S\r\n]++:|[0-9.]e|[\w)\]>{_NUMERIC}]{GAP}\*\*"
    r"|\b(?:divided by|over|per|mod|modulo|rem|div|choose|power|sqrt|log|ln|lg|exp|(?:sin|cos|tan|cot|sec|csc)h?"
    r"|(?:root|square|cube|power|logarithm|factorial|reciprocal|inverse) of))\Z",
    re.IGNORECASE,
)
_OPERATOR_BEFORE = re.compile(
    rf"(?i)(?:[\w)\]}}%>{_NUMERIC}]{GAP}(?:[*×·⋅∗]|>>)|[)\]}}{_NUMERIC}]{GAP}(?:x|<<)|\b(?:plus|minus|times|by))\Z"
)
# "*3*4" is an italic 3, "**3*4" is bold, and "5*3*4" is arithmetic.
_EMPHASIS_BEFORE = re.compile(rf"(?:(?<![\w)\]}}%*{_NUMERIC}])\*|\*{{3,}})\Z")
_ARTICLE_BEFORE = re.compile(r"\b(?:an?|the)\Z", re.IGNORECASE)

# After the second operand: any character but these touches it as part of a number, a name or a tighter operator.
_BOUND_AFTER = re.compile(
    rf"[^\s)\]}}.,;:?…+\-−–*×÷/=<>|`$\\]|[.,:][\w{_NUMERIC}]|[-−–][^\W\d_]|\\(?![)\]])"
    rf"|{GAP}\*(?!\*|{GAP}[-−]?{_OPERAND})|{_GOES_ON}"
)

# Between the product and "=": nothing, the end of its brackets, or a unit of one or two words.
_EQUALS = re.compile(rf"{GAP}(?:(?P<close>[)\]}}$]{{1,3}}){GAP}|(?P<unit>[A-Za-z]++(?: [A-Za-z]++)?){GAP})?=")
# What follows "=": perhaps a currency sign, perhaps a GSM8K annotation <<6*9=54>>, then the number, perhaps in bold or
# in a box of TeX.
_DRESS = rf"[{CURRENCY}*_`(\[{{\\]{{0,6}}+(?:(?:boxed|text(?:bf)?|mathbf|USD?|Rs\.?)[{{ {CURRENCY}]{{0,3}}+)?+"
_RESULT = re.compile(
    rf"==?(?!=){GAP}[{CURRENCY}]?(?:<<[^<>\n]{{0,200}}>>)?{GAP}{_DRESS}"
    rf"(?P<sign>[-−–+]?)[{CURRENCY}]?(?P<number>[0-9]++(?:,[0-9]{{3}})*+(?:\.[0-9]++)?|\.[0-9]++)"
)
_RESULT_GOES_ON = re.compile(
    rf"_|x\b|{GAP}(?:[kKMB]|bn|lakhs?|crores?)\b(?!&)|[eE][-+]?[0-9]|[,.:'’][0-9{_FACT}]|{_GOES_ON}"
)
# The number is only the first operand of an expression: 6*9 = 54 - 4
_RESULT_IS_OPERAND = re.compile(rf"{GAP}(?:[-−–+*×÷/·⋅∗xX]{GAP}[-−]?{GAP}{_OPERAND}|<<{GAP}[0-9{_FACT}])|[^\S\r\n]++>>")

_WINDOW = 20  # characters of context that the anchored patterns need; slicing keeps the whole pass linear


def inject(text: str, strict: bool = False) -> str:
    """Replace each `a*b`, `a × b`, `a x b` of whole one-digit operands, and a correct `= c` after it, by its fact.

    Replace only where the text says the same afterwards: `12.5*4`, `1/2*6`, `6*9%`, the wrong `6*9=55` and the size
    `5×7 feet` stay. strict: only where the correct result is present. Idempotent, linear in len(text).
    """
    return _replace(text, find_facts(text, strict))


def find_facts(text: str, strict: bool = False) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, token) for each fact written out in text, in order: `text[start:end]` is `a*b` or `a*b = c`.

    A condition writes the token in place of the span, or a mark in front of it. A mark is the fact's own
    token or a placebo token directly in front of its span. A marked fact is not found again, and marks are not part of
    the text otherwise: every rendering of a text holds the same facts, so each rendering is idempotent.
    """
    for start, end, token, is_marked in _all_facts(text, strict):
        if not is_marked:
            yield start, end, token


def evaluate_facts(text: str) -> str:
    """Write each fact as its product, in whatever form: `6*9 = 54`, `<MUL_6_9_54>`, `<PLACEBO>6*9 = 54` are `54`."""
    # The token in front of a marked fact already stands for it, so its digits are dropped.
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
    for match in MARK_OR_FACT.finditer(text):
        parts += text[copied : match.start()], "" if match["mark"] else _FACT
        origin += range(copied, match.start() + (not match["mark"]))
        copied = match.end()
    return "".join(parts) + text[copied:], [*origin, *range(copied, len(text))]


def _end_of_fact(text: str, product: re.Match[str], strict: bool) -> int | None:
    """Return where the fact ends, after `a*b` or after `a*b = c`; None if the product is not to be replaced."""
    end = product.end()
    context = None if _BOUND_AFTER.match(text, end) else _left_context(text, product.start())
    if context is None:
        return None
    result = _result(text, product, context)
    if result is not None:
        value = int(product[1]) * int(product[5])
        is_right = result["sign"] in ("", "+") and float(result["number"].replace(",", "")) == value
        if not is_right or _RESULT_GOES_ON.match(text, result.end()):
            return None
        is_bare = text[end : result.start()].isspace() or result.start() == end
        return result.end() if is_bare and result[0][1:].strip() == str(value) else end
    return end if context != "article" and not strict and _reads_as_product(text, product) else None


def _result(text: str, product: re.Match[str], context: str) -> re.Match[str] | None:
    """Return the number that the text gives as the product's result, right or wrong; None if it gives none.

    In 10 + 3*4 = 22, in 2*(3*4) = 24 and in 6*9 = 50 + 4 the number is not the result of this product.
    """
    # The pattern looks for its "=" in all the text it is given: the whole rest would be too much, for every product.
    equals = _EQUALS.match(text, product.end(), product.end() + 3 * _WINDOW)
    if equals is None or context == "operator":
        return None
    if equals["close"]:
        opened = max(0, product.start() - len(equals["close"]))
        is_opened_here = not text[opened : product.start()].strip("([{$")
        if not is_opened_here or _left_context(text, opened) in ("operator", None):
            return None
    result = _RESULT.match(text, equals.end() - 1)
    return None if result is None or _RESULT_IS_OPERAND.match(text, result.end()) else result


def _left_context(text: str, start: int) -> str | None:
    """Return what the product hangs on: an "operator", an "article" or nothing, ""; None to leave it alone."""
    if start and not _OPENS.search(text[max(0, start - 2) : start]):
        return None
    i = _skip_gap(text, start)
    if i < start and _NUMBER_BEFORE.search(text[max(0, i - 1) : i]):
        return None  # "1 3*4" could be a mixed number, "2 000 3*4" a spaced one
    unsigned = i
    while i and text[i - 1] in "-−–+±":
        i = _skip_gap(text, i - 1)
    before = text[max(0, i - _WINDOW) : i]
    if _TIGHTER_BEFORE.search(before) or (i == start and _EMPHASIS_BEFORE.search(before)):
        return None
    is_list_item = before[-1:] in "\r\n" and text[start - 1].isspace()
    if (i < unsigned and not is_list_item) or _OPERATOR_BEFORE.search(before):
        return "operator"
    return "article" if _ARTICLE_BEFORE.search(before) else ""


def _skip_gap(text: str, i: int) -> int:
    """Return the index after the last character in front of i that is no horizontal space and no currency sign."""
    while i and (text[i - 1] in CURRENCY + "\\" or (text[i - 1].isspace() and text[i - 1] not in "\r\n")):
        i -= 1
    return i


def _reads_as_product(text: str, product: re.Match[str]) -> bool:
    """Return whether a product without its result is meant as one, and not as a size or as two numbers ("5* 3")."""
    _, gap, sign, other_gap, _ = product.groups()
    if bool(gap) != bool(other_gap) or (sign in "xX" and not gap):
        return False
    return sign == "*" or bisect_right(_calculations(text), product.start()) % 2 == 1


@lru_cache(maxsize=1)
def _calculations(text: str) -> list[int]:
    """Return start, end, start, end, … of the expressions in which × and x mean times."""
    if _PRODUCT.fullmatch(text.strip()):
        return [0, len(text)]
    # A product with its result counts in digits as it does as a token; otherwise injection would make a calculation.
    products = _PRODUCT.finditer(text, overlapped=True)
    stated = [product.start() for product in products if _end_of_fact(text, product, strict=True)]
    return [
        bound
        for match in _EXPRESSION.finditer(text)
        if bisect_left(stated, match.start()) < bisect_left(stated, match.end()) or _is_calculation(match[0])
        for bound in match.span()
    ]


def _is_calculation(expression: str) -> bool:
    """Return whether × and x mean times in it: it has an operator that no size has, or an equation that comes out."""
    if any(sign in expression for sign in ("*", "÷", _FACT)):
        return True
    sides = [[term.strip(f" ()[]{{}}{CURRENCY}") for term in side.split("+")] for side in expression.split("=")]
    if any(len(terms) > 1 and any(re.fullmatch(_NUMBER, term) for term in terms) for terms in sides):
        return True  # 5 + 3 x 4, and not 2 x 4 + 2 x 6
    return any(left is not None and left == right for left, right in pairwise(map(_value, sides)))


def _value(terms: list[str]) -> float | None:
    """Return the sum of products of plain numbers; None if a term is anything else."""
    try:
        return sum(prod(float(factor.replace(",", "")) for factor in re.split("[×xX]", term)) for term in terms)
    except ValueError:
        return None
