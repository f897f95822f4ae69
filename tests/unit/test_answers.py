import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_tokens import extract_answer, inject, is_correct


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


@pytest.mark.parametrize("form", ["The answer is {}.", "#### {}", "So {} apples", "They have {}"])
@pytest.mark.parametrize("product", ["6*9 = 54", "6*9=54", "6 × 9 = $54", "2 + 6*9 = 56"])
def test_a_reply_counts_the_same_with_and_without_facts(form, product):
    reply, reference = form.format(product), product[-2:]
    assert inject(reply) != reply
    assert is_correct(reply, reference)
    assert is_correct(inject(reply), reference)


def test_a_reference_without_a_number_is_an_error():
    with pytest.raises(ValueError, match="no number"):
        is_correct("54", "many")


@given(st.text(alphabet="0123456789 .,/$-−#abc\n<MUL_6_9_54>%User:", max_size=40))
def test_extraction_never_raises_and_agrees_with_itself(text):
    answer = extract_answer(text)
    if answer is not None:
        assert extract_answer(answer) == answer
    is_correct(text, "1")
