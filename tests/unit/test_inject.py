"""Injection says the same in fewer tokens, and never anything else."""

import json
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain_tokens import expand, inject
from domain_tokens.facts import FACT_TOKENS
from domain_tokens.inject import inject_counted

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6*9", "<MUL_6_9_54>"),
        ("9*6", "<MUL_6_9_54>"),
        ("6 × 9", "<MUL_6_9_54>"),
        ("3 x 4", "<MUL_3_4_12>"),
        ("3 X 4 = 12", "<MUL_3_4_12>"),
        ("3x4=12", "<MUL_3_4_12>"),
        ("3x4 = <<3*4=12>>12", "<MUL_3_4_12> = <<<MUL_3_4_12>>>12"),
        ("6*9=54", "<MUL_6_9_54>"),
        ("6 * 9 = 54 eggs.", "<MUL_6_9_54> eggs."),
        ("6*9=<<6*9=54>>54 eggs", "<MUL_6_9_54>=<<<MUL_6_9_54>>>54 eggs"),
        ("$6*9 = $54", "$<MUL_6_9_54> = $54"),
        ("6*9=54.00", "<MUL_6_9_54>=54.00"),
        ("6*9/2 = 27", "<MUL_6_9_54>/2 = 27"),
        ("2*3*4*5", "<MUL_2_3_6>*<MUL_4_5_20>"),
        ("10/2*3*4", "10/2*<MUL_3_4_12>"),
        ("12.5*4*5", "12.5*<MUL_4_5_20>"),
        ("10+3*4=22", "10+<MUL_3_4_12>=22"),
        ("10*3*4=12", "10*<MUL_3_4_12>=12"),
        ("(10) x 3*4 = 12", "(10) x <MUL_3_4_12> = 12"),
        ("-3*4=-12", "-<MUL_3_4_12>=-12"),
        ("(3*4)^2", "(<MUL_3_4_12>)^2"),
        ("total = 3*4 = 12 apples", "total = <MUL_3_4_12> apples"),
        ("- 3*4 = 12\n- 5*6 = 30", "- <MUL_3_4_12>\n- <MUL_5_6_30>"),
        ("1. 3*4 = 12, 2. 5*6 = 30.", "1. <MUL_3_4_12>, 2. <MUL_5_6_30>."),
        ("**3*4 = 12**", "**<MUL_3_4_12>**"),
        ("**3*4 = 12** apples", "**<MUL_3_4_12>** apples"),
        ("The answer, **3*4**, is", "The answer, **<MUL_3_4_12>**, is"),
        ("That is 7*8 = 56!", "That is <MUL_7_8_56>!"),
        ("2 x 3 x 4 = 24", "<MUL_2_3_6> x 4 = 24"),
        ("so 3 x 4 is 12", "so <MUL_3_4_12> is 12"),
        ("They have 5 + 3 x 4.", "They have 5 + <MUL_3_4_12>."),
        ("the 6*9 = 54 apples", "the <MUL_6_9_54> apples"),
        ("6*9=50+4", "<MUL_6_9_54>=50+4"),
    ],
)
def test_a_product_becomes_its_fact(text, expected):
    assert inject(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        # longer numbers
        "106*9", "6*90", "12.5*4", "7*1.5", "0.5*8", ".5*8", "6*9,000", "1,006*9", "6*0", "6*9 000", "1e3*4", "1e-3*4",
        # wrong or other results
        "6*9=55", "6*9=54.5", "6*9=540", "6*9 = -54", "6*9=54%", "6*9=54 1/2", "6*9=<<6*9=55>>55",
        # divisions, powers, roots, percentages, mixed numbers, factorials
        "1/2*6", "1/2*8", "8/-3*4", "10 divided by 3*4", "2^3*4", "2**-3*4", "3*4^2", "3*4**2", "3*4²", "√9*4",
        "6*9%", "5% 6*9", "6*9 percent", "1 1/2*6", "2 3*4", "3*4 1/2", "3*4!", "3*½", "10÷2*3",
        "3*4**.5", "3*4**+2", "3*4 ** n", "3*4⁻²", "√ 9*4", "\\sqrt 9*4", "10 mod 3*4", "3*4 squared",
        "3 * 4 and 1/2", "10／2*3", "1٫5*4",
        # names, times, lists of numbers, line breaks
        "a3*4", "3*4b", "x_3*4", "10:3*4", "3*4:30", "1,3*4", "I have 3\n* 4 apples",
        # an x that is no product
        "a 2x4 board", "a 4x4 truck", "2 x 4 boards", "a 3 x 4 grid", "a 2 x 4, painted", "3x4", "2 x 3 x 4 boxes",
        "in 4 x 6, 5 x 7, and 8 x 10 sizes", "The room is 3 x 4.", "(3 x 4) board", "2 x 4 is a kind of board",
        "an 8×8 chessboard", "a 3*3 kernel",
        # other digits
        "٣*٤", "3*4٥", "<MUL_6_9_55>",
    ],
)  # fmt: skip
def test_what_is_no_whole_one_digit_product_is_left_alone(text):
    assert inject(text) == text


def test_strict_injects_only_where_the_correct_result_is_present():
    assert inject("6*9 and 6*9=54 and 7*8=<<7*8=56>>56", strict=True) == (
        "6*9 and <MUL_6_9_54> and <MUL_7_8_56>=<<<MUL_7_8_56>>>56"
    )


def test_counts_say_how_often_each_fact_was_put_in():
    text, counts = inject_counted("6*9=54, 9*6 and 2*2")
    assert text == "<MUL_6_9_54>, <MUL_6_9_54> and <MUL_2_2_4>"
    assert counts == {"<MUL_6_9_54>": 2, "<MUL_2_2_4>": 1}


