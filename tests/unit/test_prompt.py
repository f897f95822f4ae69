"""One format for training, evaluation and everybody else's tools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError

from domain_tokens.data.prepared import labels
from domain_tokens.prompt import (
    CHAT_TEMPLATE,
    IGNORED_LABEL,
    cut_reply,
    encode_conversations,
    prompt_text,
    question_conversation,
    render,
)

EOT = "<|endoftext|>"
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 7 times 8?"},
    {"role": "assistant", "content": "56"},
    {"role": "user", "content": "And 6 times 9?"},
    {"role": "assistant", "content": "<MUL_6_9_54>"},
]
TALK_TEXT = (
    "System: Be brief.\nUser: What is 7 times 8?\nAssistant: 56<|endoftext|>"
    "\nUser: And 6 times 9?\nAssistant: <MUL_6_9_54><|endoftext|>"
)


def test_the_prompt_is_spelled_so():
    assert prompt_text(question_conversation("What is 7 times 8?"), EOT) == "User: What is 7 times 8?\nAssistant:"


def test_the_training_text_and_its_trained_parts_are_spelled_so():
    pieces = render(TALK, EOT)
    assert "".join(piece.text for piece in pieces) == TALK_TEXT
    assert [piece.text for piece in pieces if piece.trained] == [" 56<|endoftext|>", " <MUL_6_9_54><|endoftext|>"]
    assert [piece.text for piece in render(TALK, EOT, "all") if not piece.trained] == []


@pytest.fixture(params=["toy", "gpt2"])
def tokenizer(request, toy_tokenizer):
    if request.param == "toy":
        return toy_tokenizer
    tokenizer = request.getfixturevalue("gpt2_tokenizer")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def test_training_text_starts_with_the_inference_prompt_token_for_token(tokenizer):
    for turns in (2, 4):
        prompt = tokenizer.encode(prompt_text(TALK[:turns], EOT), add_special_tokens=False)
        assert encode_conversations(tokenizer, [TALK])[0].ids[: len(prompt)] == prompt


def test_end_of_text_is_trained_and_user_text_is_not(tokenizer):
    encoded = encode_conversations(tokenizer, [TALK])[0]
    trained = tokenizer.decode([i for i, flag in zip(encoded.ids, encoded.trained, strict=True) if flag])
    assert trained == " 56<|endoftext|> <MUL_6_9_54><|endoftext|>"
    assert encoded.trained[-1]
    labelled = labels(np.array(encoded.ids), np.array(encoded.trained))
    assert labelled[-1] == tokenizer.eos_token_id
    assert labelled[0] == IGNORED_LABEL


CONTENT = st.text(alphabet=st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=40)
CONVERSATIONS = st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3).map(
    lambda turns: [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
)


@given(CONVERSATIONS)
@settings(max_examples=100, deadline=None)
def test_the_chat_template_gives_the_renderers_string_and_mask(toy_tokenizer, messages):
    rendered = toy_tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True, tokenize=True
    )
    encoded = encode_conversations(toy_tokenizer, [messages])[0]
    assert rendered["input_ids"] == encoded.ids
    assert [bool(flag) for flag in rendered["assistant_masks"]] == encoded.trained
    assert toy_tokenizer.apply_chat_template(messages, tokenize=False) == "".join(p.text for p in render(messages, EOT))
    assert toy_tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True) == prompt_text(
        messages[:-1], EOT
    )


def test_a_history_with_the_replys_space_is_the_same_prompt(toy_tokenizer):
    talk = [*question_conversation("Hi?"), {"role": "assistant", "content": " 56.\n"}, *question_conversation("  And?")]
    shown = "User: Hi?\nAssistant: 56.<|endoftext|>\nUser:   And?\nAssistant:"
    assert toy_tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == shown
    assert prompt_text(talk, EOT) == shown
    rendered = toy_tokenizer.apply_chat_template(talk[:2], return_dict=True, return_assistant_tokens_mask=True)
    trained = [i for i, flag in zip(rendered["input_ids"], rendered["assistant_masks"], strict=True) if flag]
    assert toy_tokenizer.decode(trained) == " 56.<|endoftext|>"


def test_content_in_parts_is_its_text_and_anything_but_text_is_an_error(toy_tokenizer):
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "7*8?"}]
    talk = [{"role": "user", "content": parts}, {"role": "assistant", "content": [{"type": "text", "text": " 56 "}]}]
    shown = "User: What is 7*8?\nAssistant: 56<|endoftext|>"
    assert toy_tokenizer.apply_chat_template(talk, tokenize=False) == shown
    rendered = toy_tokenizer.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    trained = [i for i, flag in zip(rendered["input_ids"], rendered["assistant_masks"], strict=True) if flag]
    assert toy_tokenizer.decode(trained) == " 56<|endoftext|>"
    with pytest.raises(TemplateError, match="only text can be read"):
        toy_tokenizer.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}], tokenize=False)


def test_the_chat_template_gives_the_same_in_other_vocabularies(tokenizer):
    rendered = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    encoded = encode_conversations(tokenizer, [TALK])[0]
    assert rendered["input_ids"] == encoded.ids
    assert [bool(flag) for flag in rendered["assistant_masks"]] == encoded.trained


def test_a_long_row_is_cut_at_its_end(toy_tokenizer):
    whole = encode_conversations(toy_tokenizer, [TALK])[0]
    cut = encode_conversations(toy_tokenizer, [TALK], max_length=10)[0]
    assert (cut.ids, cut.trained, cut.length) == (whole.ids[:10], whole.trained[:10], len(whole.ids))
    assert encode_conversations(toy_tokenizer, [TALK], max_length=len(whole.ids))[0] == whole


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (" 54.\nUser: What is 9 times 8?", " 54.\n"),
        (" 54<|endoftext|>\nmore", " 54"),
        (" Users: are people.\nThe User: label", " Users: are people.\nThe User: label"),
        (" 54", " 54"),
    ],
)
def test_a_reply_ends_at_end_of_text_or_at_the_next_user_line(text, reply):
    assert cut_reply(text, EOT) == reply
