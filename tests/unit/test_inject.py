"""Injection says the same in fewer tokens, and nothing else."""

import re
import time
from fractions import Fraction
from random import Random

import pytest
from conftest import SHARED, read_jsonl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from renderings import RENDERINGS, render

from domain_tokens import expand, inject
from domain_tokens.conditions import CONDITIONS
from domain_tokens.facts import FACT_TOKENS
from domain_tokens.inject import evaluate_facts, find_facts


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
        ("They have 5 + 3 x 4.", "They have 5 + <MUL_3_4_12>."),
        ("12 = 3 x 4", "12 = <MUL_3_4_12>"),
        ("3 x 4 = 2 x 6", "<MUL_3_4_12> = <MUL_2_6_12>"),
        ("6×9 + 1 = 55", "<MUL_6_9_54> + 1 = 55"),
        ("(4 x 5) = <<4*5=20>>20", "(<MUL_4_5_20>) = <<<MUL_4_5_20>>>20"),
        ("8 x 9 x 2 = <<8*9*2=144>>144", "<MUL_8_9_72> x 2 = <<<MUL_8_9_72>*2=144>>144"),
        ("2 x 3*4", "<MUL_2_3_6>*4"),
        ("1. Room 5: 6*9", "1. Room 5: <MUL_6_9_54>"),
        ("| 6*9 | 54 |", "| <MUL_6_9_54> | 54 |"),
        ("$6*9$ and `6*9`", "$<MUL_6_9_54>$ and `<MUL_6_9_54>`"),
        ("1 << 2*3 = 64", "1 << <MUL_2_3_6> = 64"),
        ("6*9 = 54 + n", "<MUL_6_9_54> = 54 + n"),
        ("5 plus 3*4 = 17", "5 plus <MUL_3_4_12> = 17"),
        ("the 6*9 = 54 apples", "the <MUL_6_9_54> apples"),
        ("6*9=50+4", "<MUL_6_9_54>=50+4"),
        ("6*9 = **54**", "<MUL_6_9_54> = **54**"),
        ("(6*9) = $54", "(<MUL_6_9_54>) = $54"),
        ("6*9 eggs = \\boxed{54}", "<MUL_6_9_54> eggs = \\boxed{54}"),
        ("6*9 == 54", "<MUL_6_9_54> == 54"),
        ("2*(3*4) = 24, f(3*4) = 5", "2*(<MUL_3_4_12>) = 24, f(<MUL_3_4_12>) = 5"),
        ("5 x 8 dolls = <<5*8=40>>40 dolls", "<MUL_5_8_40> dolls = <<<MUL_5_8_40>>>40 dolls"),
        ("3 x 4 + (3x4=12)", "<MUL_3_4_12> + (<MUL_3_4_12>)"),
        ("5*7=35 M&Ms", "<MUL_5_7_35> M&Ms"),
    ],
)
def test_a_product_becomes_its_fact(text, expected):
    assert inject(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        # longer numbers
        "106*9", "6*90", "12.5*4", "7*1.5", "0.5*8", ".5*8", "6*9,000", "1,006*9", "6*0", "6*9 000", "1e3*4", "1e-3*4",
        "6*9'000", "6*9’000", "6*9_000", "6*9 .5", "3*4e5", "3*4.Then", "3*4.txt",
        # wrong or other results
        "6*9=55", "6*9=54.5", "6*9=540", "6*9 = -54", "6*9=54%", "6*9=54 1/2", "6*9=<<6*9=55>>55", "6*9 = .5",
        "6*9=54e3", "6*9=54 000", "6*9=54\u00a0000", "6*9=54'000", "6*9=54’000", "6*9=54_000", "6*9=54k", "6*9 = 54½",
        "6*9 = 54 million", "6*9 = 54 and a half", "6*9 = 54 and 1/2", "6*9 = 54 \\%", "6*9 = 54 \\frac12",
        "6*9 = 54 \\times 2", "6*9 = 54²", "6*9 = 54 squared", "6*9 = 54 M", "6*9 = 54 quadrillion", "6*9 = 54 crore",
        "6*9 = 54 and two thirds", "6*9 = **55**", "(6*9) = 55", "$6*9$ = $55$", "6*9 == 55", "6*9 = \\boxed{55}",
        "6*9 eggs = 55 eggs", "6*9 = US$55", "6*9 = ₹55", "6*9 = _55_", "6*9 = (55)", "6*9 blue eggs = 5 boxes",
        # divisions, powers, roots, percentages, mixed numbers, factorials
        "1/2*6", "1/2*8", "8/-3*4", "10 divided by 3*4", "2^3*4", "2**-3*4", "3*4^2", "3*4**2", "3*4²", "√9*4",
        "6*9%", "5% 6*9", "6*9 percent", "1 1/2*6", "2 3*4", "3*4 1/2", "3*4!", "3*½", "10÷2*3",
        "3*4**.5", "3*4**+2", "3*4 ** n", "3*4⁻²", "√ 9*4", "\\sqrt 9*4", "10 mod 3*4", "3*4 squared",
        "3 * 4 and 1/2", "10／2*3", "1٫5*4",
        "12 \\div 2*3", "7 \\bmod 3*2", "7 \\mod 3*2", "7 \\pmod{3}*2", "7 % 3*2", "10/$2*3", "10/\\$2*3", "10 // 2*3",
        "12 : 2*3", "12 over 2*3", "\\frac{1}2*3", "\\sqrt{9}4*5", "log 3*4", "square root of 4*9", "x^ 3*4", "2^2*3",
        "2 to the power of 3*4",
        "~2*3", "~ 2*3", "!2*3", "3*4 cubed", "3*4 to the power of 2", "3*4 and a half",
        "3*4 and three-quarters", "3*4‰", "3*4\\%", "3*4 \\%",
        "3*4\\frac{1}{2}", "3*4^\\circ", "3*4°", "2*3 ^2", "2*3²",
        # names, times, lists of numbers, line breaks, patterns
        "a3*4", "3*4b", "x_3*4", "10:3*4", "3*4:30", "1,3*4", "I have 3\n* 4 apples",
        "f(1,3*4)", "#3*4", "dial *6*9#", "3*4_x", "v1.2*3", "* 5 * 3 *", "5* 3 nights", "5 *3 nights",
        # emphasis
        "*3*4*", "*3*4 apples", "a note *3*4 here*", "see 3*4* below", "***3*4***",
        # an x that is no product, a size, a count of repetitions
        "a 2x4 board", "a 4x4 truck", "2 x 4 boards", "a 3 x 4 grid", "a 2 x 4, painted", "3x4", "2 x 3 x 4 boxes",
        "in 4 x 6, 5 x 7, and 8 x 10 sizes", "The room is 3 x 4.", "(3 x 4) board", "2 x 4 is a kind of board",
        "an 8×8 chessboard", "a 3*3 kernel", "so 3 x 4 is 12",
        "- Squats: 3 x 8", "The rug measures 5×7 feet.", "VGG uses 3×3 convolutions.", "two 2×2 matrices",
        "Each 2 x 4 is 8 feet long.", "The box is 2 x 3 x 4.", "Sizes: 4×6, 5×7 and 8×10", "Do 3-4 x 8.",
        "3 x 8 @ 50 kg", "zoom 8x 4 times", "4×6\n5×7\n8×9", "| 3 x 4 | grid |", "|3×4|5×7|", "Size = 3 x 4",
        "grid=3×3",
        "2 x 4 = 1.5 x 3.5 inches", "Level 1 = 2 x 2", "2 x 4 + 2 x 6 boards", "two 3×3 + one 1×1",
        "3×3 + 1×1 convolutions",
        "5' x 7'", '5*7" photo', "5*7′ room", "a 3*4-inch pipe", "3*4-inch pipes", "[3 x 3]", "Is it 3 x 4?",
        "A is 2 x 3, B is 3 x 2", "2x3 + 4x2 = 0", "x = 2x3", "3x4 = y", "2 x 3 * y",
        # other digits
        "٣*٤", "3*4٥", "３*４", "3*４", "<MUL_6_9_55>",
    ],
)  # fmt: skip
def test_what_is_not_surely_a_product_of_two_digits_is_left_alone(text):
    assert inject(text) == text


