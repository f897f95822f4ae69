"""What each condition makes of a fact; the text around the facts stays the same in all of them."""

from importlib.resources import files

import pytest
import yaml

from domain_tokens import expand, extract_answer
from domain_tokens.comparison.groups import check_label
from domain_tokens.conditions import CONDITIONS, Condition

TEXT = "So 6*9 = 54 and 3*2, not 12*4, 1/2*6 or 6*9=55."


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("baseline", TEXT),
        ("mul_tokens", "So <MUL_6_9_54> and <MUL_2_3_6>, not 12*4, 1/2*6 or 6*9=55."),
        ("annotated", "So <MUL_6_9_54>6*9 = 54 and <MUL_2_3_6>3*2, not 12*4, 1/2*6 or 6*9=55."),
        ("placebo", "So <PLACEBO>6*9 = 54 and <PLACEBO>3*2, not 12*4, 1/2*6 or 6*9=55."),
    ],
)
def test_a_condition_rewrites_facts_and_nothing_else(condition, expected):
    text, counts = CONDITIONS[condition].rewrite(TEXT, "<PLACEBO>")
    assert text == expected
    assert counts == ({} if condition == "baseline" else {"<MUL_6_9_54>": 1, "<MUL_2_3_6>": 1})
    assert CONDITIONS[condition].rewrite(text, "<PLACEBO>")[0] == text


def test_annotated_and_placebo_texts_expand_to_the_text_itself():
    for condition, placebo in (("annotated", "<PLACEBO>"), ("placebo", "<PLACEBO>"), ("placebo", "<|padding_0|>")):
        assert expand(CONDITIONS[condition].rewrite(TEXT, placebo)[0]) == TEXT


def test_the_pieces_around_the_facts_are_the_same_in_every_condition():
    around = ["So ", " and ", ", not 12*4, 1/2*6 or 6*9=55."]
    for condition in CONDITIONS.values():
        pieces = [*condition.pieces(TEXT, "<PLACEBO>")]
        assert [piece for piece, token in pieces if token is None] == around
        assert [token for _, token in pieces if token] == ["<MUL_6_9_54>", "<MUL_2_3_6>"]


def test_the_file_names_each_condition_once_and_with_a_name_that_tables_can_show():
    text = files("domain_tokens").joinpath("conditions.yaml").read_text(encoding="utf-8")
    written = [key.value for key, _ in yaml.compose(text).value]
    assert written == list(CONDITIONS), "YAML takes the last of two entries"
    for name in written:
        check_label(name)


@pytest.mark.parametrize("fact", ["{placebo}{token}{text}", "{placebo}{placebo}{text}", "{placebo}{token}"])
def test_a_new_condition_keeps_what_a_text_says(fact):
    condition = Condition("new", fact, "")
    for text in (TEXT, "#### 6*9", "6*9=<<6*9=54>>54 apples\nThe answer is 6×9=54."):
        rewritten, _ = condition.rewrite(text, "<PLACEBO>")
        assert rewritten != text
        assert condition.rewrite(rewritten, "<PLACEBO>")[0] == rewritten
        assert extract_answer(rewritten) == extract_answer(text)


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("x", "hello"), ("x", ""), ("x", "{text.upper}"), ("x", "{tokn}"), ("x", "{token"), ("x", 5), ("x", None),
        ("x", "{text}{token}"), ("x", "{token}{placebo}{text}"), ("x", "({token}) {text}"), ("x", "{placebo}"),
        (True, "{text}"), (5, "{text}"), ("a/b", "{text}"), ("a b", "{text}"), ("_a", "{text}"), ("x" * 25, "{text}"),
    ],
)  # fmt: skip
def test_a_condition_that_cannot_be_is_refused(name, fact):
    with pytest.raises(ValueError, match=r"^conditions.yaml: "):
        Condition(name, fact, "about")


def test_without_injection_text_stays_as_it_is():
    ablation = CONDITIONS["mul_tokens"].without_injection()
    assert not ablation.injects and ablation.name == "mul_tokens"
    assert ablation.rewrite(TEXT, "<PLACEBO>") == (TEXT, {})
