"""An answer is read as a whole number or not at all, and as the same number in every condition."""

import pytest
from conftest import SHARED, read_jsonl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from renderings import RENDERINGS, render

from domain_tokens import extract_answer, is_correct
from domain_tokens.answers import line_result


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("#### 72", "72"),
        ("#### 1,234", "1234"),
        ("#### $18", "18"),
        ("#### -$5", "-5"),
        ("#### $-5", "-5"),
        ("#### 18.00", "18.00"),
        ("####18", "18"),
        ("#### 3/4", "3/4"),
        ("#### 1 1/2", "1 1/2"),
        ("#### <MUL_6_9_54>", "54"),
        ("6*9=<<6*9=54>>54\n#### 54\nUser: What is 9 times 8?\nAssistant: 72", "54"),
        ("The total is $1,234", "1234"),
        ("The answer is 1,234", "1234"),
        ("The answer is: **$18**, not 20.", "18"),
        ("The answer is 7. Or the answer is 8, of 9", "8"),
        ("The answer is clear: 5 of 6", "6"),
        (" 54.\nUser: What is 9 times 8?", "54"),
        ("54, etc...", "54"),
        ("It takes 10-5 = 5 days", "5"),
        ("It went from 3 to -5.", "-5"),
        ("10-5", "5"),
        ("10 - 5", "5"),
        ("Answer:\n- 54", "54"),
        ("The area is 54 cm^2.", "54"),
        ("The volume is 54 cm^{12}.", "54"),
        ("54 m^-2", "54"),
        ("7^2 = 49", "49"),
        ("It is 9/4.5", "9/4.5"),
        ("#### 9/4.5", "9/4.5"),
        ("#### 12345,678", "12345678"),
        ("The answer is 1,2345.", "12345"),
        ("They are 1,2,3", "3"),
        ("The answer is \\boxed{18}, not 20", "18"),
        ("The answer is `18`, not 20", "18"),
        ("The answer is 6*9 = 54, not 20", "54"),
        ("#### 6*9 = 54", "54"),
        ("#### 12*9 = 108", "108"),
        ("The answer is (12*9) = 100 + 8 = <<100+8=108>>108.", "108"),
        ("The numbers 1,2,3, and 5", "5"),
        ("They are 1,2,3,4444", None),
        (".5 of it", ".5"),
        ("12 eggs, 1,234 hens.", "1234"),
        ("no number...", None),
        ("", None),
        ("<MUL_6_9_54>", "54"),
    ],
)
def test_extracts_the_answer(reply, expected):
    assert extract_answer(reply) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("#### 54", "54"),
        ("#### 5 then #### 6", "5"),
        ("The answer is 54", None),
        ("54", None),
        ("#### none", None),
        ("#### 1,2345", "12345"),
        ("#### 1.2.3", None),
        ("#### 1.2.3\n#### 4", "4"),
        ("#### 12*9 = 108", "12"),
    ],
)
def test_strict_takes_only_what_follows_the_hashes(reply, expected):
    assert extract_answer(reply, strict=True) == expected


@pytest.mark.parametrize(
    ("reply", "reference", "correct"),
    [
        ("#### 1,234", "1234", True),
        ("#### $18", "18", True),
        ("#### 18.00", "18", True),
        ("#### -5", "-5", True),
        ("#### 5", "-5", False),
        ("#### 3/4", "3/4", True),
        ("#### 3/4", "0.75", True),
        ("#### 3/4", "3", False),
        ("#### 3/4", "4", False),
        ("#### 1 1/2", "1.5", True),
        ("#### 1/0", "1", False),
        ("#### 1,2345", "1", False),
        ("#### 18.00.5", "18", False),
        ("So 9/4.5", "5", False),
        ("So 9/4.5", "2", True),
        ("#### 1e3", "1000", True),
        ("#### 1½", "1.5", True),
        ("1.5e-3", "0.0015", True),
        ("#### <MUL_6_9_54>", "54", True),
        ("no idea", "54", False),
        ("72", "48/2 = <<48/2=24>>24\n#### 72", True),
        ("#### " + "9" * 5000, "9", False),
    ],
)
def test_compares_as_numbers(reply, reference, correct):
    assert is_correct(reply, reference) is correct


def test_a_right_number_without_hashes_is_right_only_in_the_lenient_score():
    assert is_correct("It is 54.", "54")
    assert not is_correct("It is 54.", "54", strict=True)


