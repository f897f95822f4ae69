"""An answer is read as a number, and as the same number in every condition."""

import pytest
from conftest import SHARED, read_jsonl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from renderings import RENDERINGS, render

from domain_tokens import extract_answer, is_correct


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
        ("It is 9/4.5", "4.5"),
        ("#### 9/4.5", "9"),
        ("#### 12345,678", "12345678"),
        ("The answer is 1,2345.", "12345"),
        ("They are 1,2,3", "3"),
        ("The answer is \\boxed{18}, not 20", "18"),
        ("The answer is `18`, not 20", "18"),
        ("The answer is 6*9 = 54, not 20", "54"),
        ("#### 6*9 = 54", "54"),
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
    ],
)
def test_strict_takes_only_what_stands_behind_the_hashes(reply, expected):
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


# --- one reply, one verdict: in every condition --------------------------------------------------------------------

CALCULATIONS = [
    "#### {a}*{b}=<<{a}*{b}={c}>>{c}", "#### {a}*{b} apples = {c}", "#### {a}*{b} = {c} apples",
    "#### {a} × {b} = ${c}", "#### {a}*{b}", "#### {a}*{b} apples", "#### ({a}*{b}) = {c}",
    "The answer is {a}*{b}=<<{a}*{b}={c}>>{c}.", "The answer is ({a}*{b}) = {c}", "The answer is {a}*{b}.",
    "The answer is: **{a}*{b} = {c}**", "\\boxed{{{a}*{b}}}", "They have {a} * {b} = {c}", "They have {a}*{b}",
    "So {a} x {b} = {c}.",
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
    ],
)
def test_a_wrong_calculation_stays_wrong_in_every_condition(reply, correct, correct_strict):
    for form in (reply, *(render(reply, condition) for condition in RENDERINGS)):
        assert is_correct(form, "54") is correct
        assert is_correct(form, "54", strict=True) is correct_strict


PIECES = [
    *"0123456789", *" .,/$-#\n%=*x×+()½", "####", "#### ", "The answer is ", " = ", "6*9", "6*9=54", "2*3", "3 x 4",
    "=12", "<<", ">>", "1 1/2", "^2", "e3", "User:", "<|endoftext|>", "<MUL_6_9_54>", "<MUL_2_3_6>", "<PLACEBO>",
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
