"""Rows are laid out in parts: the same loss and gradients as padded ones, and no row sees another."""

import numpy as np
import pytest
import torch

from domain_tokens.batches import Collator, micro_batches, split_by_length
from domain_tokens.checkpoints import open_checkpoint
from domain_tokens.prompt import IGNORED_LABEL

LENGTHS = [3, 40, 7, 40, 12, 25, 2, 18]


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    made = []
    for length in LENGTHS:
        ids = rng.integers(0, 700, length)
        labels = np.where(np.arange(length) < length // 2, IGNORED_LABEL, ids)
        made.append({"input_ids": ids, "labels": labels})
    return made


@pytest.fixture
def model(toy_base):
    return open_checkpoint(str(toy_base["baseline"]), None).model.eval()


def test_groups_are_of_like_length_and_within_the_limits():
    groups = [group.tolist() for group in split_by_length(np.array(LENGTHS), 80)]
    assert groups == [[1, 3], [5, 7, 4], [2, 0, 6]]
    assert [len(group) for group in split_by_length(np.array(LENGTHS), 80, max_rows=2)] == [2, 2, 2, 2]
    assert len(list(split_by_length(np.array(LENGTHS), 1))) == len(LENGTHS), "a row longer than the limit goes alone"


def test_every_row_comes_once_whole_and_padded_to_its_own_part(rows):
    seen = []
    for part in micro_batches(Collator(pad_id=9)(rows), 80):
        assert set(part) == {"input_ids", "labels"}
        assert part["input_ids"].numel() <= 80
        for ids, labels in zip(part["input_ids"].tolist(), part["labels"].tolist(), strict=True):
            (i,) = [i for i, row in enumerate(rows) if ids[: len(row["input_ids"])] == row["input_ids"].tolist()]
            length = LENGTHS[i]
            assert labels[:length] == rows[i]["labels"].tolist()
            assert set(labels[length:]) <= {IGNORED_LABEL}
            seen.append(i)
    assert sorted(seen) == list(range(len(rows)))


def gradients(model, parts, tokens):
    model.zero_grad()
    loss = 0.0
    for part in parts:
        shared = model(**part, num_items_in_batch=tokens).loss
        shared.backward()
        loss += shared.item()
    return loss, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_loss_and_gradients_are_those_of_the_padded_batch(model, rows):
    padded = Collator(pad_id=0)(rows)
    tokens = (padded["labels"][:, 1:] != IGNORED_LABEL).sum()
    wide = {
        name: torch.nn.functional.pad(tensor, (0, 24), value=IGNORED_LABEL if name == "labels" else 0)
        for name, tensor in padded.items()
    }
    loss, expected = gradients(model, [wide], tokens)
    for limits in ((80, None), (1, None), (10**6, 3)):
        found_loss, found = gradients(model, micro_batches(padded, *limits), tokens)
        assert found_loss == pytest.approx(loss, rel=1e-4)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


def test_no_row_sees_another(model, rows):
    """Changing one row, or what the padding is, changes no other row's logits."""
    (before,) = micro_batches(Collator(pad_id=0)(rows), 10**6)
    rows[1]["input_ids"] = (rows[1]["input_ids"] + 1) % 700
    (after,) = micro_batches(Collator(pad_id=5)(rows), 10**6)
    order = np.argsort(-np.array(LENGTHS), kind="stable")
    with torch.no_grad():
        first, second = (model(part["input_ids"]).logits for part in (before, after))
    for place, i in enumerate(order):
        same = torch.equal(first[place, : LENGTHS[i]], second[place, : LENGTHS[i]])
        assert same == (i != 1), i
