"""Rows through the real commands: text that a tokenizer would read as a token of its own, long rows, other forms."""

import json

import datasets
import prepare_base
import pytest
import run_gsm8k
import sample_sft
import sft_gsm8k
import sft_tulu
from conftest import read_jsonl, write_jsonl
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from domain_tokens import toy
from domain_tokens.prompt import reserved_token_finder
from domain_tokens.runs.errors import InputError

LEFT_OUT = "unusable rows left out: 1 × text holds the reserved token </s>, first in line 3"


def tokenizer_of_another(end_of_text="</s>"):
    """A small tokenizer with tokens of all kinds that tokenizers add."""
    tokenizer = toy.train_tokenizer(["User: a\nAssistant: the code is 5 + 7 = 12"] * 9, 300)
    tokenizer.add_special_tokens({"eos_token": end_of_text, "bos_token": "<s>"})
    tokenizer.pad_token = end_of_text
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<|im_end|>", lstrip=True, rstrip=True)]})
    tokenizer.add_tokens([AddedToken("[note]"), "the", "    ", "\n\n", "é", "▁▁▁"])
    return tokenizer


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("Write <s>old</s> in HTML", "<s>"),
        ("old</s>", "</s>"),
        ("<|im_end|>", "<|im_end|>"),
        ("a [note] b", "[note]"),
        ("<|endoftext|>", "<|endoftext|>"),
        ("the    code\n\nof caf\u00e9 ▁▁▁", None),
        ("< /s> </S> <|im_end|", None),
        ("", None),
    ],
)
def test_special_and_added_tokens_are_found_but_not_words_and_spaces(text, token):
    assert reserved_token_finder(tokenizer_of_another())(text) == token


def test_a_token_that_is_looked_for_in_lower_case_is_found_in_any_case():
    tokenizer = tokenizer_of_another()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken("<Aside>", normalized=True)])
    assert reserved_token_finder(tokenizer)("an <ASIDE> b") == "<Aside>"
    assert reserved_token_finder(tokenizer)("an < aside> b") is None


def test_a_token_that_the_vocabulary_makes_of_normalised_text_is_found():
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -1.0) for letter in "▁abs</>")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.normalizer = normalizers.NFKC()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    assert tokenizer.encode("a＜/s＞b", add_special_tokens=False)[1] == tokenizer.eos_token_id
    assert reserved_token_finder(tokenizer)("a＜/s＞b") == "</s>"
    assert reserved_token_finder(tokenizer)("a＜/b＞") is None


TOKENIZER = tokenizer_of_another()
PIECES = [
    "<s>",
    "</s>",
    "</",
    "s>",
    "<|im_end|>",
    "<|im",
    "_end|>",
    "[note]",
    "[no",
    "te]",
    "the",
    " ",
    "    ",
    "é",
    "5",
]


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_the_tokenizer_makes_reserved_tokens_of_exactly_the_texts_that_hold_some(text):
    reserved = set(TOKENIZER.convert_tokens_to_ids(["<s>", "</s>", "<|im_end|>", "[note]", "<|endoftext|>"]))
    made = set(TOKENIZER.encode(text, add_special_tokens=False)) & reserved
    assert (reserved_token_finder(TOKENIZER)(text) is not None) == bool(made)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A start model whose end-of-text is </s>, made of somebody's model."""
    folder, tokenizer = tmp_path_factory.mktemp("another"), tokenizer_of_another()
    toy.model(len(tokenizer), tokenizer.eos_token_id).save_pretrained(folder / "source")
    tokenizer.save_pretrained(folder / "source")
    prepare_base.main(f"--source {folder}/source --condition baseline --output-dir {folder}/base".split())
    return folder / "base"


def command(base, output, data):
    return ["--model-path", str(base), "--output-dir", str(output), "--dataset-path", str(data)]


def trained(script, base, output, data, *more):
    """Train for one step, and return the results."""
    stage = {sft_tulu: "tulu", sft_gsm8k: "gsm8k"}[script]
    config = (
        f"--condition baseline --config sft/configs/{stage}.yaml max_steps=1 val_samples=4 save_strategy=no".split()
    )
    script.main([*command(base, output, data), *config, *more])
    return json.loads((output / {"tulu": "tulu_sft_results.json", "gsm8k": "sft_results.json"}[stage]).read_text())


