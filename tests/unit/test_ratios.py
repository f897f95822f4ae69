"""Ratios over questions: intervals and p-values equal those of scipy, and differences are claimed as they should be."""

import numpy as np
import pytest
from scipy import stats

from domain_tokens.comparison import statistics
from domain_tokens.comparison.ratios import linearised, sign_flip_p


def test_means_of_linearised_values_are_the_ratios_of_the_sums():
    sums, sizes = np.array([[1.0, 0, 2, 3], [0, 1, 2, 2]]), np.array([1.0, 2, 3, 4])
    values = linearised(sums, sizes)
    assert values.mean(axis=1) == pytest.approx([6 / 10, 5 / 10])
    assert values.mean() == pytest.approx(11 / 20)


def test_the_interval_is_that_of_scipys_bootstrap_of_the_ratio():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 60, 400).astype(float)
    sums = sizes * (0.02 + 0.3 * rng.standard_normal(400))
    reference = stats.bootstrap(
        (sums, sizes), lambda y, x, axis=-1: y.sum(axis=axis) / x.sum(axis=axis), paired=True, method="percentile",
        n_resamples=10_000, rng=rng,
    ).confidence_interval  # fmt: skip
    found = statistics.mean_interval(linearised(sums[None], sizes), 7)
    assert found == pytest.approx((reference.low, reference.high), abs=0.002)


def test_the_p_value_is_that_of_scipys_permutation_test():
    sums = np.random.default_rng(1).standard_normal((1, 80)) + 0.2
    reference = stats.permutation_test(
        (sums[0],), np.sum, permutation_type="samples", n_resamples=10_000, rng=np.random.default_rng(2)
    )
    assert sign_flip_p(sums, 3) == pytest.approx(reference.pvalue, abs=0.01)
    assert sign_flip_p(sums, 3) == sign_flip_p(sums, 3)


def test_five_questions_that_one_side_has_right_are_not_enough():
    sums = np.zeros((1, 300))
    sums[0, :5] = 1
    assert statistics.mean_test(sums, 0)[1] < 0.05, "the bootstrap alone would claim it"
    assert sign_flip_p(sums, 0) == pytest.approx(2 / 2**5, abs=0.01)
    assert sign_flip_p(np.zeros((1, 300)), 0) == 1


def test_the_intervals_p_value_is_where_the_interval_reaches_zero():
    values = np.random.default_rng(3).standard_normal((1, 200))
    for shift in (0.05, 0.15, 0.3):
        (low, high), p = statistics.mean_test(values - values.mean() + shift, 0)
        assert (low > 0) == (p < 0.05)
        assert p == pytest.approx(2 * stats.norm.sf(shift / (values.std() / 200**0.5)), abs=0.02)
        assert high > low


def steps(seeds, questions, luck, difference, seed):
    """Right steps of two models: questions of unlike difficulty with 1 to 4 steps each; seeds of unlike luck.

    Returns seeds × questions of either model, and the number of steps by question.
    """
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 5, questions)
    chances = rng.beta(2.5, 5.8, questions) * (1 + luck * rng.standard_normal((2, seeds, 1)))
    chances = np.clip(chances + np.array([0, difference])[:, None, None], 0, 1)
    right = (rng.random((2, seeds, questions, 4)) < chances[..., None]) & (np.arange(4) < count[:, None])
    return right[0], right[1], count


def bits(seeds, questions, luck, difference, seed):
    """Bits of two models: questions of unlike length and difficulty, which either model has learnt unlike."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 5, questions) * rng.integers(4, 20, questions)
    hard = np.exp(0.5 * rng.standard_normal(questions))
    learnt = 0.3 * hard * rng.standard_normal((2, 1, questions)) + 0.2 * hard * rng.standard_normal(
        (2, seeds, questions)
    )
    rate = hard + learnt + luck * rng.standard_normal((2, seeds, 1)) + np.array([0, difference])[:, None, None]
    return rate[0] * size, rate[1] * size, size


def sums(outcome):
    a, b, sizes = outcome
    return (b.sum(axis=-1) - a.sum(axis=-1) if a.ndim == 3 else b - a).astype(float), sizes.astype(float)


def share_claimed(measure, design, difference, runs):
    """Claim as `compare` does: by the interval and by the permutation test."""
    claimed = 0
    for i in range(runs):
        differences, sizes = sums(measure(*design, difference, i))
        (low, high), _p = statistics.mean_test(linearised(differences, sizes), i)
        if not low <= 0 <= high:
            claimed += sign_flip_p(differences, i) < 0.05
    return claimed / runs


def stated(measure, design, runs=30):
    """The median of what comparisons of equal models state as detectable."""
    found = []
    for i in range(runs):
        a, b, sizes = outcome = measure(*design, 0, 1000 + i)
        spread_at = {}
        if measure is steps:
            total = sizes.sum() * len(a)
            discordant, added = (a != b).sum() / total, abs(1 - (a.sum() + b.sum()) / total)
            spread_at = {"spread_at": lambda delta, d=discordant, more=added: (d + more * delta) / d}
        found.append(statistics.detectable_mean(linearised(*sums(outcome)), **spread_at))
    return np.median(found)


# How often it errs in more designs and more runs: progress/2026-11-25-comparison.md
@pytest.mark.parametrize(
    ("measure", "design"), [(steps, (1, 300, 0)), (steps, (4, 300, 0.07)), (bits, (1, 300, 0)), (bits, (4, 300, 0.05))]
)
def test_equal_models_are_told_apart_in_one_run_of_twenty_and_detectable_differences_in_four_of_five(
    monkeypatch, measure, design
):
    monkeypatch.setattr("domain_tokens.comparison.statistics.RESAMPLES", 500)
    assert 0.025 <= share_claimed(measure, design, 0, 400) <= 0.075
    assert 0.7 <= share_claimed(measure, design, stated(measure, design), 200) <= 0.9
