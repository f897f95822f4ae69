"""Intervals and p-values equal those of scipy and statsmodels; differences are claimed as often as they should be."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_effectsize

from domain_tokens.comparison.statistics import (
    accuracy_interval,
    cohens_h,
    detectable_difference,
    holm_p,
    mcnemar_p,
    mean_interval,
)


def right(seed, shape, share):
    return (np.random.default_rng(seed).random(shape) < share).astype(int)


def test_with_one_seed_the_interval_is_scipys_paired_bootstrap():
    a, b = right(0, (1, 200), 0.5), right(1, (1, 200), 0.6)
    reference = stats.bootstrap(
        (b[0], a[0]), lambda x, y, axis=-1: (x - y).mean(axis=axis), paired=True, method="percentile",
        n_resamples=10_000, rng=np.random.default_rng(7),
    ).confidence_interval  # fmt: skip
    assert mean_interval(b - a, 7) == pytest.approx((reference.low, reference.high), abs=0.006)
    assert mean_interval(b - a, 7) == mean_interval(b - a, 7)


def test_where_questions_do_not_differ_it_is_students_interval_over_seeds():
    values = np.repeat([[0.02], [0.05], [0.11]], 50, axis=1)
    reference = stats.ttest_1samp([0.02, 0.05, 0.11], 0).confidence_interval()
    assert mean_interval(values, 0) == pytest.approx((reference.low, reference.high), abs=3e-4)


def test_seeds_that_differ_only_by_chance_count_as_more_of_the_same():
    values = right(2, (1, 400), 0.6) - right(3, (1, 400), 0.5)
    several = np.repeat(values, 3, axis=0)
    assert mean_interval(several, 0) == pytest.approx(mean_interval(values, 0))


def test_seeds_that_differ_by_more_make_it_wider():
    by_questions = mean_interval(np.repeat(right(4, (1, 300), 0.5), 3, axis=0) - 0.5, 0)
    differing = np.stack([right(4, 300, share) for share in (0.3, 0.5, 0.7)]) - 0.5
    assert np.ptp(mean_interval(differing, 0)) > 3 * np.ptp(by_questions)


@pytest.mark.parametrize(("only_a", "only_b"), [(17, 23), (0, 5), (0, 6), (80, 1), (0, 0)])
def test_p_is_that_of_statsmodels_exact_mcnemar(only_a, only_b):
    table = [[50, only_a], [only_b, 100]]
    assert mcnemar_p(only_a, only_b) == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_p_values_of_categories_are_corrected_for_being_several():
    # Holm 1979: sorted 0.01·3, 0.03·2, 0.04·1, none smaller than the one before
    assert holm_p([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


def test_effect_size_is_that_of_statsmodels():
    assert cohens_h(0.6, 0.5) == pytest.approx(proportion_effectsize(0.6, 0.5)) == pytest.approx(0.2014, abs=1e-4)
    assert cohens_h(0.5, 0.6) == pytest.approx(-0.2014, abs=1e-4)


def test_accuracies_of_one_seed_have_wilsons_interval_and_of_several_stay_within_0_and_1():
    # by hand: (50 + 1.96²/2) / (100 + 1.96²) ± 1.96 / (100 + 1.96²) · √(50·50/100 + 1.96²/4)
    assert accuracy_interval(np.array([[1, 0] * 50]), 0) == pytest.approx([0.4038, 0.5962], abs=1e-4)
    low, high = accuracy_interval(np.array([[1] * 100, [1] * 100, [1] * 90 + [0] * 10]), 0)
    assert 0 < low < 0.967 < high == 1


def test_what_is_detectable_is_what_a_paired_t_test_could_see_and_a_little_more():
    a, b = right(0, (1, 1000), 0.5), right(1, (1, 1000), 0.5)
    effect = TTestPower().solve_power(nobs=1000, alpha=0.05, power=0.8)
    assert detectable_difference(a, b) == pytest.approx(effect * (b - a).std(), rel=0.05)
    assert detectable_difference(a, b) > effect * (b - a).std()  # the exact test is a little stricter


def test_equal_answers_could_still_have_shown_a_difference():
    # Six questions that only one side has right are significant, five are not; with 200 questions 3.94% of them give at
    # least six in 4 of 5 runs: stats.binom.sf(5, 200, 0.0394) = 0.80
    same = right(0, (1, 200), 0.5)
    assert detectable_difference(same, same) == pytest.approx(0.0394, abs=2e-4)
    assert detectable_difference(same[:, :5], same[:, :5]) is None


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_where_one_side_has_all_right_and_the_other_nothing_any_difference_would_show(seeds):
    """Nothing varies, so that only the exact test says what it needs, and every pair is discordant."""
    everything, nothing = np.ones((seeds, 81), int), np.zeros((seeds, 81), int)
    found = detectable_difference(everything, nothing)
    assert found == detectable_difference(nothing, everything)
    assert found == pytest.approx(TTestPower().solve_power(nobs=81 * seeds, alpha=0.05, power=0.8), rel=0.1)


def simulated(seeds, questions, spread, difference, seed):
    """Outcomes of two models: questions of unlike difficulty, and seeds of unlike luck in either condition."""
    rng = np.random.default_rng(seed)
    difficulty = 0.3 + 0.15 * rng.standard_normal(questions)
    luck = spread * rng.standard_normal((2, seeds, 1))
    chances = np.clip(difficulty + luck + np.array([0, difference])[:, None, None], 0, 1)
    return (rng.random(chances.shape) < chances).astype(int)


def share_claimed(seeds, questions, spread, difference, runs):
    claimed = 0
    for i in range(runs):
        a, b = simulated(seeds, questions, spread, difference, i)
        low, high = mean_interval(b - a, i)
        p = mcnemar_p(int((a > b).sum()), int((b > a).sum()))
        claimed += not low <= 0 <= high and p < 0.05
    return claimed / runs


@pytest.mark.parametrize(("seeds", "questions", "spread"), [(1, 300, 0), (3, 300, 0.02)])
def test_equal_models_are_told_apart_in_one_run_of_twenty_and_detectable_differences_in_four_of_five(
    monkeypatch, seeds, questions, spread
):
    monkeypatch.setattr("domain_tokens.comparison.statistics.RESAMPLES", 500)
    assert 0.025 <= share_claimed(seeds, questions, spread, 0, 1000) <= 0.075
    stated = [detectable_difference(*simulated(seeds, questions, spread, 0, i)) for i in range(50)]
    assert 0.72 <= share_claimed(seeds, questions, spread, np.median(stated), 500) <= 0.88
