"""The shared text: whole tokens outside the facts, the same characters in every condition, divided into two kinds."""

import numpy as np
import pytest
from conftest import SHARED, read_jsonl
from tokenizers import AddedToken

from domain_tokens.conditions import CONDITIONS
from domain_tokens.data.conversations import gsm8k_conversation
from domain_tokens.data.prepared import join, prepare
from domain_tokens.data.shared_text import NUMBER, OUTSIDE, WORD, shared_texts
from domain_tokens.facts import FACT_TOKENS, GPT2_FILLERS
from domain_tokens.prompt import question_conversation

SIGNS = {OUTSIDE: ".", NUMBER: "n", WORD: "w"}


def chat(answer):
    return [*question_conversation("How?"), {"role": "assistant", "content": answer}]


def marked(tokenizer, answer, **settings):
    """The kinds of an answer's characters with the space in front, which all conditions agree on."""
    found = set()
    for condition in CONDITIONS.values():
        (text,) = shared_texts(tokenizer, [chat(answer)], condition, **settings)
        start = len("User: How?\nAssistant:")
        assert not text.character_kinds[:start].any()
        found.add("".join(SIGNS[kind] for kind in text.character_kinds[start:].tolist()))
    (kinds,) = found
    return kinds.removesuffix("." * len(tokenizer.eos_token))


@pytest.fixture
def gpt2(gpt2_tokenizer):
    gpt2_tokenizer.add_tokens([AddedToken(token, normalized=False) for token in (*GPT2_FILLERS, *FACT_TOKENS)])
    return gpt2_tokenizer


def test_in_gpt2s_vocabulary_a_space_belongs_to_the_digit_behind_it(gpt2):
    # " It" " is" " 6" "*" "9" "=" "54" " now" in baseline, " is" " " "<MUL_6_9_54>" in the others
    assert marked(gpt2, "It is 6*9=54 now") == "wwwwww.......wwww"
    assert marked(gpt2, "6*9=54") == "......."
    assert marked(gpt2, "It is 12") == "wwwwwwnnn"
    assert marked(gpt2, "2+3=<<2+3=5>>5 é") == "nnwnwwwnwnwnwwnww"


def test_in_the_toy_vocabulary_too(toy_tokenizer):
    # its spaces are tokens of their own in front of digits: "Ġ", "6"
    assert marked(toy_tokenizer, "He has 12 now") == "wwwwwwwwnnwwww"
    assert marked(toy_tokenizer, "He has 6*9=54 now") == "wwwwwwww......wwww"


@pytest.mark.parametrize("answer", ["It is 6*9=54 now, and 3*4 = 12.\n#### 12", "no fact at all, 12 or so", "7*8=56"])
@pytest.mark.parametrize("name", CONDITIONS)
def test_tokens_are_those_of_training_and_measured_ones_are_trained(name, answer, toy_tokenizer):
    rows = [chat(f"  {answer} \n"), [{"role": "system", "content": "6*9"}, *chat(answer), *chat("no")]]
    prepared = prepare(rows, toy_tokenizer, 30, "assistant", CONDITIONS[name], is_measured=True)
    texts = shared_texts(toy_tokenizer, rows, CONDITIONS[name], 30)
    assert prepared.ids.tolist() == [i for text in texts for i in text.ids]
    assert prepared.trained[prepared.kinds != OUTSIDE].all()
    assert prepared.kinds.tolist() == np.concatenate([text.kinds for text in texts]).tolist()
    assert join([prepared, prepared]).kinds.tolist() == [*prepared.kinds, *prepared.kinds]
    # Of every token, all characters are of one kind, and sums over tokens are sums over characters.
    for text in texts:
        for first, last, kind in zip(text.first, text.last, text.kinds, strict=True):
            assert set(text.character_kinds[first : last + 1].tolist()) == {kind}


def test_what_any_condition_has_to_cut_is_left_out_for_all(toy_tokenizer):
    answer = "6*9=54 and 3*4=12 then words"
    whole = marked(toy_tokenizer, answer)
    # As long as the shortest rendering without its last three tokens: the longer ones lose more.
    lengths = [len(shared_texts(toy_tokenizer, [chat(answer)], each)[0].ids) for each in CONDITIONS.values()]
    cut = marked(toy_tokenizer, answer, max_length=min(lengths) - 3).rstrip(".")
    assert len(set(lengths)) > 1
    assert 0 < len(cut) < len(whole) - 5
    assert whole.startswith(cut)


def test_a_vocabulary_without_a_placebo_has_the_same_shared_text(gpt2, monkeypatch):
    rows = [chat("It is 6*9=54, then 12+3*4=24\n#### 24")]
    (expected,) = shared_texts(gpt2, rows, CONDITIONS["mul_tokens"])
    monkeypatch.setattr("domain_tokens.data.shared_text.placebo_token", lambda vocabulary: None)
    (found,) = shared_texts(gpt2, rows, CONDITIONS["mul_tokens"])
    assert found.character_kinds.tolist() == expected.character_kinds.tolist()


def test_bytes_are_utf8_and_borders_divide_them(toy_tokenizer):
    (text,) = shared_texts(toy_tokenizer, [chat("é 12 🙂")], CONDITIONS["baseline"])
    start, end = len("User: How?\nAssistant:"), len(text.text)
    sizes = text.byte_sums([start, end])
    assert int(sizes["number"][0] + sizes["word"][0]) == len(" é 12 🙂".encode())
    parts = text.byte_sums([start, start + 3, end])
    assert {name: int(each.sum()) for name, each in parts.items()} == {
        name: int(each[0]) for name, each in sizes.items()
    }


@pytest.mark.slow  # most of a minute
@pytest.mark.parametrize("vocabulary", ["gpt2", "toy_tokenizer"])
def test_on_all_real_test_rows_the_shared_text_is_the_same_in_every_condition(vocabulary, request):
    if not SHARED.exists():
        pytest.skip("the real rows lie beside the repository only on some machines")
    tokenizer = request.getfixturevalue(vocabulary)
    rows = [gsm8k_conversation(row) for row in read_jsonl(SHARED / "gsm8k/test.jsonl")]
    found = [shared_texts(tokenizer, rows, condition) for condition in CONDITIONS.values()]
    for texts in zip(*found, strict=True):
        for text in texts[1:]:
            assert np.array_equal(text.character_kinds, texts[0].character_kinds)
    kinds = np.concatenate([text.character_kinds for text in found[0]])
    answers = sum(len(answer["content"].strip()) + 1 for _, answer in rows)
    assert 0.97 * answers < np.count_nonzero(kinds) < answers