def test_strict_injects_only_where_the_correct_result_is_present():
    assert inject("6*9 and 6*9=54 and 7*8=<<7*8=56>>56", strict=True) == (
        "6*9 and <MUL_6_9_54> and <MUL_7_8_56>=<<<MUL_7_8_56>>>56"
    )


def test_counts_say_how_often_each_fact_was_put_in():
    text, counts = CONDITIONS["mul_tokens"].rewrite("6*9=54, 9*6 and 2*2", "<PLACEBO>")
    assert text == "<MUL_6_9_54>, <MUL_6_9_54> and <MUL_2_2_4>"
    assert counts == {"<MUL_6_9_54>": 2, "<MUL_2_2_4>": 1}


def test_each_fact_is_found_with_its_span_and_its_token():
    assert [*find_facts("So 6*9 = 54, 9×6=54.")] == [(3, 11, "<MUL_6_9_54>"), (13, 19, "<MUL_6_9_54>")]
    assert [*find_facts("6*9 and 6*9=54", strict=True)] == [(8, 14, "<MUL_6_9_54>")]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("mul_tokens", "2+<MUL_6_9_54>=56, so <MUL_7_8_56> eggs"),
        ("annotated", "2+<MUL_6_9_54>6*9=56, so <MUL_7_8_56>7 x 8 = 56 eggs"),
        ("placebo", "2+<PLACEBO>6*9=56, so <PLACEBO>7 x 8 = 56 eggs"),
        ("placebo in GPT-2's vocabulary", "2+<|padding_0|>6*9=56, so <|padding_0|>7 x 8 = 56 eggs"),
    ],
)
def test_the_spans_are_enough_to_write_any_condition(condition, expected):
    assert render("2+6*9=56, so 7 x 8 = 56 eggs", condition) == expected


