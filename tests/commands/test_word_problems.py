"""One-step word problems: right, distinct, in the schema of GSM8K, and every product of the table among them."""

import re

import make_word_problems
import pytest
from conftest import read_jsonl

from domain_tokens import extract_answer, inject
from domain_tokens.data.conversations import gsm8k_conversation
from domain_tokens.runs.errors import InputError


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_step")
    make_word_problems.main(["--output-dir", str(folder)])
    return read_jsonl(folder / "test.jsonl")


def operands(problem):
    [(a, b, written)] = re.findall(r"(\d+)\*(\d+)=<<\1\*\2=(\d+)>>\3", problem["answer"])
    return int(a), int(b), int(written)


def test_every_answer_is_its_product(problems):
    assert len(problems) == 4 * 81 + 276
    for problem in problems:
        a, b, written = operands(problem)
        assert written == a * b
        assert extract_answer(problem["answer"], strict=True) == str(a * b)
        assert gsm8k_conversation(problem)
        assert sorted(re.findall(r"\d+", problem["question"])) == sorted((str(a), str(b)))


def test_the_table_is_covered_in_both_orders_and_two_digits_too(problems):
    pairs = [operands(problem)[:2] for problem in problems]
    table = [pair for pair in pairs if max(pair) < 10]
    assert len(table) == 4 * 81
    assert set(table) == {(a, b) for a in range(1, 10) for b in range(1, 10)}
    assert all(10 <= max(pair) <= 99 and 2 <= min(pair) <= 9 for pair in pairs if max(pair) >= 10)


def test_facts_of_the_table_are_injected_into_the_answers(problems):
    for problem in problems:
        injected = inject(problem["answer"])
        assert ("<MUL_" in injected) == (max(operands(problem)[:2]) < 10)


def test_questions_are_distinct_and_have_their_grammar(problems):
    questions = [problem["question"] for problem in problems]
    assert len(set(questions)) == len(questions)
    assert not [text for text in questions if re.search(r"\b1 \w+s\b|[\[\]{}|]", text)]
    assert not [text for text in questions if re.search(r"\b(?:[2-9]|\d\d) (?:pack|row|day|child)\b", text)]


def test_rows_of_others_are_replaced_only_with_overwrite(tmp_path):
    rows = tmp_path / "test.jsonl"
    rows.write_text('{"question": "mine", "answer": "#### 1"}\n')
    flags = ["--output-dir", str(tmp_path), "--rounds", "1"]
    with pytest.raises(InputError, match=r"test.jsonl holds other rows; choose another --output-dir, or --overwrite"):
        make_word_problems.main(flags)
    assert "mine" in rows.read_text()
    make_word_problems.main([*flags, "--overwrite"])
    written = rows.read_bytes()
    make_word_problems.main(flags)  # the same rows again need no flag
    assert rows.read_bytes() == written and b"mine" not in written


def test_the_seed_draws_them(tmp_path):
    for seed in ("1", "1", "2"):
        make_word_problems.main(["--output-dir", str(tmp_path / seed), "--rounds", "1", "--seed", seed])
    assert (tmp_path / "1/test.jsonl").read_text() != (tmp_path / "2/test.jsonl").read_text()
    with pytest.raises(InputError, match="--rounds is 0, expected 1 to 100"):
        make_word_problems.main(["--output-dir", str(tmp_path / "x"), "--rounds", "0"])
