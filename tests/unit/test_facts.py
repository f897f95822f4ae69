import subprocess
import sys

import pytest

from domain_tokens.facts import (
    FACT_TOKENS,
    GPT2_FILLERS,
    GPT2_FIRST_FACT_ID,
    GPT2_VOCAB_SIZE,
    fact_token,
    settled_length,
    show_facts,
)


def test_the_45_facts_stand_in_order_smaller_operand_first():
    assert len(FACT_TOKENS) == 45
    assert FACT_TOKENS[:3] == ("<MUL_1_1_1>", "<MUL_1_2_2>", "<MUL_1_3_3>")
    assert FACT_TOKENS[8:10] == ("<MUL_1_9_9>", "<MUL_2_2_4>")
    assert FACT_TOKENS[-1] == "<MUL_9_9_81>"
    assert fact_token(9, 6) == "<MUL_6_9_54>"


def test_the_gpt2_vocabulary_ends_with_the_facts():
    assert (GPT2_FILLERS[0], GPT2_FILLERS[-1]) == ("<|padding_0|>", "<|padding_46|>")
    assert GPT2_FIRST_FACT_ID == 50304
    assert GPT2_VOCAB_SIZE == 50349
    assert GPT2_FIRST_FACT_ID + FACT_TOKENS.index("<MUL_6_9_54>") == 50342


@pytest.mark.parametrize("pair", [(0, 5), (5, 10)])
def test_only_one_digit_operands_are_facts(pair):
    with pytest.raises(ValueError, match="not a fact"):
        fact_token(*pair)


def test_the_package_imports_without_torch():
    code = "import sys, domain_tokens; domain_tokens.is_correct('4', '4'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<MUL_6_9_54>6*9=54", "▸6*9=54"),
        ("<MUL_6_9_54>9 x 6", "▸9 x 6"),
        ("<PLACEBO>6*9=54", "▸6*9=54"),
        ("<MUL_6_9_54> apples", "6×9=54 apples"),
        ("<MUL_6_9_54>6*90", "6×9=546*90"),
        ("<MUL_6_9_54>7*8", "6×9=547*8"),
    ],
)
def test_people_see_a_fact_once_and_a_mark_before_it(text, shown):
    assert show_facts(text) == shown
    assert settled_length(text + " ") == len(text) + 1
    for end in range(text.index(">") + 1, len(text)):
        settled = text[: settled_length(text[:end])]
        assert shown.startswith(show_facts(settled)), "no later text changes it"