@pytest.mark.parametrize(("script", "stage"), [(sft_tulu, "tulu"), (sft_gsm8k, "gsm8k")])
def test_training_counts_such_rows_and_leaves_them_out(base, tmp_path, capsys, script, stage):
    texts = [f"Write {i} in HTML" for i in range(120)]
    texts[2] = "Write <b>old</s> in HTML"
    chats = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}]} for text in texts]
    problems = [{"question": text, "answer": "#### 5"} for text in texts]
    data = write_jsonl(tmp_path / "train.jsonl", chats if stage == "tulu" else problems)
    results = trained(script, base, tmp_path / "out", data)
    assert LEFT_OUT in capsys.readouterr().out
    assert results["rows"]["train"]["kept"] == 115
    assert results["rows"]["unusable"] == {"text holds the reserved token </s>": {"rows": 1, "first_line": 3}}


def test_an_evaluation_leaves_such_questions_out_and_counts_them(base, tmp_path, capsys):
    rows = [{"question": f"What is {i}?", "answer": "#### 5"} for i in range(120)]
    rows[2]["question"] = "What is </s>?"
    data = write_jsonl(tmp_path / "test.jsonl", rows)
    run_gsm8k.main([*command(base, tmp_path / "out", data), "max_new_tokens=1"])
    assert LEFT_OUT in capsys.readouterr().out
    ids = [row["id"] for row in read_jsonl(tmp_path / "out/gsm8k_predictions.jsonl")]
    assert len(ids) == 119
    assert "gsm8k-00002" not in ids


@pytest.mark.parametrize(
    ("flag", "text", "token"),
    [
        ("--question", "What is 5</s>?", "</s>"),
        ("--question", "<MUL_6_9_54>?", "<MUL_6_9_54>"),
        ("--system-prompt", "Be <|im_end|> brief.", "<|im_end|>"),
    ],
)
def test_sampling_refuses_such_a_text_and_names_the_token(base, flag, text, token):
    question = [] if flag == "--question" else ["--question", "What is 5?"]
    with pytest.raises(InputError) as error:
        sample_sft.main(["--model-path", str(base), *question, flag, text, "--max-new-tokens", "2"])
    assert f"message holds {token}, which the model would read as a token of its own; leave it out" in str(error.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"unk_token": "User"}, "reads 'User', which is part of every prompt, as a token of its own"),
        ({"split_special_tokens": True}, "splits its end-of-text '</s>'"),
    ],
)
def test_a_tokenizer_that_cannot_write_the_format_makes_no_start_model(tmp_path, setting, message):
    tokenizer = tokenizer_of_another()
    toy.model(len(tokenizer) + 1, tokenizer.eos_token_id).save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    config = tmp_path / "source/tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | setting))
    with pytest.raises(InputError, match=message):
        prepare_base.main(f"--source {tmp_path}/source --condition baseline --output-dir {tmp_path}/base".split())
    assert not (tmp_path / "base/domain_tokens.json").exists()


def test_a_stage_warns_when_it_cuts_more_than_one_percent_of_its_rows(base, tmp_path, capsys):
    rows = [{"question": "5?", "answer": f"{'7' * i} #### 5"} for i in range(100)]
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    counts = trained(sft_gsm8k, base, tmp_path / "out", data, "max_length=50", "val_samples=0")["rows"]["train"]
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert f"{counts['cut'] + counts['dropped']} of 100 training rows" in warning
    assert "longer than data.max_length 50 and lose their end" in warning
    enough = warning.split("max_length=")[1].split()[0]
    again = trained(sft_gsm8k, base, tmp_path / "again", data, f"max_length={enough}", "val_samples=0")
    assert again["rows"]["train"]["cut"] == 1
    assert "warning: " not in capsys.readouterr().out


def test_one_flipped_bit_in_prepared_rows_does_not_change_the_weights(base, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    data = write_jsonl(tmp_path / "train.jsonl", [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(40)])
    first = trained(sft_gsm8k, base, tmp_path / "first", data)
    (ids,) = (tmp_path / "home").glob("domain_tokens/*/train.ids.npy")
    whole = ids.read_bytes()
    ids.write_bytes(whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:])
    again = trained(sft_gsm8k, base, tmp_path / "again", data)
    assert ids.read_bytes() == whole
    assert again["weights"] == first["weights"]


def test_sharegpt_rows_in_a_shard_with_a_fingerprint_are_trained_on(base, tmp_path):
    talk = [{"from": "human", "value": "5 + 7?"}, {"from": "gpt", "value": "12"}]
    (tmp_path / "chats/data").mkdir(parents=True)
    shard = tmp_path / "chats/data/train-00000-of-00001-0123456789abcdef.parquet"
    datasets.Dataset.from_list([{"conversations": talk}] * 20).to_parquet(shard)
    results = trained(sft_tulu, base, tmp_path / "out", tmp_path / "chats")
    assert (results["total_train_samples"], results["total_val_samples"]) == (16, 4)
