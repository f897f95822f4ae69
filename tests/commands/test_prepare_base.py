"""Start models made from other people's models: the same logits, the vocabulary with facts, sensible new rows."""

import argparse
import fcntl
import json
import math
import shutil
from pathlib import Path

import numpy as np
import prepare_base
import pytest
import torch
from conftest import CONDITIONS
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MarianConfig,
    MarianForCausalLM,
    MoshiConfig,
    MoshiForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForCausalLM,
)

from domain_tokens import toy
from domain_tokens.facts import FACT_TOKENS, GPT2_FILLERS
from domain_tokens.models.folder import open_model
from domain_tokens.models.nanogpt import load_nanogpt
from domain_tokens.models.vocabulary import extend_vocabulary
from domain_tokens.runs.errors import InputError, RunError


class NanoGPT(nn.Module):
    """An independent GPT of plain nn.Linear layers, with nanoGPT's parameter names."""

    def __init__(
        self, n_layer=2, n_head=2, n_embd=32, block_size=64, vocab_size=50257, bias=True, approximate="none"
    ):  # fmt: skip
        super().__init__()
        self.activation = nn.GELU(approximate=approximate)
        self.sizes = {
            "n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "block_size": block_size,
            "vocab_size": vocab_size, "bias": bias,
        }  # fmt: skip
        block = lambda: nn.ModuleDict({  # noqa: E731
            "ln_1": nn.LayerNorm(n_embd, bias=bias),
            "attn": nn.ModuleDict({
                "c_attn": nn.Linear(n_embd, 3 * n_embd, bias=bias), "c_proj": nn.Linear(n_embd, n_embd, bias=bias),
            }),
            "ln_2": nn.LayerNorm(n_embd, bias=bias),
            "mlp": nn.ModuleDict({
                "c_fc": nn.Linear(n_embd, 4 * n_embd, bias=bias), "c_proj": nn.Linear(4 * n_embd, n_embd, bias=bias),
            }),
        })  # fmt: skip
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(vocab_size, n_embd), "wpe": nn.Embedding(block_size, n_embd),
            "h": nn.ModuleList(block() for _ in range(n_layer)), "ln_f": nn.LayerNorm(n_embd, bias=bias),
        })  # fmt: skip
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, ids):
        t, heads = self.transformer, self.sizes["n_head"]
        x = t["wte"](ids) + t["wpe"](torch.arange(ids.shape[1]))
        for block in t["h"]:
            q, k, v = (
                part.unflatten(2, (heads, -1)).transpose(1, 2)
                for part in block["attn"]["c_attn"](block["ln_1"](x)).chunk(3, 2)
            )
            scores = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).masked_fill(
                torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1), float("-inf")
            )
            x = x + block["attn"]["c_proj"]((scores.softmax(3) @ v).transpose(1, 2).flatten(2))
            x = x + block["mlp"]["c_proj"](self.activation(block["mlp"]["c_fc"](block["ln_2"](x))))
        return self.lm_head(t["ln_f"](x))


def save_nanogpt(model: NanoGPT, path, prefix="_orig_mod.", keys=("model_args",)):
    """keys: where the sizes lie. nanoGPT also keeps its training settings under `config`, without the vocabulary."""
    weights = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    settings = {"config": {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 64, "learning_rate": 6e-4}}
    torch.save({"model": weights, "iter_num": 5} | settings | dict.fromkeys(keys, model.sizes), path)
    return path


def random_nanogpt(**sizes) -> NanoGPT:
    torch.manual_seed(0)
    model = NanoGPT(**sizes).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)  # biases and norms too, so that none can be forgotten
    return model


def largest_difference(found, wanted, vocab_size=50257) -> float:
    ids = torch.randint(0, vocab_size, (2, 64))
    with torch.no_grad():
        return float((found.eval()(ids).logits - wanted(ids)).abs().max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["_orig_mod.", ""])
@pytest.mark.parametrize(("approximate", "key"), [("none", "model_args"), ("tanh", "config")])
def test_a_nanogpt_checkpoint_keeps_its_logits(tmp_path, bias, prefix, approximate, key):
    original = random_nanogpt(bias=bias, approximate=approximate)
    path = save_nanogpt(original, tmp_path / "ckpt.pt", prefix, (key,))
    assert largest_difference(load_nanogpt(path), original) < 1e-5
    wrong = {"none": "gelu_new", "tanh": "gelu"}[approximate]
    assert largest_difference(load_nanogpt(path, wrong), original) > 1e-4


