"""Every architecture decodes in a way that is right for it, or is refused by name."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from domain_tokens.evaluation.greedy import decode_greedy
from domain_tokens.models.decoding import find_decoding, whole_logits
from domain_tokens.models.folder import OpenModel
from domain_tokens.runs.errors import InputError

# Small values for all the names that configs have for their sizes; each architecture takes those it knows.
SIZES = {
    "vocab_size": 746, "hidden_size": 32, "n_embd": 32, "d_model": 32, "num_hidden_layers": 2, "n_layer": 2,
    "num_layers": 2, "num_attention_heads": 4, "n_head": 4, "num_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 64, "ffn_dim": 64, "moe_intermediate_size": 16, "max_position_embeddings": 64,
    "n_positions": 64, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
LATENT = {
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "q_lora_rank": 16, "kv_lora_rank": 16, "n_group": 1,
    "topk_group": 1, "num_key_value_heads": 4,
}  # fmt: skip
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 16}

# What each needs beside its sizes, and how it must decode: None for those that see later tokens.
ARCHITECTURES = [
    ("gpt2", {}, "batched"),
    ("llama", {}, "batched"),
    ("mistral", {"sliding_window": 4}, "batched"),
    ("mixtral", {"output_router_logits": True}, "batched"),
    ("qwen2", {}, "batched"),
    ("qwen2_moe", {"output_router_logits": True}, "batched"),
    ("qwen3", {}, "batched"),
    ("olmoe", {"output_router_logits": True}, "batched"),
    ("gpt_oss", {"output_router_logits": True}, "batched"),
    ("llama4_text", {"attention_chunk_size": 4, "num_hidden_layers": 4}, "batched"),
    ("gemma", {}, "batched"),
    ("gemma2", {"sliding_window": 6}, "batched"),
    ("gemma3_text", {"sliding_window": 4, "num_hidden_layers": 6}, "batched"),
    ("phi", {}, "batched"),
    ("phi3", {}, "batched"),
    ("gpt_neo", {"attention_types": [[["global", "local"], 1]], "window_size": 6}, "batched"),
    ("gpt_neox", {}, "batched"),
    ("gptj", {"rotary_dim": 8}, "batched"),
    ("gpt_bigcode", {}, "batched"),
    ("bloom", {}, "batched"),
    ("opt", {}, "batched"),
    ("mpt", {}, "batched"),
    ("falcon", {}, "batched"),
    ("olmo2", {}, "batched"),
    ("granite", {}, "batched"),
    ("cohere", {}, "batched"),
    ("stablelm", {}, "batched"),
    ("starcoder2", {}, "batched"),
    ("xglm", {}, "batched"),
    ("biogpt", {}, "batched"),
    ("deepseek_v3", LATENT | {"head_dim": 8}, "batched"),
    ("smollm3", {}, "batched"),
    ("bert", {"is_decoder": True}, "batched"),
    ("qwen3_next", LINEAR, "single"),
    ("bamba", MAMBA2 | {"attn_layer_indices": [1]}, "single"),
    ("jamba", {"attn_layer_offset": 1, "attn_layer_period": 2}, "single"),
    ("openai-gpt", {}, "uncached"),
    ("mamba", {}, "uncached"),
    ("rwkv", {}, "uncached"),
    ("recurrent_gemma", {"num_hidden_layers": 3}, "uncached"),
    ("minimax", {}, "uncached"),
    ("roberta", {"is_decoder": True}, "uncached"),
    ("roberta", {}, None),
    ("bert", {}, None),
    ("electra", {}, None),
    ("xlnet", {}, None),
]


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models are faster without threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_model(name: str, settings: dict):
    known = AutoConfig.for_model(name)
    sizes = {key: size for key, size in SIZES.items() if key in known.to_dict() or key in known.attribute_map}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes | settings))
    for parameter in model.parameters():  # random weights all say the same; make them differ more
        parameter.data *= 4 if parameter.ndim > 1 else 1
    return model


def greedy_reply(model, prompt: list[int], count: int) -> list[int]:
    """Reading the whole text again for every token."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(whole_logits(model, torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    ("name", "settings", "way"), [case for case in ARCHITECTURES if case[2]], ids=lambda case: str(case)[:20]
)
def test_an_architecture_says_in_its_way_what_the_whole_text_says(toy_tokenizer, name, settings, way):
    model = small_model(name, settings)
    random_state = torch.get_rng_state()
    assert find_decoding(model.train(), toy_tokenizer, name) == way
    assert model.training
    assert torch.equal(torch.get_rng_state(), random_state)
    opened = OpenModel(name, model.eval(), toy_tokenizer, "baseline", [], "", "", way)
    prompts = [[(7 * i + j) % 600 + 3 for j in range(length)] for i, length in enumerate((9, 5, 3))]
    replies = dict(decode_greedy(opened, prompts, 4))
    assert len(replies) == 3
    for i, reply in replies.items():
        assert reply == greedy_reply(model, prompts[i], 4)[: len(reply)]


@pytest.mark.parametrize(("name", "settings", "way"), [case for case in ARCHITECTURES if not case[2]])
def test_an_architecture_that_sees_later_tokens_is_refused_by_name(toy_tokenizer, name, settings, way):
    with pytest.raises(InputError, match=rf"{name} of mine lets a token see later ones, so it is no causal model"):
        find_decoding(small_model(name, settings), toy_tokenizer, f"{name} of mine")


def test_a_norm_that_divides_by_nan_is_refused(toy_tokenizer):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=746, n_embd=8, n_layer=1, n_head=2, layer_norm_epsilon=float("nan")))
    with pytest.raises(InputError, match="x computes logits that are no finite numbers; check its config"):
        find_decoding(model, toy_tokenizer, "x")


def test_a_model_that_cannot_read_a_text_is_refused_with_the_reason(toy_tokenizer):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=746, n_positions=4, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(InputError, match="x cannot compute a text's logits"):
        find_decoding(model, toy_tokenizer, "x")
