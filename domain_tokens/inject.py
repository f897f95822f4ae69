"""Plain text to text with fact tokens, and back.

`inject` may only rewrite a product where the rewritten text still says the same: the fact token stands for the
number a·b, so everything that binds tighter than the multiplication (a longer number, a power, a percentage, a
division to its left) makes a product untouchable. What is doubtful is left alone.
"""

import re
from collections import Counter

from domain_tokens.facts import FACT_PATTERN, FACT_TOKENS, PRODUCT_OF_TOKEN, fact_token

_GAP = r"[^\S\r\n]*"  # a line break ends a product: "3\n* 4" is a number and a list item
_FACT = rf"(?:{FACT_PATTERN.pattern})"
_PRODUCT = re.compile(rf"([1-9])({_GAP})([*×xX])({_GAP})([1-9])")
_NUMBER = rf"(?:[0-9]+(?:,[0-9]{{3}})*(?:\.[0-9]+)?|{_FACT})"

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
_BOUND_BEFORE = re.compile(r"(?:[\w.٫٬√∛∜\\)\]}]|[0-9>][,:'’])\Z")

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
_SHORT_PIECE = re.compile(r"[^>]{0,64}>|[^>]{1,64}")  # every closing bracket ends one
_FACT_AT_END = re.compile(rf"{_FACT}\Z")
_LONGEST_TOKEN = max(map(len, FACT_TOKENS))
_WINDOW = 32  # characters of context the anchored patterns need; slicing keeps the whole pass linear


def expand(text: str) -> str:
    """Write each fact token as its product: `expand("It is <MUL_6_9_54>.") == "It is 54."`

    Idempotent, linear in len(text): a product may complete a further token, `<MUL_<MUL_1_1_1>_1_1>`.
    """
    done: list[str] = []
    for piece in _SHORT_PIECE.findall(text):
        while done and len(piece) < _LONGEST_TOKEN:
            piece = done.pop() + piece
        if match := _FACT_AT_END.search(piece, max(0, len(piece) - _LONGEST_TOKEN)):
            piece = f"{piece[: match.start()]}{PRODUCT_OF_TOKEN[match[0]]}"
        done += piece[:-_LONGEST_TOKEN], piece[-_LONGEST_TOKEN:]
    return "".join(done)


def inject(text: str, strict: bool = False) -> str:
    """Write each `a*b`, `a × b`, `a x b` of whole one-digit operands, and a correct `= c` behind it, as its fact.

    Only where the text still says the same afterwards: `12.5*4`, `1/2*6`, `6*9%` and the wrong `6*9=55` are left
    as they stand. With `strict`, only where the correct result is present. Idempotent, linear in len(text).
    """
    return inject_counted(text, strict)[0]


def inject_counted(text: str, strict: bool = False) -> tuple[str, Counter[str]]:
    """`inject`, and how often each fact token was put in."""
    parts: list[str] = []
    counts: Counter[str] = Counter()
    copied = position = 0
    while match := _PRODUCT.search(text, position):
        end = _end_of_fact(text, match, strict)
        if end is None:
            position = match.end() - 1  # the second operand may open the next product: 10/2*3*4
            continue
        token = fact_token(int(match[1]), int(match[5]))
        counts[token] += 1
        parts += text[copied : match.start()], token
        copied = position = end
    parts.append(text[copied:])
    return "".join(parts), counts


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
    if _NUMBER_GOES_ON.match(text, result.end()) or not _equals(result["sign"] + expand(result["number"]), product):
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
