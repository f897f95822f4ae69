"""However rows are laid out in parts, loss and gradients are those of padded rows, and no row sees another."""

import inspect
import itertools

import numpy as np
import pytest
import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from domain_tokens.models.batching import fill_bins, split_by_length
from domain_tokens.models.folder import open_model
from domain_tokens.prompt import IGNORED_LABEL
from domain_tokens.training.packing import Collator, prepare_model

LENGTHS = [3, 40, 7, 40, 12, 25, 2, 18]
SMALL = {"vocab_size": 746, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    made = []
    for length in LENGTHS:
        ids = rng.integers(0, 700, length).astype(np.int32)
        labels = np.where(np.arange(length) < length // 2, IGNORED_LABEL, ids).astype(np.int32)
        made.append({"input_ids": ids, "labels": labels})
    made[0]["labels"][:] = made[0]["input_ids"]  # as with loss_on "all": a first token that cannot be predicted
    return made


def gpt2(toy_base):
    return open_model(str(toy_base["baseline"]), None).model.eval()


def llama():
    torch.manual_seed(0)
    config = LlamaConfig(**SMALL, num_key_value_heads=2, intermediate_size=64)
    return LlamaForCausalLM(config).eval()


def bloom():
    """Return a model whose attention is written into its own module."""
    torch.manual_seed(0)
    return BloomForCausalLM(BloomConfig(vocab_size=746, hidden_size=32, n_layer=2, n_head=4)).eval()


def gpt_neo():
    """Return a model that refuses another attention with a warning only."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 746, "hidden_size": 32, "num_layers": 2, "num_heads": 4}
    return GPTNeoForCausalLM(GPTNeoConfig(**sizes, attention_types=[[["global"], 2]])).eval()


def gemma():
    """Return a model with capped attention scores, capped logits and sliding windows."""
    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, intermediate_size=64)).eval()


def scaled():
    """Return a model that multiplies its logits with a constant."""
    torch.manual_seed(0)
    return CohereForCausalLM(CohereConfig(**SMALL, num_key_value_heads=2, intermediate_size=64)).eval()


def test_bins_are_filled_within_the_limits():
    assert fill_bins(np.array(LENGTHS), 80) == [[1, 3], [5, 7, 4, 2, 0, 6]]
    assert fill_bins(np.array(LENGTHS), 50) == [[1, 2, 0], [3, 6], [5, 7], [4]]
    assert fill_bins(np.array(LENGTHS), 80, max_rows=3) == [[1, 3], [5, 7, 4], [2, 0, 6]]
    assert len(fill_bins(np.array(LENGTHS), 1)) == len(LENGTHS), "a row longer than the limit is alone"


def test_groups_have_similar_lengths_within_the_limits():
    assert list(split_by_length(np.array(LENGTHS), 80)) == [[1, 3], [5, 7, 4], [2, 0, 6]]
    assert [len(group) for group in split_by_length(np.array(LENGTHS), 80, max_rows=2)] == [2, 2, 2, 2]
    assert len(list(split_by_length(np.array(LENGTHS), 1))) == len(LENGTHS), "a row longer than the limit is alone"


def test_packed_rows_have_positions_ends_and_targets():
    first = {"input_ids": np.array([5, 6, 7, 8], np.int32), "labels": np.array([-100, -100, 7, 8], np.int32)}
    second = {"input_ids": np.array([9, 3], np.int32), "labels": np.array([9, 3], np.int32)}
    batch = Collator(0, 80, None, is_packed=True)([first, second])
    assert batch["labels"].tolist() == [-100, -100, 7, 8, -100, 3]
    (part,) = batch["parts"]
    assert part["input_ids"].tolist() == [[5, 6, 7, 8, 9, 3]]
    assert part["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1]]
    assert part["row_ends"].tolist() == [0, 4, 6]
    assert part["longest_row"] == 4
    assert part["trained"].tolist() == [1, 2, 4], "7 and 8 are predicted one token earlier, 9 by nothing, 3 by 9"
    assert part["targets"].tolist() == [7, 8, 3]


def test_processes_share_the_rows_of_a_step(rows):
    shares = [Collator(0, 80, None, True, rank, 3)(rows) for rank in range(3)]
    targets = [sorted(t for part in share["parts"] for t in part["targets"].tolist()) for share in shares]
    for rank, found in enumerate(targets):
        own = [row["labels"][1:] for row in rows[rank::3]]
        assert found == sorted(np.concatenate([labels[labels != IGNORED_LABEL] for labels in own]).tolist())


@pytest.mark.parametrize("is_packed", [True, False])
def test_processes_get_equally_many_parts(is_packed, rows):
    """Rows of 3, 7, 12, 2 and of 40, 40, 25, 18 tokens: the long ones fill three parts of 45, or four when padded."""
    parts = [Collator(0, 45, None, is_packed, rank, 2)(rows)["parts"] for rank in range(2)]
    assert [len(share) for share in parts] == ([3, 3] if is_packed else [4, 4])
    dummy = parts[0][-1]
    assert dummy["input_ids"].numel() == 1
    assert not len(dummy["targets"]) if is_packed else dummy["labels"].tolist() == [[IGNORED_LABEL]]


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_process_without_a_row_has_no_loss_and_no_gradient(is_packed, rows, toy_base):
    model = gpt2(toy_base)
    if is_packed:
        assert prepare_model(model) is None
    batch = Collator(0, 80, None, is_packed, rank=2, processes=3)(rows[:2])
    assert (batch["labels"] != IGNORED_LABEL).sum() == 0
    loss, gradients = loss_and_gradients(model, batch["parts"], torch.tensor(5))
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients.values())


def test_every_row_is_in_one_part_padded_to_its_longest_row(rows):
    seen = []
    for part in Collator(9, 80, None, is_packed=False)(rows)["parts"]:
        assert set(part) == {"input_ids", "labels"}
        assert part["input_ids"].numel() <= 80
        for ids, labels in zip(part["input_ids"].tolist(), part["labels"].tolist(), strict=True):
            (i,) = [i for i, row in enumerate(rows) if ids[: len(row["input_ids"])] == row["input_ids"].tolist()]
            length = LENGTHS[i]
            assert labels[1:length] == rows[i]["labels"].tolist()[1:]
            assert set(labels[length:]) <= {IGNORED_LABEL}
            seen.append(i)
    assert sorted(seen) == list(range(len(rows)))


def loss_and_gradients(model, parts, tokens):
    model.zero_grad()
    loss = 0.0
    for part in parts:
        shared = model(**part, num_items_in_batch=tokens).loss
        shared.backward()
        loss += shared.item()
    return loss, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("make", "padding_reason"),
    [
        (gpt2, None),
        (llama, None),
        (bloom, "attention cannot be replaced"),
        (gpt_neo, "attention cannot be replaced"),
        (gemma, "attention cannot be replaced (this attention is over whole rows only"),
        (scaled, "logits are more than its output layer's"),
    ],
)
def test_loss_and_gradients_are_those_of_rows_padded_by_the_stock_model(
    make, padding_reason, rows, toy_base, monkeypatch
):
    model = make(toy_base) if make is gpt2 else make()
    shape = len(rows), max(LENGTHS) + 24
    wide = {"input_ids": torch.zeros(shape, dtype=torch.long), "labels": torch.full(shape, IGNORED_LABEL)}
    wide["attention_mask"] = torch.zeros_like(wide["input_ids"])
    for i, row in enumerate(rows):
        length = LENGTHS[i]
        wide["input_ids"][i, :length] = torch.from_numpy(row["input_ids"])
        wide["labels"][i, :length] = torch.from_numpy(row["labels"])
        wide["attention_mask"][i, :length] = 1
    tokens = (wide["labels"][:, 1:] != IGNORED_LABEL).sum()
    loss, expected = loss_and_gradients(model, [wide], tokens)

    found_reason = prepare_model(model)
    assert found_reason is None if padding_reason is None else padding_reason in found_reason
    is_packed = padding_reason is None
    for max_tokens, max_rows, logit_bytes in ((80, None, 1 << 30), (1, None, 1 << 30), (10**6, 3, 100_000)):
        # 100 kB: the logits of 11 positions
        monkeypatch.setattr("domain_tokens.models.batching._CPU_LOGITS", logit_bytes)
        batch = Collator(0, max_tokens, max_rows, is_packed)(rows)
        assert (batch["labels"][1:] != IGNORED_LABEL).sum() == tokens
        found_loss, found = loss_and_gradients(model, batch["parts"], tokens)
        assert found_loss == pytest.approx(loss, rel=1e-4)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("is_packed", [True, False])
def test_no_row_sees_another(is_packed, rows, toy_base):
    """The gradient of a row's loss with respect to another row's tokens is zero."""
    model = gpt2(toy_base)
    if is_packed:
        assert prepare_model(model) is None
    watched = 3
    for i, row in enumerate(rows):
        if i != watched:
            row["labels"][:] = IGNORED_LABEL
    (part,) = Collator(0, 10**6, None, is_packed)(rows)["parts"]
    embedded = []
    hook = model.get_input_embeddings().register_forward_hook(lambda *args: embedded.append(args[2]) or args[2])
    loss = model(**part, num_items_in_batch=1).loss
    hook.remove()
    (gradient,) = torch.autograd.grad(loss, embedded[-1])
    touched = gradient.abs().sum(-1) > 0
    ids = part["input_ids"][touched].tolist()
    assert ids == rows[watched]["input_ids"].tolist()[: len(ids)]
    assert len(ids) == LENGTHS[watched] - 1, "all but the last, which predicts nothing"


@pytest.mark.parametrize("make", [gpt2, llama])
def test_flash_attention_gets_the_same_rows(make, rows, toy_base, monkeypatch):
    """A CPU has none: its arguments are put through plain attention, row by row."""
    model = make(toy_base) if make is gpt2 else make()
    assert prepare_model(model) is None
    part = Collator(0, 10**6, None, is_packed=True)(rows)["parts"][0]
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(**part, num_items_in_batch=1).loss
    signature, calls = inspect.signature(varlen_attn), []

    def flash(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        calls.append(given)
        assert given["window_size"] == (-1, 0)
        assert {given[name].dtype for name in ("query", "key", "value")} == {torch.bfloat16}
        assert given["enable_gqa"] is (make is llama)
        assert given["max_q"] == given["max_k"] == 40
        ends = given["cu_seq_q"].tolist()
        assert ends == given["cu_seq_k"].tolist()
        attended = []
        for first, last in itertools.pairwise(ends):
            row = (given[name][first:last].transpose(0, 1) for name in ("query", "key", "value"))
            shares = given["enable_gqa"]
            attended.append(
                torch.nn.functional.scaled_dot_product_attention(
                    *row, is_causal=True, scale=given["scale"], enable_gqa=shares
                )
            )
        return torch.cat(attended, dim=1).transpose(0, 1)

    monkeypatch.setattr("domain_tokens.training.packing.varlen_attn", flash)
    monkeypatch.setattr("domain_tokens.training.packing._has_flash", lambda query: True)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(**part, num_items_in_batch=1).loss, expected, rtol=1e-3, atol=0)
    assert len(calls) == model.config.num_hidden_layers