def test_an_activation_that_nothing_tells_is_asked_for(tmp_path, toy_tokenizer):
    original = random_nanogpt(vocab_size=746, approximate="tanh")
    path = save_nanogpt(original, tmp_path / "ckpt.pt", keys=("model_args", "config"))
    toy_tokenizer.save_pretrained(tmp_path / "tokenizer")
    arguments = f"--source {path} --tokenizer {tmp_path / 'tokenizer'} --condition baseline".split()
    with pytest.raises(InputError, match="nothing tells its activation; give --activation gelu .* or gelu_tanh"):
        prepare_base.main([*arguments, "--output-dir", str(tmp_path / "out")])
    assert not (tmp_path / "out/domain_tokens.json").exists()
    for name, recorded in (("gelu", "gelu"), ("gelu_tanh", "gelu_new")):
        prepare_base.main([*arguments, "--activation", name, "--output-dir", str(tmp_path / name)])
        record = json.loads((tmp_path / name / "domain_tokens.json").read_text())
        assert record["lineage"][0]["activation"] == recorded
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "gelu_tanh")
    assert largest_difference(exported, original, 700) < 1e-5


def test_a_pickled_config_is_refused_with_the_way_to_save_it(tmp_path):
    torch.save({"model": {}, "config": argparse.Namespace(n_layer=1)}, tmp_path / "ckpt.pt")
    with pytest.raises(InputError, match=r"pickled argparse\.Namespace.*\['config'\] = vars\(checkpoint"):
        load_nanogpt(tmp_path / "ckpt.pt")


@pytest.mark.parametrize(
    ("extra", "what"), [(np.float64(2.5), r"numpy\._?core\.multiarray\.scalar"), (Path("data"), r"pathlib[\w.]*Path")]
)
def test_a_pickled_entry_beside_the_sizes_is_named_with_what_to_keep(tmp_path, extra, what):
    original = NanoGPT(vocab_size=100)
    content = {"model": original.state_dict(), "model_args": original.sizes, "best_val_loss": extra}
    torch.save(content, tmp_path / "ckpt.pt")
    with pytest.raises(
        InputError, match=rf"holds a pickled {what}\).*save it again with only 'model' and 'model_args'"
    ):
        load_nanogpt(tmp_path / "ckpt.pt")
    torch.save({key: content[key] for key in ("model", "model_args")}, tmp_path / "ckpt.pt")
    assert largest_difference(load_nanogpt(tmp_path / "ckpt.pt"), original, 100) < 1e-5