def test_a_marked_fact_is_not_found_again():
    assert [*find_facts("<MUL_6_9_54>6*9=54, 7*8")] == [(20, 23, "<MUL_7_8_56>")]
    assert [*find_facts("<PLACEBO>6*9=54, 7*8")] == [(17, 20, "<MUL_7_8_56>")]
    assert inject("<MUL_6_9_54>6*9=54, 7*8") == "<MUL_6_9_54>6*9=54, <MUL_7_8_56>"
    assert inject("<MUL_7_8_56>6*9=54") == "<MUL_7_8_56>6*9=54", "one number after another"


def test_marks_change_nothing_about_what_is_found_beside_them():
    assert inject("<PLACEBO>1/<PLACEBO>2*3") == "<PLACEBO>1/<PLACEBO>2*3"
    assert inject("10<PLACEBO>6*9") == "10<PLACEBO>6*9"
    assert inject("<MUL_2_3_6>2*3*4*5") == "<MUL_2_3_6>2*3*<MUL_4_5_20>"


def test_expand_writes_the_product_of_exactly_the_45_facts():
    assert expand("<MUL_6_9_54> and <MUL_9_6_54> and <MUL_6_9_55>") == "54 and <MUL_9_6_54> and <MUL_6_9_55>"
    assert [int(expand(token)) for token in FACT_TOKENS[:10]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<MUL_6_9_54>6*9=54", "6*9=54"),
        ("<MUL_6_9_54>9 * 6", "9 * 6"),
        ("<MUL_6_9_54>6 × 9 eggs", "6 × 9 eggs"),
        ("<MUL_6_9_54> 6*9", "54 6*9"),
        ("<MUL_6_9_54>7*8", "547*8"),
        ("<MUL_6_9_54>6*90", "546*90"),
        ("<MUL_6_9_54>+6*9", "54+6*9"),
        ("<PLACEBO>6*9=54 and <|padding_0|>7", "6*9=54 and 7"),
        ("<|padding_1|>6*9", "<|padding_1|>6*9"),
        ("<PLACE<PLACEBO>BO>", ""),
    ],
)
def test_expand_reads_a_mark_as_nothing(text, expected):
    assert expand(text) == expected


