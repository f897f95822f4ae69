"""Reading the answer out of a reply, and comparing it with the reference. Text only; no model, no files."""

import re
from fractions import Fraction

from domain_tokens.inject import evaluate_facts
from domain_tokens.prompt import cut_reply

# 1,234  18.00  .5  3/4  1 1/2, with sign and currency in either order. A minus is a sign only directly in front of
# its number and not behind an operand ("10-5" ends in 5, "- 5" is a list item), and every match holds a digit
# ("54, etc..." is 54, not "...").
_SIGN = r"(?:(?<![\w)\]%])[-−])?"


def _number(digits: str) -> str:
    fraction = rf"(?:{digits}[ ][0-9]+/[0-9]+|{digits}/{digits})(?!\.?[0-9])"  # "9/4.5" is no fraction and then a 5
    return (
        rf"(?:{_SIGN}[$€£]?|[$€£]{_SIGN})"
        rf"(?:{fraction}|{digits}(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
    )


# In running text a comma groups thousands or stands between numbers. Where an answer is stated there is one number,
# and commas in it say nothing, as in lm-evaluation-harness; what is no number ("1.2.3") has no half that is one.
_GROUPED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = _number(_GROUPED)
_STATED = rf"((?>{_number('[0-9,]*[0-9]')}))(?![.,]*[0-9])"
_MARKUP = r"""[\s*_:"'“‘`$€£\\(\[{]*?(?:\\boxed\{|USD )?"""  # "The answer is: **$18**", "\boxed{18}"
# "12*9 = 108" is answered with 108.
# Of its operands 3/4 is two: a text of many slashes could else be read in more ways than there is time to try.
_OPERAND = rf"(?:{_SIGN}[$€£]?|[$€£]{_SIGN})(?:{_GROUPED}(?:[ ][0-9]+/[0-9]+|\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
_CALCULATION = rf"(?:{_OPERAND}(?:\s*[-−+*×x÷/]\s*{_OPERAND})+\s*=\s*(?={_NUMBER}))?"
_ANY_NUMBER = re.compile(rf"\^[({{]*[-−]?[0-9.,]+|({_NUMBER})")  # an exponent is no answer: "54 cm^2"
_BEHIND_HASHES = re.compile(rf"####\s*{_STATED}")
_BEHIND_HASHES_LENIENT = re.compile(rf"####\s*{_CALCULATION}{_STATED}")
_BEHIND_PHRASE = re.compile(rf"\bthe (?:final )?answer is{_MARKUP}{_CALCULATION}{_STATED}", re.IGNORECASE)

_LONGEST_NUMBER = 300  # digits; anything longer is a repetition, and int() refuses far longer ones


def extract_answer(text: str, strict: bool = False) -> str | None:
    """The number a reply answers with, without commas and currency signs, or None.

    strict: the number behind the first `####`, as lm-evaluation-harness's `strict-match` (tasks/gsm8k).
    Otherwise that number, else the one behind the last "The answer is", else the last number of the reply.
    Facts count as their product, written out, as tokens or both, so that a reply is read alike in every condition. What
    follows the next `User:` line does not count.
    """
    text = evaluate_facts(cut_reply(text))
    if match := (_BEHIND_HASHES if strict else _BEHIND_HASHES_LENIENT).search(text):
        return _plain(match[1])
    if strict:
        return None
    if phrases := _BEHIND_PHRASE.findall(text):
        return _plain(phrases[-1])
    numbers = [number for number in _ANY_NUMBER.findall(text) if number]
    return _plain(numbers[-1]) if numbers else None


def is_correct(reply: str, reference: str, strict: bool = False) -> bool:
    """Whether the reply's answer equals the reference as a number.

    reference: a number or a GSM8K answer that ends in `#### N`. Raises ValueError if it holds no number.
    """
    expected = _value(extract_answer(str(reference)))
    if expected is None:
        raise ValueError(f"the reference {str(reference)[-80:]!r} holds no number")
    return _value(extract_answer(reply, strict)) == expected


def _plain(number: str) -> str:
    sign = "-" if re.match(r"[$€£]?[-−]", number) else ""
    return sign + re.sub(r"^[-−$€£ ]+", "", number).replace(",", "")


def _value(number: str | None) -> Fraction | None:
    """An extracted answer as an exact number; None for none, for a division by zero, for an endless one."""
    if number is None or len(number) > _LONGEST_NUMBER:
        return None
    sign = -1 if number.startswith("-") else 1
    whole, _, fraction = number.lstrip("-").rpartition(" ")
    try:
        return sign * (Fraction(whole or 0) + Fraction(fraction))
    except ZeroDivisionError:
        return None
