"""Reading the answer out of a reply, and comparing it with the reference. Text only; no model, no files.

Two rules hold throughout. A reply is read in one form, with each fact as its product, so that `6*9=54`, `<MUL_6_9_54>`
and `<MUL_6_9_54>6*9=54` are the same answer. And a number is read whole or not at all: `_RUN` takes everything that
belongs to it, and only if `_STATED` or `_RUNNING` accepts all of that is there an answer.
"""

import unicodedata
from fractions import Fraction

import regex as re  # Python's own misreads possessive quantifiers before 3.11.5, which Debian 12 does not have

from domain_tokens.inject import CURRENCY, PART_IN_WORDS, evaluate_facts
from domain_tokens.prompt import cut_reply

# Other spellings of the same characters: full-width forms, dashes, spaces, apostrophes and slashes.
_SPELLINGS = str.maketrans(
    {chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)}
    | dict.fromkeys("‐‑‒–—―−﹘﹣", "-")
    | dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f", " ")
    | {"’": "'", "⁄": "/", "∕": "/"}
)
_TEX_SPACE = re.compile(r"\\[,;: ]|\\!|(?<=[0-9])\{,\}")
_GROUP = r"\{(?:[^{}\n]|\{[^{}\n]*\})*\}"  # of TeX
_TEX_FRACTION = re.compile(r"\\[dtc]?frac *(?:\{ *([0-9]+) *\}|([0-9])) *(?:\{ *([0-9]+) *\}|([0-9]))")
_FRACTION_SIGN = re.compile("[¼-¾⅐-⅞↉]")

# A minus is a sign only directly in front of its number and not after an operand: "10-5" ends in 5, "- 5" is an item.
_SIGN = r"(?:(?<![\w\p{No})\]%])-)?"
_LEAD = rf"(?:{_SIGN}[{CURRENCY}]?|[{CURRENCY}]{_SIGN})"
# A group of three in front of a hyphen is a number of its own: "12 200-kilobyte videos".
_DIGITS = r"(?:[0-9]{1,3}(?: [0-9]{3}(?![0-9]|-[A-Za-z]))++|(?<![\w\p{No}.])\.[0-9]++|[0-9]++)(?:[.,'_:][0-9]++)*+"
_RUN = (
    rf"{_LEAD}(?:0[xXbBoO][0-9a-fA-F]++|{_DIGITS}(?:(?: {{1,2}}[0-9]{{1,2}}| and [0-9]++)(?= ?/ ?[0-9]))?+"
    rf"(?:(?:[eE][-+]?| ?/ ?[{CURRENCY}]?){_DIGITS})*+)"
)
# What turns the run in front into another number: 10^3, 10², 1.5 × 10^3, 2 and a half, 2-1/2, 2√3, 2\sqrt{3}.
_POWER = rf"(?: ?\^ ?(?:{_GROUP}|(?=[({{]* ?-?\.?\w))| ?\*\* ?(?=[(\-]*[0-9])|[⁰-⁹²³¹])"
_MORE = (
    rf"(?:(?:{_POWER}|[\d₀-₉√π]| ?(?:[×x*·]|\\times|\\cdot) ?10{_POWER}|[- ]and[- ]{PART_IN_WORDS}"
    r"|-[0-9]{1,2}/(?=[0-9])|\.?\\(?:[dtc]?frac|sqrt|pi|overline|bar|dot)\b)[({]* ?-?[0-9.]*+)"
)
_NUMBER = rf"(?P<run>{_RUN})(?P<more>{_MORE})?+"

# In running text a comma groups thousands or stands between numbers. Where an answer is stated there is one number, and
# commas in it say nothing, as in lm-evaluation-harness.
_GROUPS = r"[0-9]{1,3}(?:[ '_][0-9]{3})+"


def _readable(integer: str) -> re.Pattern[str]:
    decimal = rf"(?:(?:{integer})(?:\.[0-9]+)?|\.[0-9]+)"
    return re.compile(
        rf"{_LEAD}(?:(?P<whole>{integer})(?: {{1,2}}| and )(?P<part>[0-9]{{1,2}} ?/ ?[0-9]+)"
        rf"|(?P<number>{decimal}(?:[eE][-+]?[0-9]{{1,2}}| ?/ ?[{CURRENCY}]?{decimal})?))"
    )


_STATED = _readable(rf"{_GROUPS}|(?!0+,)[0-9]+(?:,[0-9]+)*")
_RUNNING = _readable(rf"{_GROUPS}|(?!0+,)[0-9]{{1,3}}(?:,[0-9]{{3}})+|[0-9]+")