# Each is one number, and in any other reading half of one.
WHOLE_OR_NOTHING = {
    "1e3": "1e3", "1.5e-3": "1.5e-3", "2E6": "2E6", "1e3.5": None, "1e400": None,
    "1 234": "1234", "1\u00a0234": "1234", "1\u2009234": "1234", "1\u202f234": "1234", "1 234 567.50": "1234567.50",
    "1'234": "1234", "1’234": "1234", "1_234": "1234", "1'2": None, "1{,}234": "1234", "1\\,234": "1234",
    "1，234": "1234", "５４": "54", "1٤": None,
    "–5": "-5", "−5": "-5", "‐5": "-5", "‑5": "-5", "‒5": "-5", "—5": "-5", "－5": "-5", "-½": "-1/2",
    "½": "1/2", "1½": "1 1/2", "1 ½": "1 1/2", "2⅓": "2 1/3", "1⁄2": "1/2", "1 1⁄2": "1 1/2", "2 and 1/2": "2 1/2",
    "2 and a half": None, "3 / 4": "3/4", "3/ 4": "3/4", "3/4/5": None, "12/05/2024": None, "650 000/2": "650000/2",
    "\\frac{3}{4}": "3/4", "\\dfrac34": "3/4", "-\\frac{3}{4}": "-3/4", "1\\frac{1}{2}": "1 1/2",
    "2\\sqrt{3}": None, "2√3": None, "2π": None, "3\\pi": None, "0.\\overline{3}": None,
    "2 and three quarters": None, "2 and two-thirds": None, "2 and a fifth": None, "2-and-a-half": None, "2-1/2": None,
    "10^-3": None, "10 ^ 3": None, "1.5 × 10^{-3}": None, "1.2 x 10 ** 3": None, "2^{ 10}": None, "2^{1+1}": None,
    "10^3": None, "10^{3}": None, "10²": None, "10**3": None, "1.5 × 10^3": None, "1.5 x 10³": None, "2*10^3": None,
    "12:30": None, "3:4": None, "1.2.3": None, "0,5": None, "1.234.567": None, "1.234,56": None, "5'10\"": None,
    "0x1F": None,
    "5%": "5", "₹54": "54", "¥54": "54", "54 cm<sup>2</sup>": "54",
    "54 cm²": "54", "54 cm^2": "54", "4 million": "4", "54!": "54", "$1,234.50": "1234.50",
}  # fmt: skip


@pytest.mark.parametrize(
    "form", ["#### {}", "#### {}, not 7", "The answer is {}.", "The answer is {}, not 7", "So {}", "7 or {}."]
)
@pytest.mark.parametrize(("written", "expected"), WHOLE_OR_NOTHING.items())
def test_a_number_is_read_whole_or_not_at_all(form, written, expected):
    reply = form.format(written)
    assert extract_answer(reply) == expected
    if form.startswith("####"):
        assert extract_answer(reply, strict=True) == expected


@pytest.mark.parametrize("form", ["#### {}", "The answer is {}.", "So {}", "7 or {}."])
@pytest.mark.parametrize("written", [
    "\\frac{\\pi}{4}", "\\frac{\\sqrt{3}}{2}", "\\sqrt{3}", "\\sqrt[3]5", "√3", "√ 3", "\\sqrt{144}", "√16",
    "\\sqrt[3]{125}", "\\frac{54}{x}", "\\frac{10.5}{2}", "\\frac{12x}{25}", "\\frac{6 \\times 9}{2}",
])  # fmt: skip
def test_the_digits_of_a_root_or_a_formula_are_no_answer(form, written):
    assert extract_answer(form.format(written)) is None
    assert extract_answer(form.format(written), strict=True) is None


@pytest.mark.parametrize("written", [number for number, expected in WHOLE_OR_NOTHING.items() if expected is None])
def test_a_reference_that_cannot_be_read_whole_is_an_error(written):
    with pytest.raises(ValueError, match="no number that can be read whole"):
        is_correct("54", f"#### {written}")