def test_an_untied_nanogpt_head_is_kept(tmp_path):
    original = NanoGPT(vocab_size=100)
    original.lm_head.weight = nn.Parameter(torch.randn(100, 32))
    exported = load_nanogpt(save_nanogpt(original, tmp_path / "ckpt.pt"))
    assert largest_difference(exported, original, 100) < 1e-5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, "model_args"),
        ({"model": {}, "model_args": {"n_layer": 1}}, "n_head"),
        ([1], "no nanoGPT checkpoint"),
        (GPT2Config, "plain tensors"),
    ],
)
def test_a_pt_file_that_is_no_nanogpt_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        load_nanogpt(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": [torch.zeros(3)]}, "'model' is no dict of weights"),
        ({"model": {"transformer.wte.weight": "many"}}, "'model' is no dict of weights"),
        ({"model": {7: torch.zeros(3)}}, "'model' is no dict of weights"),
        ({"n_layer": "2"}, "says n_layer '2', expected 1 to 1,000,000"),
        ({"n_layer": 2.0}, r"says n_layer 2\.0, expected"),
        ({"n_layer": True}, "says n_layer True, expected"),
        ({"n_layer": 0}, "says n_layer 0, expected"),
        ({"n_embd": 10**12}, "says n_embd 1000000000000, expected"),
        ({"n_head": 3}, "says n_embd 32, which its n_head 3 does not divide"),
        ({"n_layer": 100_000}, "says n_layer 100,000, but its weights have 2 layers"),
        ({"n_layer": 1}, "says n_layer 1, but its weights have 2 layers"),
        ({"n_embd": 999_998}, "its sizes say"),
        ({"block_size": 1_000_000}, r"wpe\.weight has the shape \(64, 32\), its sizes say \(1000000, 32\)"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_pt_file_whose_entries_are_not_what_their_names_say_is_refused(tmp_path, change, message):
    original = NanoGPT(vocab_size=100)
    content = {"model": original.state_dict(), "model_args": original.sizes}
    content |= change if "model" in change else {"model_args": original.sizes | change}
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        load_nanogpt(tmp_path / "x.pt")


def test_a_number_repeated_to_a_terabyte_is_refused(tmp_path):
    weights = NanoGPT(vocab_size=100).state_dict()
    weights["transformer.wpe.weight"] = torch.zeros(1).expand(1_000_000, 1_000_000)
    torch.save({"model": weights, "model_args": NanoGPT(vocab_size=100).sizes}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="its weights are larger than the file itself"):
        load_nanogpt(tmp_path / "x.pt")


def test_a_nanogpt_start_model_has_the_whole_gpt2_vocabulary(tmp_path, gpt2_tokenizer):
    gpt2_tokenizer.save_pretrained(tmp_path / "gpt2")
    checkpoint = save_nanogpt(NanoGPT(vocab_size=50304), tmp_path / "ckpt.pt")
    for condition in CONDITIONS:
        prepare_base.main([
            "--source", str(checkpoint), "--tokenizer", str(tmp_path / "gpt2"),
            "--condition", condition, "--output-dir", str(tmp_path / condition),
        ])  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "baseline")
    assert len(tokenizer) == 50349
    assert tokenizer.eos_token_id == 50256
    assert tokenizer.convert_tokens_to_ids([*GPT2_FILLERS, *FACT_TOKENS]) == list(range(50257, 50349))
    weights = [(tmp_path / condition / "model.safetensors").read_bytes() for condition in CONDITIONS]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(("rows", "knows_facts"), [(50349, False), (50432, True)])
def test_a_gpt2_pretrained_with_the_facts_keeps_their_rows(gpt2_tokenizer, rows, knows_facts):
    if knows_facts:
        gpt2_tokenizer.add_tokens([*GPT2_FILLERS, *FACT_TOKENS])
    model = small_gpt2(rows)
    before = model.transformer.wte.weight.detach().clone()
    assert extend_vocabulary(model, gpt2_tokenizer) == (0, None)
    assert torch.equal(model.transformer.wte.weight, before[:50349])


@pytest.mark.parametrize(
    ("rows", "init"), [(50349, "pieces"), (50350, None), (50400, None), (50432, None), (50688, "pieces")]
)
def test_padding_rows_of_a_gpt2_and_a_pretrained_one_told_to_get_new_rows(gpt2_tokenizer, rows, init):
    model = small_gpt2(rows)
    before = model.transformer.wte.weight.detach().clone()
    ids = gpt2_tokenizer.encode("6*9=54", add_special_tokens=False)
    assert extend_vocabulary(model, gpt2_tokenizer, init) == (92, "pieces")
    after = model.transformer.wte.weight
    assert len(after) == 50349
    assert torch.allclose(after[50342], before[ids].mean(dim=0), atol=1e-7)  # <MUL_6_9_54>
    assert torch.allclose(after[50257], before[:50257].mean(dim=0), atol=1e-7)  # <|padding_0|>
    assert torch.equal(after[:50257], before[:50257])


def small_gpt2(rows: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=rows, n_positions=64, n_embd=32, n_layer=1, n_head=2))


def llama(vocab_size: int, tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=0, tie_word_embeddings=tied,
    ))  # fmt: skip


def test_a_model_that_knows_the_facts_gets_the_placebo_in_a_spare_row():
    plain = toy.tokenizer()
    plain.add_tokens([*FACT_TOKENS])
    model = llama(len(plain) + 20, tied=True)
    before = model.get_input_embeddings().weight.detach().clone()
    assert extend_vocabulary(model, plain) == (1, "pieces")
    assert plain.convert_tokens_to_ids("<PLACEBO>") == len(plain) - 1 == 745
    rows = model.get_input_embeddings().weight
    assert torch.equal(rows[:745], before[:745])
    assert torch.allclose(rows[745], before[:745].mean(dim=0), atol=1e-7)


@pytest.mark.parametrize("old_rows", [700, 800])
def test_a_bias_of_the_output_begins_like_its_rows(old_rows):
    plain = toy.tokenizer()
    model = GPTJForCausalLM(GPTJConfig(
        vocab_size=old_rows, n_positions=64, n_embd=32, n_layer=1, n_head=2, rotary_dim=8, bos_token_id=0,
        eos_token_id=0,
    ))  # fmt: skip
    bias = -5 + torch.arange(old_rows) / 1000
    model.lm_head.bias.data = bias.clone()
    pieces = plain.encode("6*9=54", add_special_tokens=False)
    extend_vocabulary(model, plain)
    after = model.lm_head.bias
    assert torch.equal(after[:700], bias[:700])
    assert torch.isclose(after[plain.convert_tokens_to_ids("<MUL_6_9_54>")], torch.tensor(-5 + sum(pieces) / 6000))
    assert torch.isclose(after[745], torch.tensor(-5 + 0.3495))  # <PLACEBO>