# "#### 12*9 = 108" is answered with 108, and so are "#### 12*9=<<12*9=108>>108", "12 \times 9 = \boxed{108}" and
# "12 apples * 9 = 108 apples", and "6*9 = 5*11 = 55" with 55.
_TERM = rf"[(\[]{{0,3}}+{_LEAD}{_DIGITS}(?: [0-9]++(?=/)|\^\{{?[0-9]++\}}?|[²³])?+[)\]$]*+\s*"
_UNIT = r"(?:(?!(?:and|or|but|so|is|if|x)\b)[A-Za-z]++\s*){0,2}"
_SIGNS = r"(?:[-+*×x÷/·⋅]|\\(?:times|cdot|div|\*))\s*"
_MARKUP = rf"""[\s*_:"'“‘`{CURRENCY}\\(\[{{]*?(?:\\?boxed\{{|USD? ?)?"""  # "The answer is: **$18**", "\boxed{18}"
_SIDE = rf"(?:(?:{_TERM}{_UNIT}{_SIGNS})++{_TERM}{_UNIT}|{_TERM})(?<!\n)==?\s*(?:<<[^<>\n]*+>>)?"
_IS_LAST = rf"(?={_MARKUP}{_LEAD}\.?[0-9])(?!{_TERM}{_SIGNS}{_TERM})"
_CALCULATION = rf"(?:(?:{_SIDE})++{_IS_LAST}{_MARKUP})?"
_AFTER_HASHES = re.compile(rf"####\s*{_NUMBER}")
_AFTER_HASHES_LENIENT = re.compile(rf"####\s*{_CALCULATION}{_NUMBER}")
_AFTER_PHRASE = re.compile(rf"\bthe (?:final )?answer is{_MARKUP}{_CALCULATION}{_NUMBER}", re.IGNORECASE)
_AFTER_ANNOTATION = re.compile(rf"<<[^<>\n]*+>>\s*{_NUMBER}")
_ANYWHERE = re.compile(
    rf"\^ ?(?:{_GROUP}|[({{]*-?[0-9.,]+)|<su[bp]>[^<\n]*"  # an exponent is no answer: "54 cm^2"
    r"|(?:[0-9]++,){2,}(?=[0-9]{1,2}(?![0-9]|,[0-9]))"  # "1,2,3" ends in 3
    rf"|(?P<tex>(?:√ ?|\\(?:[dtc]?frac|sqrt|binom) *(?:\[[^\[\]\n]*\])? *)(?:{_GROUP}|[(]*[0-9.]++)(?: *{_GROUP})?)"
    rf"|{_NUMBER}"
)

_LONGEST_NUMBER = 300  # digits; anything longer is a repetition, and int() refuses far longer ones


def extract_answer(text: str, strict: bool = False) -> str | None:
    """Return the number that a reply answers with, without separators and currency signs, or None.

    strict: the number after the first `####`, as lm-evaluation-harness's `strict-match` (tasks/gsm8k).
    Otherwise that number, else the one after the last "The answer is", else the last number of the reply. If that
    number cannot be read whole (`12:30`, `10^3`, `2√3`), there is no answer.
    Facts count as their product. Units do not count (`54 cm`, `25%`, `4 million`, as in GSM8K's own answers), nor does
    what follows the next `User:` line.
    """
    text = _respell(evaluate_facts(cut_reply(text)))
    stated = [*(_AFTER_HASHES if strict else _AFTER_HASHES_LENIENT).finditer(text)]
    if stated or strict:
        return next((answer for match in stated if (answer := _read(match, _STATED))), None)
    if phrases := [*_AFTER_PHRASE.finditer(text)]:
        return _read(phrases[-1], _STATED)
    numbers = [match for match in _ANYWHERE.finditer(text) if match["run"] or match["tex"]]
    return _read(numbers[-1], _RUNNING) if numbers else None


def is_correct(reply: str, reference: str, strict: bool = False) -> bool:
    """Return whether the reply's answer equals the reference as a number.

    reference: a number or a GSM8K answer that ends in `#### N`. Raise ValueError if it holds no number.
    """
    expected = _value(extract_answer(str(reference)))
    if expected is None:
        raise ValueError(f"the reference {str(reference)[-80:]!r} holds no number that can be read whole")
    return _value(extract_answer(reply, strict)) == expected


def line_result(line: str) -> str | None:
    """Return the number that a line of a solution comes to: the one after its last annotation `<<6*9=54>>54`.

    Without annotations, the number that `extract_answer` reads. Facts count as their product. None if there is no such
    number, or if it has no value (`5/0`).
    """
    text = _respell(evaluate_facts(line))
    annotated = [*_AFTER_ANNOTATION.finditer(text)]
    number = _read(annotated[-1], _RUNNING) if annotated else extract_answer(text)
    return None if _value(number) is None else number


def _respell(text: str) -> str:
    """Write each number that has several spellings in one: `−5` as `-5`, `1½` and `1\\frac{1}{2}` as `1 1/2`."""

    def fraction(match: re.Match[str]) -> str:
        numbers = [number for number in match.groups() if number] or unicodedata.normalize("NFKC", match[0]).split("⁄")
        is_mixed = match.string[: match.start()][-1:].isdigit()
        return " " * is_mixed + "/".join(numbers)

    text = text.translate(_SPELLINGS)
    text = _TEX_SPACE.sub(lambda match: {"{,}": ",", r"\!": ""}.get(match[0], " "), text)
    return _TEX_FRACTION.sub(fraction, _FRACTION_SIGN.sub(fraction, text))


def _read(match: re.Match[str], readable: re.Pattern[str]) -> str | None:
    number = None if match["more"] else readable.fullmatch(match["run"] or "")
    if not number:
        return None
    sign = "-" if re.match(rf"[{CURRENCY}]?-", number[0]) else ""
    whole, rest = (
        "" if part is None else re.sub(rf"[ ,'_{CURRENCY}]", "", part)
        for part in (number["whole"], number["part"] or number["number"])
    )
    return f"{sign}{whole} {rest}" if whole else sign + rest


def _value(number: str | None) -> Fraction | None:
    """Return an extracted answer as an exact number; None for none, a division by zero or an endless number."""
    if number is None or len(number) > _LONGEST_NUMBER:
        return None
    sign = -1 if number.startswith("-") else 1
    whole, _, rest = number.lstrip("-").rpartition(" ")
    numerator, _, denominator = rest.partition("/")
    try:
        return sign * (Fraction(whole or 0) + Fraction(numerator) / Fraction(denominator or 1))
    except ZeroDivisionError:
        return None
