"""A model whose numbers could not be trusted is refused, with the value, what was expected and the remedy."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from domain_tokens.facts import FACT_TOKENS
from domain_tokens.models.folder import open_model, weights_digest
from domain_tokens.runs.errors import InputError


@pytest.fixture
def folder(toy_base, tmp_path):
    """A copy of the toy baseline model, to be broken."""
    return shutil.copytree(toy_base["baseline"], tmp_path / "model")


def test_both_conditions_start_from_the_same_weights_and_vocabulary(toy_base):
    baseline, mul_tokens = (open_model(str(toy_base[condition]), None) for condition in ("baseline", "mul_tokens"))
    assert (baseline.condition, mul_tokens.condition) == ("baseline", "mul_tokens")
    assert baseline.weights == mul_tokens.weights
    assert baseline.tokenizer.get_vocab() == mul_tokens.tokenizer.get_vocab()
    assert len(baseline.fact_ids) == 45


def test_facts_survive_decoding_without_special_tokens(toy_tokenizer):
    text = "".join(FACT_TOKENS)
    ids = toy_tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == 45
    assert ids == sorted(ids)
    assert toy_tokenizer.decode([*ids, toy_tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_the_folders_record_decides_the_condition(folder):
    assert open_model(str(folder), "baseline").condition == "baseline"
    with pytest.raises(InputError, match="--condition mul_tokens contradicts"):
        open_model(str(folder), "mul_tokens")
    (folder / "domain_tokens.json").unlink()
    assert open_model(str(folder), "mul_tokens").condition == "mul_tokens"
    with pytest.raises(InputError, match="give --condition"):
        open_model(str(folder), None)


def test_a_missing_or_incomplete_folder_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        weights_digest(tmp_path / "none")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights are never loaded"):
        open_model(str(folder), None)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json"):
        open_model(str(folder), None)


def test_corrupt_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded"):
        open_model(str(folder), None)


def test_weights_that_lack_a_layer_are_refused_not_filled_with_random_numbers(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.2.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights, transformer\.h\.2\.mlp\.c_fc\.weight"):
        open_model(str(folder), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 0}, "its config says num_hidden_layers 0, but its weights have room for 1 to 52"),
        ({"n_layer": 10_000_000}, "its config says num_hidden_layers 10,000,000"),
        ({"n_layer": 3}, r"holds transformer\.h\.3\.\S+, which its config has no layer for"),
        ({"n_embd": 128_000_000}, "its config promises [0-9,]+ parameters, but its weights are [0-9,]+ numbers"),
        ({"vocab_size": 10**12}, "its config promises"),
        ({"n_positions": 10**12}, "its config promises"),
        (
            {"n_positions": 512},
            r"wpe\.weight has the shape \(1024, 128\), but its config makes it \(512, 128\); export",
        ),
        ({"vocab_size": 740}, r"wte\.weight has the shape \(746, 128\), but its config makes it \(740, 128\); export"),
        ({"n_layer": "four"}, "cannot be loaded"),
        ({"n_head": 0}, "cannot be loaded"),
        ({"layer_norm_epsilon": float("nan")}, "computes logits that are no finite numbers"),
    ],
    ids=str,
)
def test_a_config_that_promises_something_else_than_the_weights_is_refused(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        open_model(str(folder), None)


@pytest.mark.parametrize(
    "rules",
    [
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "(7|77)+$"}, "content": ""}},
        {"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"String": "-"}, "content": "--------"}] * 20}},
    ],
    ids=["a split", "a replacement", "a doubling"],
)  # fmt: skip
def test_a_tokenizer_whose_rules_never_end_is_refused(folder, rules, monkeypatch):
    monkeypatch.setattr("domain_tokens.models.checks._PATIENCE", 5)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | rules))
    with pytest.raises(InputError, match=r"the rules of its tokenizer\.json fail or find no end"):
        open_model(str(folder), None)


def test_a_tokenizer_with_rules_that_end_is_taken(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    rules = {"normalizer": {"type": "Replace", "pattern": {"Regex": "\t+"}, "content": " "}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | rules))
    assert open_model(str(folder), None).decoding == "batched"


def test_too_few_embedding_rows_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"][:741].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 741}))
    with pytest.raises(InputError, match=r"741 embedding rows for 746 tokens; .*prepare_base\.py"):
        open_model(str(folder), None)


def test_a_tokenizer_without_the_facts_is_refused(folder):
    from domain_tokens import toy

    toy.tokenizer().save_pretrained(folder)
    with pytest.raises(InputError, match=r"<MUL_1_1_1> is split into \d+ tokens, expected one; .*prepare_base\.py"):
        open_model(str(folder), None)


def test_code_that_a_folder_brings_along_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InputError, match="cannot be loaded"):
        open_model(str(folder), None)


def test_a_missing_tokenizer_is_refused(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(InputError, match="holds no tokenizer"):
        open_model(str(folder), None)


def test_the_dtype_is_what_was_asked_for(toy_base):
    assert open_model(str(toy_base["baseline"]), None, torch.bfloat16).model.dtype == torch.bfloat16


def test_sampling_habits_of_the_source_do_not_bend_greedy_replies(folder):
    (folder / "generation_config.json").write_text('{"repetition_penalty": 1.3, "do_sample": true, "temperature": 0.6}')
    opened = open_model(str(folder), None)
    assert opened.model.generation_config.repetition_penalty in (None, 1.0)
    assert not opened.model.generation_config.do_sample
    assert opened.model.generation_config.eos_token_id == opened.tokenizer.eos_token_id
