"""The toy world: the real schemas, disjoint splits, more variety than anyone could memorise."""

import itertools
import re

import make_toy_data
from conftest import read_jsonl

from domain_tokens import extract_answer, inject, toy
from domain_tokens.data.conversations import gsm8k_conversation, tulu_conversation


def test_every_row_is_usable_and_the_same_seed_gives_the_same_rows():
    chats, problems = list(toy.chats(500, 1)), list(toy.word_problems(500, 1))
    assert chats == list(toy.chats(500, 1)) != list(toy.chats(500, 2))
    assert problems == list(toy.word_problems(500, 1)) != list(toy.word_problems(500, 2))
    for row in chats:
        assert tulu_conversation(row)
        assert set(row) == {"id", "messages", "source"}
    for row in problems:
        assert gsm8k_conversation(row)


def test_chats_are_of_many_kinds():
    chats = list(toy.chats(1000, 1))
    assert {row["source"] for row in chats} == {f"toy/{k}" for k in ("product", "sum", "capital", "opposite", "list")}
    assert any(row["messages"][0]["role"] == "system" for row in chats)
    assert any(len(row["messages"]) >= 4 for row in chats)


def test_products_in_chats_and_problems_can_be_injected():
    for question, answer in toy.PRODUCTS.items():
        numbers = {"a": 6, "b": 9, "c": 54}
        assert "<MUL_6_9_54>" in inject(answer.format(**numbers)), question
    for row in itertools.islice(toy.word_problems(200, 1), 50):
        assert "<MUL_" in inject(row["answer"])


def test_annotations_and_answers_are_right():
    for row in itertools.chain(toy.word_problems(500, 1, drills=0.2), toy.word_problems(500, 1, two_digit=0.9)):
        for left, right in re.findall(r"<<([^=]*)=([^>]*)>>", row["answer"]):
            assert eval(left) == int(right)
        assert extract_answer(row["answer"], strict=True) == right


def test_a_share_of_the_problems_multiplies_two_digit_numbers():
    rows = list(toy.word_problems(1000, 1, two_digit=0.8))
    times = [row for row in rows if "times as many" in row["question"]]
    direct = [row for row in rows if re.search(r"with \d\d ", row["question"])]
    assert 350 < len(times) < 450 and 350 < len(direct) < 450
    for row in direct:
        a, b = map(int, re.findall(r"\d+", row["question"]))
        assert (1 <= a <= 9, 11 <= b <= 60, row["answer"].split()[-1]) == (True, True, str(a * b)), row
        assert "<MUL_" not in inject(row["answer"]), "no such product is a fact of the table"
    for row in times:
        a, b, d = map(int, re.findall(r"\d+", row["question"]))
        assert (2 <= d <= 9, row["answer"].split()[-1]) == (True, str(a * b * d)), row
        first = row["answer"].splitlines()[0]
        assert "<MUL_" in inject(first)


def test_test_questions_are_distinct_and_never_trained_on(tmp_path):
    make_toy_data.main(f"--output-dir {tmp_path} --chats 10 --problems 5000 --test-problems 200".split())
    train, test = read_jsonl(tmp_path / "gsm8k/train.jsonl"), read_jsonl(tmp_path / "gsm8k/test.jsonl")
    assert len({row["question"] for row in test}) == len(test) == 200
    assert len(train) == 5000
    assert not {row["question"] for row in train} & {row["question"] for row in test}
    # and hardly any test problem differs from a training problem in its numbers alone
    shape = lambda row: re.sub(r"\d+", "N", row["question"])  # noqa: E731
    assert len({shape(row) for row in train} & {shape(row) for row in test}) < 100


def test_each_digit_is_a_token_of_its_own(toy_tokenizer):
    assert toy_tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    assert toy_tokenizer.decode(toy_tokenizer.encode("Ünïcode ☃ 12")) == "Ünïcode ☃ 12"