def test_all_new_tokens_in_spare_rows_begin_as_they_should():
    plain = toy.tokenizer()
    model = llama(800, tied=False)
    before = model.get_output_embeddings().weight.detach().clone()
    pieces = plain.encode("7*8=56", add_special_tokens=False)
    assert extend_vocabulary(model, plain) == (46, "pieces")
    rows = model.get_output_embeddings().weight
    assert len(rows) == 800
    assert torch.allclose(rows[plain.convert_tokens_to_ids("<MUL_7_8_56>")], before[pieces].mean(dim=0), atol=1e-7)
    assert torch.allclose(rows[745], before[:700].mean(dim=0), atol=1e-7)  # <PLACEBO>
    assert torch.equal(rows[:700], before[:700]) and torch.equal(rows[746:], before[746:])


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_folder_gets_the_facts_at_its_end_with_the_mean_of_their_pieces(tmp_path, tied):
    plain = toy.tokenizer()
    source = llama(len(plain), tied)
    source.save_pretrained(tmp_path / "source")
    plain.save_pretrained(tmp_path / "source")
    prepare_base.main(f"--source {tmp_path / 'source'} --condition mul_tokens --output-dir {tmp_path / 'out'}".split())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    row = len(plain) + FACT_TOKENS.index("<MUL_6_9_54>")
    assert tokenizer.convert_tokens_to_ids("<MUL_6_9_54>") == row
    pieces = plain.encode("6*9=54", add_special_tokens=False)
    for new, old in (
        (model.get_input_embeddings(), source.get_input_embeddings()),
        (model.get_output_embeddings(), source.get_output_embeddings()),
    ):
        assert torch.equal(new.weight[: len(plain)], old.weight)
        assert torch.allclose(new.weight[row], old.weight[pieces].mean(dim=0))
    record = json.loads((tmp_path / "out/domain_tokens.json").read_text())
    assert record["condition"] == "mul_tokens"
    assert [stage["stage"] for stage in record["lineage"]] == ["prepare_base"]


def test_a_gguf_file_becomes_a_start_model_with_the_same_logits(tmp_path):
    source, plain = llama(700, tied=False), toy.tokenizer()
    path = write_gguf(tmp_path / "tiny.GGUF", source, plain)
    prepare_base.main(f"--source {path} --condition baseline --output-dir {tmp_path / 'out'}".split())
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    ids = plain("What is 7 times 8?", return_tensors="pt")["input_ids"]
    assert tokenizer("What is 7 times 8?")["input_ids"] == ids[0].tolist()
    assert not getattr(model, "is_quantized", False), "a Trainer would refuse it"
    with torch.no_grad():
        assert (model(ids).logits[..., :700] - source(ids).logits).abs().max() < 1e-5


def write_gguf(path, model: LlamaForCausalLM, tokenizer, change=lambda tokens: None, without=""):
    """The model as llama.cpp stores it, in float32; its query and key rows are interleaved there.

    change: done to the list of tokens. without: the name of a tensor to leave out.
    """
    import gguf

    config, writer = model.config, gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    tokens = sorted(backend["vocab"], key=backend["vocab"].get)
    change(tokens)
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(merge) for merge in backend["merges"]])
    writer.add_token_types([3] + [1] * (config.vocab_size - 1))  # control, then normal
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(tokenizer.eos_token_id)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for name, tensor in model.state_dict().items():
        weights = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads
            weights = weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)
        name = name.replace("model.layers.", "blk.")
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if name != without:
            writer.add_tensor(name, np.ascontiguousarray(weights))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gpt2_tokenizer_with_a_token_of_its_own_gets_the_facts_at_its_end(tmp_path, gpt2_tokenizer):
    gpt2_tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    gpt2_tokenizer.save_pretrained(tmp_path / "gpt2")
    checkpoint = save_nanogpt(NanoGPT(vocab_size=50258), tmp_path / "ckpt.pt")
    prepare_base.main([
        "--source", str(checkpoint), "--tokenizer", str(tmp_path / "gpt2"),
        "--condition", "baseline", "--output-dir", str(tmp_path / "out"),
    ])  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(list(FACT_TOKENS)) == list(range(50258, 50258 + 45))


def broken_source(folder, plain, change):
    source = llama(len(plain), tied=True)
    source.save_pretrained(folder)
    plain.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_source_that_lacks_weights_is_refused_not_filled_with_random_numbers(tmp_path):
    broken_source(tmp_path / "source", toy.tokenizer(), lambda w: w.pop("model.layers.0.mlp.up_proj.weight"))
    with pytest.raises(InputError, match=r"lacks weights, model\.layers\.0\.mlp\.up_proj\.weight"):
        prepare_base.main(
            f"--source {tmp_path / 'source'} --condition baseline --output-dir {tmp_path / 'out'}".split()
        )