@pytest.mark.parametrize(
    "text", ["6*9 = 54 eggs", "<MUL_6_9_54> eggs", "<MUL_6_9_54>6*9 = 54 eggs", "<PLACEBO>6*9 eggs"]
)
def test_a_fact_has_its_value_in_whatever_form_it_is_written(text):
    assert evaluate_facts(text) == "54 eggs"


# Texts thick with what injection looks at; plain random text hardly ever holds a product.
ARITHMETIC_TEXT = st.lists(
    st.sampled_from(
        [*"0123456789", *"**××xX==", *"  ...,,%$^/()<>-+\n!:√½", "**", "<<", ">>", "<MUL_2_3_6>", " = ", "a"]
    )
    | st.sampled_from(
        ["2*3", "3 x 2", "3 x 2 = 6", " apples", "2*3=6", "1*2=2", "<MUL_1_2_2>", "<PLACEBO>", "<|padding_0|>", " + "]
    ),
    max_size=30,
).map("".join)


@given(st.one_of(ARITHMETIC_TEXT, st.text()))
@example("3*4=12 5*6=30")
@example("1*2=2*3=6")
@example("7*8=56,1*2")
@example("3 × 4 = <3×4=12>>12 - 2 = 10")
@settings(max_examples=2000, deadline=None)
def test_injection_is_idempotent(text):
    once = inject(text)
    assert inject(once) == once


@pytest.mark.parametrize("condition", RENDERINGS)
@given(ARITHMETIC_TEXT, st.randoms(use_true_random=False))
@example("1*2=2*3=6", Random(1))
@example("1/<MUL_2_3_6>2*3*4*5", Random(1))
@example("1*<MUL_2_3_6>2*3", Random(1))
@settings(max_examples=1000, deadline=None)
def test_every_rendering_of_a_text_holds_the_same_facts(condition, text, random):
    rendered = render(text, condition)
    assert render(rendered, condition) == rendered
    assert evaluate_facts(rendered) == evaluate_facts(text)
    half = render(text, condition, lambda: random.random() < 0.5)
    assert evaluate_facts(render(half, condition)) == evaluate_facts(half) == evaluate_facts(text)


@given(ARITHMETIC_TEXT.filter(lambda text: "<" not in text))
@settings(max_examples=1000, deadline=None)
def test_a_marked_text_expands_to_the_text(text):
    assert expand(render(text, "annotated")) == text
    assert expand(render(text, "placebo")) == text


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
        started = time.process_time()
        inject(text)
        return time.process_time() - started

    for text in (
        "1" * 10**6,
        "1," * 500_000,
        "1 " * 500_000,
        "1 x " * 25_000,
        "1*1=" * 25_000,
        "1 x 1, " * 60_000,
        "3 x 4 apples " * 30_000,
        "<PLACEBO>1*1 " * 10_000,
        "-" * 10**6 + "3*4",
        "3*4=" + "1" * 10**6,
    ):
        for _ in range(3):  # a busy machine can slow down one measurement
            half, whole = seconds(text[len(text) // 2 :]), seconds(text)
            if whole < 3 * half + 0.1:
                break
        else:
            pytest.fail(f"{text[:10]}… of {len(text):,} characters: {half:.2f} s, {whole:.2f} s")


@pytest.mark.skipif(not SHARED.exists(), reason="the real GSM8K lies beside the repository only on some machines")
@pytest.mark.parametrize(("split", "total"), [("train", 2390), ("test", 464)])
def test_real_gsm8k_annotations_keep_their_value_and_hold_their_facts(split, total):
    annotation = re.compile(r"<<((?:[^<>]|<MUL_\d_\d_\d+>)*)>>")
    fact = re.compile(r"(?<![\d.,/])([1-9])\*([1-9])(?!\d|[.,]\d)")
    facts = injected = 0
    for row in read_jsonl(SHARED / f"gsm8k/{split}.jsonl"):
        after = annotation.findall(inject(row["answer"]))
        before = annotation.findall(row["answer"])
        assert len(before) == len(after)
        for old, new in zip(before, after, strict=True):
            assert value(expand(new).split("=")[0]) == value(old.split("=")[0]), (old, new)
            facts += len(fact.findall(old))
            injected += new.count("<MUL_")
    assert facts == total
    assert injected / facts >= 0.97