@pytest.mark.parametrize(
    ("calculation", "expected"),
    [
        ("12 * 9 = **108**", "108"),
        ("12 \\times 9 = 108", "108"),
        ("$12 \\cdot 9 = 108$", "108"),
        ("12 \\* 9 = \\boxed{108}", "108"),
        ("12·9 == 108", "108"),
        ("$12*9$ = 108", "108"),
        ("5 apples + 3 apples = 8 apples", "8"),
        ("6*9 blue eggs = 54 blue eggs", "54"),
        ("6*9 = 6*10 - 6 = 54", "54"),
        ("5^2 + 3 = 28", "28"),
        ("6*9 = US$55", "55"),
        ("6*9 = 5*11 = 55", "55"),
        ("12 = 10 + 2", "12"),
        ("12 eggs, so y = 3", "12"),
        ("12\n= 3", "12"),
    ],
)
def test_a_stated_calculation_is_answered_with_its_last_side(calculation, expected):
    for form in ("#### {}", "The answer is {}.", "The answer is: **{}**"):
        assert extract_answer(form.format(calculation)) == expected


@pytest.mark.parametrize(
    ("reply", "expected"), [("#### 5 100-watt bulbs", "5"), ("5 100-watt bulbs", "100"), ("#### 5 100 watt", "5100")]
)
def test_a_number_in_front_of_a_hyphen_is_no_group_of_thousands(reply, expected):
    assert extract_answer(reply) == expected


@pytest.mark.parametrize("number", ["12,50", "1,2345", "1,00,000"])
def test_commas_group_thousands_or_say_nothing_where_one_number_is_stated(number):
    assert extract_answer(f"#### {number}", strict=True) == number.replace(",", "")
    assert extract_answer(f"It costs {number}") is None


def test_no_number_begins_with_zeros_and_a_comma():
    assert extract_answer("So 0,125") is None
    assert extract_answer("#### 0,125") is None


# --- one reply, one verdict: in every condition --------------------------------------------------------------------

CALCULATIONS = [
    "#### {a}*{b}=<<{a}*{b}={c}>>{c}", "#### {a}*{b} apples = {c}", "#### {a}*{b} = {c} apples",
    "#### {a} × {b} = ${c}", "#### {a}*{b}", "#### {a}*{b} apples", "#### ({a}*{b}) = {c}",
    "The answer is {a}*{b}=<<{a}*{b}={c}>>{c}.", "The answer is ({a}*{b}) = {c}", "The answer is {a}*{b}.",
    "The answer is: **{a}*{b} = {c}**", "\\boxed{{{a}*{b}}}", "They have {a} * {b} = {c}", "They have {a}*{b}",
    "So {a} x {b} = {c}.", "#### {a} x {b} = <<{a}x{b}={c}>>{c}", "The answer is {a} x {b} eggs = **{c}** eggs",
]  # fmt: skip
OWN_ANSWERS = [
    "Tom has 6*9=<<6*9=54>>54 eggs.\n#### 54",
    "Half of 8 x 4 = 32 is 32/2=<<32/2=16>>16.\n#### 16",
    "It costs $7*8 = $<<7*8=56>>56.\n56 - 20 = <<56-20=36>>36\n#### 36",
]


@pytest.fixture(scope="module", params=["own", "real"])
def answers(request) -> list[str]:
    if request.param == "own":
        return OWN_ANSWERS
    if not SHARED.exists():
        pytest.skip("the real GSM8K lies beside the repository only on some machines")
    return [row["answer"] for split in ("train", "test") for row in read_jsonl(SHARED / f"gsm8k/{split}.jsonl")]


