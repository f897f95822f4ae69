"""Every prompt gets the reply it gets alone, for models of several kinds and however the prompts are read."""

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from domain_tokens.evaluation.greedy import decode_greedy, fitting_batch_size
from domain_tokens.evaluation.grouped_decoding import ATTENTION
from domain_tokens.models.folder import OpenModel, open_model

SMALL = {"vocab_size": 746, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {"num_key_value_heads": 2, "intermediate_size": 64}
MODELS = {
    "gpt2": None,  # the toy one
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, **GROUPED)),
    "gemma": lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, **GROUPED, head_dim=8, sliding_window=6)),
    "gpt-neo": lambda: GPTNeoForCausalLM(
        GPTNeoConfig(vocab_size=746, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global"], 2]])
    ),
    "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=746, hidden_size=32, n_layer=2, n_head=4)),
}


@pytest.fixture(params=MODELS)
def checkpoint(request, toy_base) -> OpenModel:
    found = open_model(str(toy_base["baseline"]), None)
    if make := MODELS[request.param]:
        torch.manual_seed(0)
        found.model = make()
        for parameter in found.model.parameters():  # small random weights give every prompt the same reply
            parameter.data *= 4 if parameter.ndim > 1 else 1
    found.model.eval()
    return found


def stock_reply(checkpoint: OpenModel, prompt: list[int], count: int) -> list[int]:
    """transformers' own greedy generation of one prompt."""
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": count, "min_new_tokens": None, "do_sample": False, "pad_token_id": 0}
    eos = checkpoint.tokenizer.eos_token_id
    with torch.inference_mode():
        output = checkpoint.model.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=eos, **settings)
    return output[0, len(prompt) :].tolist()


def test_every_prompt_gets_the_reply_it_gets_alone(checkpoint, monkeypatch):
    monkeypatch.setattr("domain_tokens.evaluation.grouped_decoding.CPU_PIECE", 40)  # read in several parts
    monkeypatch.setattr("domain_tokens.evaluation.grouped_decoding.CPU_GROUP", 80)  # and kept in several groups
    prompts = [[(7 * i + j) % 600 + 3 for j in range(length)] for i, length in enumerate((23, 20, 9, 8, 3, 1))]
    found = dict(decode_greedy(checkpoint, prompts, 14))
    assert checkpoint.model.config._attn_implementation != ATTENTION, "the model is left as it was"
    assert found == {i: stock_reply(checkpoint, prompt, 14) for i, prompt in enumerate(prompts)}
    assert len({tuple(reply) for reply in found.values()}) > 1


def test_rows_that_leave_the_batch_change_nothing_for_the_others(checkpoint, monkeypatch):
    monkeypatch.setattr("domain_tokens.evaluation.grouped_decoding.CPU_GROUP", 80)
    prompts = [[(11 * i + j) % 600 + 3 for j in range(20 - i)] for i in range(9)]
    said = [token for prompt in prompts for token in stock_reply(checkpoint, prompt, 12)[3:]]
    # The most frequent token ends a reply, so that some end early.
    checkpoint.tokenizer.eos_token = checkpoint.tokenizer.convert_ids_to_tokens(max(set(said), key=said.count))
    expected = {i: stock_reply(checkpoint, prompt, 12) for i, prompt in enumerate(prompts)}
    assert len({len(reply) for reply in expected.values()}) > 1
    assert dict(decode_greedy(checkpoint, prompts, 12)) == expected


def test_a_cpu_takes_fewer_long_prompts_than_short_ones(toy_base):
    model = open_model(str(toy_base["baseline"]), None).model
    # a gigabyte of keys and values: 2 x 4 layers x 128 wide x 4 bytes a position
    sizes = [fitting_batch_size(model, positions) for positions in (100, 1000, 10**6)]
    assert sizes == [2621, 262, 1]