def test_expand_writes_the_product_of_exactly_the_45_facts():
    assert expand("<MUL_6_9_54> and <MUL_9_6_54> and <MUL_6_9_55>") == "54 and <MUL_9_6_54> and <MUL_6_9_55>"
    assert [int(expand(token)) for token in FACT_TOKENS[:10]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 4]


# Texts thick with what injection looks at; plain random text hardly ever holds a product.
ARITHMETIC_TEXT = st.lists(
    st.sampled_from(
        [*"0123456789", *"**××xX==", *"  ...,,%$^/()<>-+\n!:√½", "**", "<<", ">>", "<MUL_2_3_6>", " = ", "a"]
    ),
    max_size=30,
).map("".join)


@given(st.one_of(ARITHMETIC_TEXT, st.text()))
@example("3*4=12 5*6=30")
@example("1*2=2*3=6")
@example("7*8=56,1*2")
@settings(max_examples=2000, deadline=None)
def test_injection_is_idempotent(text):
    once = inject(text)
    assert inject(once) == once


@given(st.text(alphabet=st.characters(blacklist_characters="*×xX")))
def test_text_without_products_comes_back_unchanged(text):
    assert inject(text) == text


# --- random arithmetic: expand(inject(expression)) is the same number --------------------------------------------

_MIXED = re.compile(r"(?<![\d.,])(\d+) (\d+)/(\d+)")
_PERCENT = re.compile(r"(\d[\d,]*(?:\.\d+)?) ?%")
_LITERAL = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")


def value(expression: str) -> Fraction | None:
    """An independent reading of the expression, exact; None for a division by zero."""
    text = _MIXED.sub(r"(\1+\2/\3)", expression)
    text = _PERCENT.sub(r"(\1/100)", text)
    text = text.replace("×", "*").replace("x", "*").replace("^", "**").replace("$", "")
    text = _LITERAL.sub(lambda match: f"F('{match[0].replace(',', '')}')", text)
    try:
        return Fraction(eval(text, {"__builtins__": {}, "F": Fraction}))
    except ZeroDivisionError:
        return None


digit = st.integers(1, 9).map(str)
number = st.one_of(
    digit,
    digit,
    digit,
    st.integers(0, 9999).map(str),
    st.decimals(0, 99, places=2).map(str),
    st.integers(1000, 9_999_999).map(lambda n: f"{n:,}"),
    st.tuples(digit, digit).map("/".join),
    st.tuples(digit, digit, digit).map(lambda n: f"{n[0]} {n[1]}/{n[2]}"),
    st.tuples(digit, st.sampled_from(["%", " %"])).map("".join),
    st.tuples(digit, st.sampled_from(["^", "**", " ^ ", " ** "]), st.sampled_from(["2", "3"])).map("".join),
    st.tuples(
        st.sampled_from(["2", "3"]), st.sampled_from(["^-", "**-", "** -", "**+"]), st.sampled_from(["1", "2"])
    ).map("".join),
)
operator = st.sampled_from(["*", "*", "*", " * ", "×", " × ", "* ", "/", " / ", "+", " + ", "-", " - ", "*-", " x "])


def compound(inner):
    parenthesised = inner.map("({})".format)
    operand = st.one_of(number, number, parenthesised, parenthesised.map("-{}".format))
    chain = st.lists(st.tuples(operator, operand), min_size=1, max_size=4)
    return st.tuples(operand, chain).map(lambda parts: parts[0] + "".join(a + b for a, b in parts[1]))


@given(st.recursive(number, compound, max_leaves=12))
@settings(max_examples=3000, deadline=None)
def test_random_arithmetic_keeps_its_value(expression):
    assert value(expand(inject(expression))) == value(expression), inject(expression)


@given(st.recursive(number, compound, max_leaves=8), st.recursive(number, compound, max_leaves=4))
@settings(max_examples=1000, deadline=None)
def test_both_sides_of_an_equation_keep_their_value(left, right):
    sides = expand(inject(f"{left} = {right}")).split("=")
    assert value(sides[0]) == value(left)
    assert value(sides[-1]) == value(right) or (len(sides) == 1 and value(left) == value(right))


def test_injection_takes_linear_time():
    def seconds(text):
        started = time.perf_counter()
        inject(text)
        return time.perf_counter() - started

    for text in (
        "1" * 10**6,
        "1 " * 500_000,
        "1 x " * 250_000,
        "1*1=" * 250_000,
        "-" * 10**6 + "3*4",
        "3*4=" + "1" * 10**6,
    ):
        half, whole = min(seconds(text[len(text) // 2 :]) for _ in range(3)), min(seconds(text) for _ in range(2))
        assert whole < 3 * half + 0.1, f"{text[:10]}… of {len(text):,} characters: {half:.2f} s, {whole:.2f} s"


@pytest.mark.skipif(not GSM8K.exists(), reason="the real GSM8K lies beside the repository only on some machines")
def test_real_gsm8k_annotations_keep_their_value_and_hold_their_facts():
    annotation = re.compile(r"<<((?:[^<>]|<MUL_\d_\d_\d+>)*)>>")
    fact = re.compile(r"(?<![\d.,/])([1-9])\*([1-9])(?!\d|[.,]\d)")
    facts = injected = 0
    for line in GSM8K.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)["answer"]
        after = annotation.findall(inject(answer))
        before = annotation.findall(answer)
        assert len(before) == len(after)
        for old, new in zip(before, after, strict=True):
            assert value(expand(new).split("=")[0]) == value(old.split("=")[0]), (old, new)
            facts += len(fact.findall(old))
            injected += new.count("<MUL_")
    assert facts == 2390
    assert injected / facts >= 0.97