@pytest.mark.parametrize("calculation", CALCULATIONS)
@pytest.mark.parametrize("condition", RENDERINGS)
def test_an_answer_that_ends_in_a_calculation_is_right_in_every_condition(answers, condition, calculation):
    facts = {str(a * b): (a, b) for a in range(1, 10) for b in range(1, 10)}
    tried = 0
    for answer in answers[:: len(answers) // 1000 + 1]:
        solution, reference = answer.split("#### ")
        if reference in facts:
            a, b = facts[reference]
            reply = solution + calculation.format(a=a, b=b, c=reference)
            for form in (reply, render(reply, condition)):
                assert is_correct(form, reference)
                if calculation.startswith("#### {a}"):
                    assert is_correct(form, reference, strict=True)
            tried += 1
    assert tried > len(answers) / 100


@pytest.mark.parametrize("condition", RENDERINGS)
def test_every_gsm8k_answer_is_read_alike_in_every_condition(answers, condition):
    for answer in answers[:: len(answers) // 2000 + 1]:
        solution, reference = answer.split("#### ")
        for reply in (answer, solution, f"{solution}The answer is {reference}"):
            rendered = render(reply, condition)
            assert extract_answer(rendered) == extract_answer(reply)
            assert extract_answer(rendered, strict=True) == extract_answer(reply, strict=True)


@pytest.mark.parametrize(
    ("reply", "correct", "correct_strict"),
    [
        ("#### 6*9 = 55", False, False),
        ("#### 6*9 + 1 = 55", False, True),
        ("#### 2 + 6*9 = 56", False, False),
        ("The answer is 6*8.", False, False),
        ("#### <PLACEBO>54", True, True),
        ("#### <|padding_0|>6*9=54", True, True),
        ("#### <MUL_6_9_54>6*9", True, True),
        ("#### <MUL_7_8_56>6*9", False, False),
        ("#### 6*9 = **55**", False, False),
        ("#### (6*9) = 55", False, False),
        ("#### $6*9$ = $55$", False, False),
        ("#### 6*9 == 55", False, False),
        ("#### 6*9 = \\boxed{55}", False, False),
        ("#### 6*9 eggs = 55 eggs", False, False),
        ("#### 6*9 = ₹55", False, False),
        ("#### 6*9 = **54**", True, True),
        ("#### (6*9) = US$54", True, False),
        ("#### 6*9 eggs = 54 eggs", True, True),
    ],
)
def test_a_wrong_calculation_stays_wrong_in_every_condition(reply, correct, correct_strict):
    for form in (reply, *(render(reply, condition) for condition in RENDERINGS)):
        assert is_correct(form, "54") is correct
        assert is_correct(form, "54", strict=True) is correct_strict


PIECES = [
    *"0123456789", *" .,/$-#\n%=*x×+()½", "####", "#### ", "The answer is ", " = ", "6*9", "6*9=54", "2*3", "3 x 4",
    "=12", " x ", "×", "(", "**", " apples", "3x4=12", "3 x 4 = 12",
    "<<", ">>", "1 1/2", "^2", "e3", "User:", "<|endoftext|>", "<MUL_6_9_54>", "<MUL_2_3_6>", "<PLACEBO>",
    "<|padding_0|>",
]  # fmt: skip
NUMBERS = st.sampled_from([*"123456789", "1,234", "1.5", "1/2", "6*9", "3*4=12", "10", "54"])
REPLIES = st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.builds(
    lambda form, a, b, c: form.format(a=a, b=b, c=c), st.sampled_from(CALCULATIONS), NUMBERS, NUMBERS, NUMBERS
)


@pytest.mark.parametrize("condition", RENDERINGS)
@given(REPLIES, REPLIES)
@settings(max_examples=500, deadline=None)
@example("3 x 4", "\nUser: 5")  # of the whole text only the first line is the reply
@example("1*2=2*3=6", "")
@example("#### 3 x 4 = <<3x4=12>>12 - 2 = 10", "")
@example("#### 3 × 4 + (3×4=12)", "")
@example("The answer is 8×7 = 8 x 3 = <<8 x 3=24>>", "24.")
def test_any_reply_is_read_alike_in_every_condition(condition, first, second):
    """What is read alike is judged alike, whatever the reference."""
    reply = first + second
    rendered = render(reply, condition)
    assert extract_answer(rendered) == extract_answer(reply)
    assert extract_answer(rendered, strict=True) == extract_answer(reply, strict=True)


def test_a_reference_without_a_number_is_an_error():
    with pytest.raises(ValueError, match="no number"):
        is_correct("54", "many")


@given(st.text(alphabet="0123456789 .,/$-−#abc\n<MUL_6_9_54>%User:", max_size=40))
def test_extraction_never_raises_and_agrees_with_itself(text):
    answer = extract_answer(text)
    if answer is not None:
        assert extract_answer(answer) == answer
    is_correct(text, "1")


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("He runs 9*60=<<9*60=540>>540 meters, 3 times", "540"),
        ("The chance is 5/0 of it", None),
        ("It is 2<<5/0=5/0>>5/0", None),
        ("7" * 301, None),
        ("so 3/4 are left", "3/4"),
        ("nothing", None),
    ],
)
def test_a_line_comes_to_a_number_that_has_a_value(line, number):
    assert line_result(line) == number
