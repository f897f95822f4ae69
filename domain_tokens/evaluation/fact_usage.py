"""Counts of a model's fact tokens in its replies: how often it wrote each, and how often in correct arithmetic.

A reply shows its arithmetic in GSM8K's annotations, `<<6*9=54>>54`. With a fact token the annotation is
`<<<MUL_6_9_54>+2=56>>56`, or `<<<MUL_6_9_54>>>54` if the token stands for the result too, or
`<<<MUL_6_9_54>6*9=54>>54` in the annotated condition. An annotation is right if both sides of its `=` have the same
value, or, without `=`, if its value is the number written after it.
"""

import ast
import operator
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from domain_tokens.facts import FACT_PATTERN
from domain_tokens.inject import expand

_FACT = rf"(?:{FACT_PATTERN.pattern})"
_ANNOTATION = re.compile(rf"<<((?:[^<>\n]|{_FACT}){{1,200}})>>(?:[$€£]?([-−]?[0-9]+(?:,[0-9]{{3}})*(?:\.[0-9]+)?))?")

_COUNTS = ("written", "in_annotations", "right_in_annotations", "in_correct_replies", "in_wrong_replies")
_OPERATIONS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip


def fact_usage(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the counts of each fact token that occurs in an evaluation's predictions, in the facts' order.

    rows: predictions with `reply` and `correct`. written: all occurrences. in_annotations: occurrences inside <<…>>.
    right_in_annotations: occurrences inside an annotation that is right. in_correct_replies, in_wrong_replies: replies
    that hold the token.
    """
    usage: dict[str, dict[str, int]] = {}
    for row in rows:
        written = FACT_PATTERN.findall(row["reply"])
        counted = [("written", fact) for fact in written]
        counted += [("in_correct_replies" if row["correct"] else "in_wrong_replies", fact) for fact in set(written)]
        for annotation in _ANNOTATION.finditer(row["reply"]):
            facts = FACT_PATTERN.findall(annotation[1])
            counted += [("in_annotations", fact) for fact in facts]
            if facts and _is_right(expand(annotation[1]), annotation[2]):
                counted += [("right_in_annotations", fact) for fact in facts]
        for name, fact in counted:
            usage.setdefault(fact, dict.fromkeys(_COUNTS, 0))[name] += 1
    return dict(sorted(usage.items()))


def _is_right(calculation: str, number_after: str | None) -> bool:
    sides = [_value(side) for side in calculation.split("=")]
    if len(sides) == 1:
        sides.append(None if number_after is None else _value(number_after))
    return sides[0] is not None and all(side == sides[0] for side in sides)


def _value(expression: str) -> Fraction | None:
    """Return the exact value of + - * / and parentheses over plain numbers; None for anything else."""
    plain = re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", expression).translate(str.maketrans("×÷−", "*/-", "$€£"))
    try:
        return _evaluate(ast.parse(plain.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, KeyError):
        return None


def _evaluate(node: ast.AST) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return Fraction(str(node.value))
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_evaluate(node.left), _evaluate(node.right))
    if isinstance(node, ast.UnaryOp):
        return _OPERATIONS[type(node.op)](_evaluate(node.operand))
    raise ValueError(f"{type(node).__name__} is not plain arithmetic")
