"""What the fact tokens did in replies, counted by hand."""

import pytest

from domain_tokens.evaluation.fact_usage import fact_usage


def usage(reply, correct=True):
    return fact_usage([{"reply": reply, "correct": correct}])


@pytest.mark.parametrize(
    ("reply", "in_annotations", "right"),
    [
        ("<MUL_6_9_54>=<<<MUL_6_9_54>>>54 eggs", 1, 1),
        ("<<<MUL_6_9_54>>>55", 1, 0),
        ("<<<MUL_6_9_54>>> eggs", 1, 0),
        ("<<<MUL_6_9_54>+2=56>>56", 1, 1),
        ("<<<MUL_6_9_54>+2=57>>57", 1, 0),
        ("<<(<MUL_6_9_54>+2)/4=14>>14", 1, 1),
        ("<<<MUL_6_9_54>*1,000=54,000>>", 1, 1),
        ("<<54=<MUL_6_9_54>=54>>54", 1, 1),
        ("<<<MUL_6_9_54>>>54, then 6", 1, 1),
        ("<<<MUL_6_9_54>>>54,000", 1, 0),
        ("<<<MUL_6_9_54>/4=13.5>>13.5", 1, 1),
        ("<<<MUL_6_9_54>/0=1>>", 1, 0),
        ("<<<MUL_6_9_54>+=54>>", 1, 0),
        ("<<<MUL_6_9_54>**2=2916>>", 1, 0),  # no plain arithmetic: nothing is taken on trust
        ("$<<<MUL_6_9_54>>>$54", 1, 1),
        ("<MUL_6_9_54>6*9=<<<MUL_6_9_54>6*9=54>>54 eggs", 1, 1),
        ("<<<MUL_6_9_54>6*9+2=57>>57", 1, 0),
        ("It is <MUL_6_9_54>.", 0, 0),
        ("<<<MUL_6_9_54>", 0, 0),
    ],
)
def test_a_fact_in_an_annotation_is_right_where_the_annotation_is(reply, in_annotations, right):
    (counts,) = usage(reply).values()
    assert (counts["in_annotations"], counts["right_in_annotations"]) == (in_annotations, right)


def test_facts_are_counted_once_a_reply_and_each_time_they_are_written():
    rows = [
        {"reply": "<<<MUL_2_3_6>>>6 and <MUL_2_3_6>, <MUL_7_8_56>", "correct": True},
        {"reply": "<MUL_2_3_6>", "correct": False},
        {"reply": "6, <MUL_2_3_7>", "correct": False},
    ]
    assert fact_usage(rows) == {
        "<MUL_2_3_6>": {"written": 3, "in_annotations": 1, "right_in_annotations": 1, "in_correct_replies": 1,
                        "in_wrong_replies": 1},
        "<MUL_7_8_56>": {"written": 1, "in_annotations": 0, "right_in_annotations": 0, "in_correct_replies": 1,
                         "in_wrong_replies": 0},
    }  # fmt: skip
    assert usage("2*3=6") == {}