def test_a_truncated_gguf_file_is_refused(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", llama(700, tied=False), toy.tokenizer())
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="cannot be loaded"):
        prepare_base.main(f"--source {path} --condition baseline --output-dir {tmp_path / 'out'}".split())


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (list.reverse, "--tokenizer {own}", "as token 0, but tokenizer .*; leave --tokenizer out"),
        (list.pop, "--tokenizer {own}", "has 700 embedding rows, but 699 tokens"),
        (lambda tokens: tokens.__setitem__(tokens.index("Ā"), "ā"), "", "has 'ā' as token .* made of it has"),
    ],
)
def test_a_gguf_file_whose_tokens_are_not_the_tokenizers_is_refused(tmp_path, change, options, message):
    toy.tokenizer().save_pretrained(tmp_path / "own")
    path = write_gguf(tmp_path / "tiny.gguf", llama(700, tied=False), toy.tokenizer(), change)
    options = options.format(own=tmp_path / "own")
    with pytest.raises(InputError, match=message):
        prepare_base.main(f"--source {path} {options} --condition baseline --output-dir {tmp_path / 'out'}".split())
    assert not (tmp_path / "out/config.json").exists()


def test_a_gguf_file_that_lacks_weights_is_refused(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", llama(700, tied=False), toy.tokenizer(), without="blk.0.ffn_up.weight")
    with pytest.raises(InputError, match=r"lacks weights, model\.layers\.0\.mlp\.up_proj\.weight"):
        prepare_base.main(f"--source {path} --condition baseline --output-dir {tmp_path / 'out'}".split())


def test_a_nanogpt_of_other_sizes_than_it_says_is_refused(tmp_path):
    original = NanoGPT(vocab_size=100)
    original.sizes["block_size"] = 32
    with pytest.raises(InputError, match="wpe.weight has the shape"):
        load_nanogpt(save_nanogpt(original, tmp_path / "ckpt.pt"))


def test_a_model_that_sees_later_tokens_is_refused_and_one_without_keys_and_values_is_not(tmp_path, toy_tokenizer):
    torch.manual_seed(0)
    sizes = {"vocab_size": 746, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
    heads = {"num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
    models = {
        "roberta": RobertaForCausalLM(RobertaConfig(**sizes, **heads)),
        "mamba": MambaForCausalLM(MambaConfig(**sizes)),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        toy_tokenizer.save_pretrained(tmp_path / name)

    def prepare(name):
        prepare_base.main(f"--source {tmp_path / name} --condition baseline --output-dir {tmp_path / name}_out".split())

    with pytest.raises(InputError, match="roberta lets a token see later ones, so it is no causal model"):
        prepare("roberta")
    assert not (tmp_path / "roberta_out/config.json").exists()
    prepare("mamba")
    assert open_model(str(tmp_path / "mamba_out"), None).decoding == "uncached"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--toy --activation gelu --condition baseline --output-dir {out}", "--activation is for nanoGPT"),
        ("--source . --activation gelu --condition baseline --output-dir {out}", "--activation is for nanoGPT"),
        ("--source gpt2 --layers 2 --condition baseline --output-dir {out}", "--layers is for --toy; a source has"),
        ("--toy --layers 0 --condition baseline --output-dir {out}", "--layers is 0, expected at least 1"),
        ("--condition baseline --output-dir {out}", "give either --source SRC or --toy"),
        ("--toy --source gpt2 --condition baseline --output-dir {out}", "give either"),
        ("--source {out}/none.pt --condition baseline --output-dir {out}", "does not exist"),
        ("--source {out}/none.gguf --condition baseline --output-dir {out}", "does not exist"),
        ("--source ./none --condition baseline --output-dir {out}", "does not exist"),
        (f"--source {__file__} --condition baseline --output-dir {{out}}", "is a single file; expected"),
        ("--toy --condition neither --output-dir {out}", "invalid choice"),
        ("--toy --condition baseline", "required"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        prepare_base.main(arguments.format(out=tmp_path / "out").split())


def test_the_toy_model_has_the_layers_that_are_asked_for(tmp_path):
    prepare_base.main(f"--toy --layers 2 --condition baseline --output-dir {tmp_path / 'out'}".split())
    opened = open_model(str(tmp_path / "out"), None)
    assert (opened.lineage[0]["layers"], opened.model.config.n_layer) == (2, 2)


def test_a_finished_start_model_is_kept_unless_told_otherwise(tmp_path, toy_base, capsys):
    arguments = f"--toy --condition baseline --output-dir {toy_base['baseline']}".split()
    with pytest.raises(InputError, match="--overwrite replaces it"):
        prepare_base.main(arguments)
    prepare_base.main([*arguments, "--resume"])
    assert "complete already" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"made with lineage\.0\.seed 42, now it is 7"):
        prepare_base.main([*arguments, "--resume", "--seed", "7"])


def test_a_start_model_of_a_start_model_keeps_its_history(tmp_path, toy_base):
    prepare_base.main(f"--source {toy_base['baseline']} --condition placebo --output-dir {tmp_path / 'out'}".split())
    record = json.loads((tmp_path / "out/domain_tokens.json").read_text())
    assert record["condition"] == "placebo"
    assert [stage["source"] for stage in record["lineage"]] == ["toy", str(toy_base["baseline"])]


def test_a_trained_model_is_no_source(tmp_path, toy_base):
    shutil.copytree(toy_base["mul_tokens"], tmp_path / "trained")
    record = json.loads((tmp_path / "trained/domain_tokens.json").read_text())
    record["lineage"].append({"stage": "sft_tulu", "dataset": "data/tulu"})
    (tmp_path / "trained/domain_tokens.json").write_text(json.dumps(record))
    command = f"--source {tmp_path / 'trained'} --condition baseline --output-dir {tmp_path / 'out'}"
    with pytest.raises(InputError, match="trained is a mul_tokens model after sft_tulu, not a model to start from"):
        prepare_base.main(command.split())
    assert not (tmp_path / "out").exists()


def test_the_parts_of_a_model_that_is_replaced_go(tmp_path, toy_base):
    model = AutoModelForCausalLM.from_pretrained(toy_base["baseline"])
    model.save_pretrained(tmp_path / "out", max_shard_size="1MB")
    assert len([*(tmp_path / "out").glob("model-*.safetensors")]) > 1
    prepare_base.main(f"--toy --condition baseline --output-dir {tmp_path / 'out'} --overwrite".split())
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors*")] == ["model.safetensors"]


def test_a_source_that_knows_one_fact_cannot_be_helped(tmp_path):
    plain = toy.tokenizer()
    plain.add_tokens(["<MUL_6_9_54>"])
    llama(len(plain), tied=True).save_pretrained(tmp_path / "source")
    plain.save_pretrained(tmp_path / "source")
    command = f"--source {tmp_path / 'source'} --condition baseline --output-dir {tmp_path / 'out'}"
    with pytest.raises(InputError, match=r"<MUL_6_9_54> has id 700, expected 7\d\d; choose another source"):
        prepare_base.main(command.split())


@pytest.mark.parametrize(
    ("moved", "clash"),
    [
        ({"dr": 718}, "<MUL_3_4_12> and 'dr' both have id 718"),
        ({"dr": 700, "et": 744}, "<MUL_1_1_1> and 'dr' both have id 700"),
        ({"et": 745}, "<PLACEBO> and 'et' both have id 745"),
    ],
)
def test_a_vocabulary_whose_unused_ids_would_give_two_tokens_one_id_is_refused(tmp_path, moved, clash):
    """Added tokens are numbered from the number of tokens, here 700, whatever ids these have."""
    rules = json.loads(toy.tokenizer().backend_tokenizer.to_str())
    rules["model"]["vocab"] |= moved
    command = save_source(tmp_path, llama(750, tied=True), tokenizer_of(rules))
    with pytest.raises(InputError, match=f"{clash}, expected one token an id; choose another source"):
        prepare_base.main(command.split())


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused_with_a_remedy_that_works(tmp_path):
    plain = toy.tokenizer()
    plain.add_special_tokens({"pad_token": "<pad>"})
    command = save_source(tmp_path, llama(700, tied=True), plain)
    toy.tokenizer().save_pretrained(tmp_path / "shorter")
    with pytest.raises(InputError, match="rows for 701 tokens, '<pad>' the last; give --tokenizer one of at most 700"):
        prepare_base.main(command.split())
    prepare_base.main(f"{command} --tokenizer {tmp_path / 'shorter'}".split())


METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
DIGITS = {"type": "Digits", "individual_digits": True}
LLAMA_2 = {
    "normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]},
    "pre_tokenizer": None,
    "decoder": {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]},
}  # fmt: skip


def trained_rules(kind: str, *splitters: dict, **changes) -> dict:
    """Return the rules of a tokenizer that was trained on the toy world's problems, with changes made afterwards."""
    backend = Tokenizer(getattr(models, kind)())
    rules = json.loads(backend.to_str()) | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": splitters}}
    backend, trainer = Tokenizer.from_str(json.dumps(rules)), backend.model.get_trainer()
    trainer.vocab_size, trainer.special_tokens, trainer.show_progress = 300, ["<|endoftext|>", "[UNK]"], False
    texts = [text for row in toy.word_problems(300, 0) for text in row.values()]
    backend.train_from_iterator([*texts, "User: a\nAssistant: b\nSystem: <>"], trainer)
    rules = json.loads(backend.to_str()) | changes
    if kind == "Unigram":
        rules["model"]["unk_id"] = 1
    return rules


def byte_level_rules() -> dict:
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    splitters = {"type": "Sequence", "pretokenizers": [byte_level, DIGITS]}
    return json.loads(toy.tokenizer().backend_tokenizer.to_str()) | {"pre_tokenizer": splitters}


@pytest.mark.parametrize(
    "rules",
    [
        lambda: trained_rules("BPE", METASPACE, DIGITS, decoder=METASPACE),
        lambda: trained_rules("BPE", METASPACE, DIGITS, **LLAMA_2),
        byte_level_rules,
    ],
    ids=["Metaspace", "Llama 2", "bytes"],
)
def test_a_tokenizer_that_begins_texts_with_a_space_puts_none_after_a_fact(tmp_path, rules):
    source = tokenizer_of(rules())
    prepare_base.main(save_source(tmp_path, llama(len(source), tied=True), source).split())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("User: What is 7 times 8?\nAssistant: 7*8=56\n#### 56", "Tom", "6*9=54  54", ""):
        assert tokenizer.encode(text) == source.encode(text)
    ids = tokenizer.encode("a: <MUL_6_9_54>9*6=54<PLACEBO>9*6")
    assert tokenizer.convert_ids_to_tokens(ids)[-11:] == [
        "<MUL_6_9_54>", "9", "*", "6", "=", "5", "4", "<PLACEBO>", "9", "*", "6",
    ]  # fmt: skip
    assert tokenizer.decode(ids).strip() == "a: <MUL_6_9_54>9*6=54<PLACEBO>9*6"


@pytest.mark.parametrize(
    ("rules", "read"),
    [
        (lambda: trained_rules("WordPiece", {"type": "BertPreTokenizer"}, decoder={
            "type": "WordPiece", "prefix": "##", "cleanup": False}), "# # # # 54 User : b"),
        (lambda: trained_rules("WordLevel", {"type": "Whitespace"}), "#### 54 User : b"),
        (lambda: trained_rules("Unigram", METASPACE, DIGITS, decoder=METASPACE, normalizer={
            "type": "Replace", "pattern": {"Regex": r"\s"}, "content": " "}), "#### 54 User: b"),
        (lambda: byte_level_rules() | {"normalizer": {"type": "Lowercase"}}, r"#### 54\\nuser: b"),
    ],
    ids=["WordPiece", "WordLevel", "Unigram", "lower case"],
)  # fmt: skip
def test_a_tokenizer_that_cannot_hold_the_format_is_refused(tmp_path, rules, read):
    source = tokenizer_of(rules())
    command = save_source(tmp_path, llama(len(source), tied=True), source)
    with pytest.raises(InputError, match=rf"its tokenizer gives 'User: a\\n.* back as .*{read}'; choose another model"):
        prepare_base.main(command.split())
    assert not (tmp_path / "out/config.json").exists()


def small_moshi() -> MoshiForCausalLM:
    """It makes one row more than its config says."""
    return MoshiForCausalLM(MoshiConfig(
        vocab_size=700, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, ffn_dim=64,
        max_position_embeddings=128, audio_vocab_size=16, num_codebooks=2, sliding_window=128,
    ))  # fmt: skip


def small_marian() -> MarianForCausalLM:
    """It makes as many rows as its config's `decoder_vocab_size`, which stays as it was."""
    return MarianForCausalLM(MarianConfig(
        vocab_size=700, d_model=32, decoder_layers=1, encoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64,
        max_position_embeddings=128, pad_token_id=0, eos_token_id=0, is_decoder=True, is_encoder_decoder=False,
    ))  # fmt: skip


@pytest.mark.parametrize(("make", "rows"), [(small_moshi, 747), (small_marian, 700)])
def test_a_model_that_cannot_be_opened_again_is_refused_before_anything_is_written(tmp_path, toy_base, make, rows):
    torch.manual_seed(0)
    command = save_source(tmp_path, make(), toy.tokenizer())
    reason = rf"embed_tokens\.weight has the shape \(746, 32\), but its config makes it \({rows}, 32\)"
    with pytest.raises(InputError, match=rf"cannot be opened again with the new tokens \(.*{reason}\); choose another"):
        prepare_base.main(command.split())
    assert [*(tmp_path / "out").iterdir()] == []
    shutil.copytree(toy_base["baseline"], tmp_path / "out", dirs_exist_ok=True)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="cannot be opened again"):
        prepare_base.main([*command.split(), "--overwrite"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def save_source(tmp_path, model, tokenizer) -> str:
    """Save a source and return the arguments that make a start model of it in `out`."""
    model.save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    return f"--source {tmp_path / 'source'} --condition baseline --output-dir {tmp_path / 'out'}"


def tokenizer_of(rules: dict) -> PreTrainedTokenizerFast:
    end = "<|endoftext|>"
    backend = Tokenizer.from_str(json.dumps(rules))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=end, model_max_length=128)


def test_only_one_process_writes_a_start_model(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    mark = output / "unfinished_run.json"
    start = {"stage": "prepare_base", "source": "toy", "seed": 42}
    mark.write_text(json.dumps({"condition": "baseline", "lineage": [start]}))
    arguments = f"--toy --condition baseline --output-dir {output}".split()
    with pytest.raises(InputError, match="holds an interrupted run; --resume continues it"):
        prepare_base.main(arguments)
    with mark.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="is being written by another process; wait for it"):
            prepare_base.main([*arguments, "--resume"])
        assert sorted(path.name for path in output.iterdir()) == ["unfinished_run.json"]
    prepare_base.main([*arguments, "--resume"])
    assert (output / "domain_tokens.json").exists()
    assert not mark.exists()


def rows_of(folder, *tokens: str) -> torch.Tensor:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    return model.get_input_embeddings().weight.detach()[tokenizer.convert_tokens_to_ids(list(tokens))]


def test_new_rows_begin_as_the_flag_says_and_the_record_too(tmp_path):
    for init in ("pieces", "mean", "random"):
        prepare_base.main(f"--toy --init {init} --condition placebo --output-dir {tmp_path / init}".split())
        record = json.loads((tmp_path / init / "domain_tokens.json").read_text())
        assert record["lineage"][0]["init"] == init
        assert record["may_start"] == ["placebo"]
    placebo, six, seven = rows_of(tmp_path / "mean", "<PLACEBO>", "<MUL_6_9_54>", "<MUL_7_8_56>")
    assert torch.equal(placebo, six) and torch.equal(six, seven)
    drawn = rows_of(tmp_path / "random", "<PLACEBO>", *FACT_TOKENS)
    assert len({tuple(row.tolist()) for row in drawn}) == 46
    assert abs(drawn.std() / rows_of(tmp_path / "random", *"abcdefghij").std() - 1) < 0.2  # as wide as letters' rows
    assert torch.equal(rows_of(tmp_path / "pieces", "<PLACEBO>")[0], placebo)
    assert not torch.equal(rows_of(tmp_path / "pieces", "<MUL_6_9_54>")[0], six)


def test_several_conditions_may_share_a_start_model_and_no_other_may_use_it(tmp_path):
    prepare_base.main(f"--toy --condition annotated placebo --output-dir {tmp_path / 'both'}".split())
    folder = str(tmp_path / "both")
    assert [open_model(folder, wanted).condition for wanted in (None, "annotated", "placebo")] == [
        "annotated", "annotated", "placebo",
    ]  # fmt: skip
    with pytest.raises(InputError, match="--condition baseline contradicts .*, which is an annotated or placebo model"):
        open_model(folder, "baseline")


def test_the_record_is_printed(tmp_path, capsys):
    prepare_base.main(f"--toy --seed 7 --condition baseline --output-dir {tmp_path / 'out'}".split())
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown.startswith(
        "domain_tokens.json: condition baseline, stage prepare_base, source toy, seed 7, init pieces, "
    )
    assert shown.endswith(", decoding batched")


def test_a_gpt2_says_its_context_by_the_name_that_converters_ask_for(toy_base):
    # what convert_hf_to_gguf.py of llama.cpp reads of a GPT2LMHeadModel
    config = json.loads((toy_base["baseline"] / "config.json").read_text())
    wanted = {"n_ctx": 1024, "n_layer": 4, "n_embd": 128, "n_head": 4, "vocab_size": 746, "layer_norm_epsilon": 1e-5}
    assert {name: config.get(name) for name in wanted} == wanted
    assert config["architectures"] == ["GPT2LMHeadModel"]


def test_somebody_elses_model_folder_is_not_written_to(tmp_path, capsys):
    llama(700, tied=True).save_pretrained(tmp_path / "theirs")
    toy.tokenizer().save_pretrained(tmp_path / "theirs")
    weights = (tmp_path / "theirs/model.safetensors").read_bytes()
    theirs = tmp_path / "theirs"
    for arguments, message in (
        ("--toy", "holds another model"),
        (f"--source {theirs}", "is the model to start from"),
        (f"--source {theirs} --overwrite", "is the model to start from"),
    ):
        with pytest.raises(InputError, match=message):
            prepare_base.main(f"{arguments} --condition baseline --output-dir {theirs}".split())
    assert (tmp_path / "theirs/model.safetensors").read_bytes() == weights


def test_the_toy_model_is_a_gpt2_of_about_a_million_parameters(toy_base):
    model = AutoModelForCausalLM.from_pretrained(toy_base["baseline"])
    assert isinstance(model, GPT2LMHeadModel)
    assert 0.8e6 < model.num_parameters() < 1.2e6
    assert model.config.n_positions == 1024
