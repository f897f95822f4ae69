"""Intervals, p-values, effect sizes and power of means over seeds and questions. Matrices are seeds × questions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

CONFIDENCE = 0.95
POWER = 0.80
RESAMPLES = 10_000


def mean_interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the 95% interval of the mean over both questions and seeds, from a hierarchical bootstrap.

    Questions are resampled with replacement, each with all its seeds (percentile bootstrap, Efron & Tibshirani 1993,
    ch. 13). Seeds may differ by more than chance among their questions explains (mean squares of a two-way layout,
    Searle, Casella & McCulloch 1992, ch. 4). Then that chance is taken out of the questions' spread, and each
    resampled mean gets a draw of the seeds' own spread: Student's t with seeds - 1 degrees of freedom, since few seeds
    say little about their spread. Resampling the seeds themselves would count chance twice, and would miss a third of
    the spread of three seeds.

    With one seed, or with seeds that agree, this is the plain bootstrap. With questions that do not differ beyond
    chance, it is Student's interval over the seeds' means.

    values: paired differences (-1, 0, 1) or right answers (0, 1). seed: of the resampling.
    """
    return _quantile_interval(_drawn_means(values, seed))


def mean_test(values: np.ndarray, seed: int) -> tuple[tuple[float, float], float]:
    """Return `mean_interval` and its p-value: 1 minus the confidence at which the interval would just reach 0.

    The p-value is twice the smaller share of drawn means on either side of 0, plus one draw for the sample itself
    (Davison & Hinkley 1997, ch. 4.2), so it accounts for seeds as the interval does. Where no drawn mean is on the
    other side, the tail of a normal distribution, with several seeds of Student's t, of the same interval says how far
    below that it is: many corrected contrasts would otherwise never show anything.
    """
    means = _drawn_means(values, seed)
    least = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (least + 1) / (len(means) + 1))
    low, high = _quantile_interval(means)
    if least == 0:
        tail = stats.t(len(values) - 1) if len(values) > 1 else stats.norm
        width = (high - low) / 2 / tail.ppf((1 + CONFIDENCE) / 2)
        p = min(p, float(2 * tail.sf(abs(means.mean()) / width)) if width else 0.0)
    return (low, high), p


def _drawn_means(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    by_question = values.mean(axis=0)
    means, spread = _resampled_means(by_question, rng), _Spread.of(values)
    kept, between = spread.parts(spread.seeds)
    if between:
        means = by_question.mean() + (means - by_question.mean()) * np.sqrt(kept / spread.questions if kept else 0)
        means = means + _seed_effects(len(values), rng, RESAMPLES) * np.sqrt(between)
    return means


def _quantile_interval(means: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def accuracy_interval(right: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the 95% interval of an accuracy: Wilson's for one seed, `mean_interval` within 0 and 1 for several."""
    if len(right) == 1:
        wilson = stats.binomtest(int(right.sum()), right.size).proportion_ci(CONFIDENCE, method="wilson")
        return float(wilson.low), float(wilson.high)
    low, high = mean_interval(right, seed)
    return max(0.0, low), min(1.0, high)


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Return the p-value of McNemar's test (1947) in its exact form, a two-sided binomial test.

    only_a, only_b: the number of questions that only one side has right.
    """
    discordant = only_a + only_b
    return float(stats.binomtest(only_b, discordant).pvalue) if discordant else 1.0


def holm_p(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple tests (Holm 1979): among several, one is easily below 0.05 by chance."""
    from statsmodels.stats.multitest import multipletests  # takes a second to import

    return multipletests(p_values, method="holm")[1].tolist()


def cohens_h(a: float, b: float) -> float:
    """Return the effect size of two proportions, 2·asin√a - 2·asin√b: small is 0.2, large 0.8 (Cohen 1988, ch. 6)."""
    return float(2 * np.arcsin(np.sqrt(a)) - 2 * np.arcsin(np.sqrt(b)))


def detectable_difference(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return the smallest true difference in accuracy that runs like these find with 80% power; None if there is none.

    A difference is found if both the interval and McNemar's test show it, so the larger of what the two need counts.
    a, b: right answers (0, 1) of either side.
    """
    discordant = float(np.mean(a != b))
    # The farther accuracies are from one half, the more a difference between them adds to the discordant pairs.
    added = abs(1 - float(a.mean() + b.mean()))

    def discordant_at(delta: float) -> float:
        return min(1.0, max(delta, discordant + added * delta))

    exact = _smallest(lambda delta: _mcnemar_power(delta, a.size, discordant_at(delta)))
    if exact is None or not discordant:
        return exact
    power_at = _interval_power(b - a)
    by_interval = _smallest(lambda delta: power_at(delta, discordant_at(delta) / discordant))
    return None if by_interval is None else max(exact, by_interval)


def detectable_mean(values: np.ndarray, spread_at: Callable[[float], float] = lambda delta: 1.0) -> float | None:
    """Return the smallest true mean that the interval of values like these finds with 80% power; None if there is none.

    spread_at: how much larger the variance is at a true mean.
    """
    if values.std() == 0:  # no difference, or one question: nothing says how much chance varies
        return None
    power_at = _interval_power(values)
    return _smallest(lambda delta: power_at(delta, spread_at(delta)), most=max(1.0, 100 * float(values.std())))


def _resampled_means(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if (values == values[0]).all():
        return np.full(RESAMPLES, values[0])  # every resample is the sample
    resampled = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, batch=500, confidence_level=CONFIDENCE, method="percentile", rng=rng
    )
    return resampled.bootstrap_distribution


def _seed_effects(seeds: int, rng: np.random.Generator, count: int) -> np.ndarray:
    """Return evenly spread quantiles of Student's t in random order: real draws would leave its tails to luck."""
    return rng.permutation(stats.t.ppf((np.arange(count) + 0.5) / count, seeds - 1))


@dataclass(frozen=True)
class _Spread:
    """Variances of the overall mean, as estimated from the questions, from the seeds, and from chance alone."""

    questions: float
    seeds: float
    chance: float  # the interaction of seed and question; contained in both of the others
    count: int  # of seeds

    @classmethod
    def of(cls, values: np.ndarray) -> "_Spread":
        seeds, questions = values.shape
        of_questions = float(values.mean(axis=0).var()) / questions
        if seeds == 1 or questions == 1:
            return cls(of_questions, float(values.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0, 0.0, seeds)
        rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
        chance = float((rest**2).sum()) / ((seeds - 1) * (questions - 1)) / (seeds * questions)
        return cls(of_questions, float(values.mean(axis=1).var(ddof=1)) / seeds, chance, seeds)

    def parts(self, seen: float | np.ndarray) -> tuple[Any, Any]:
        """Return the variances that questions and seeds add to the interval if the seeds show the variance `seen`."""
        differ = seen > self.chance
        return np.where(differ, max(0.0, self.questions - self.chance), self.questions), np.where(differ, seen, 0.0)

    def scaled(self, factor: float) -> "_Spread":
        return _Spread(self.questions * factor, self.seeds * factor, self.chance * factor, self.count)


def _interval_power(values: np.ndarray) -> Callable[[float, float], float]:
    """Return a function of the true difference and a factor of the variance: the chance that the interval excludes 0.

    The mean is taken as normal, with the variance that questions and seeds show. The variance that other seeds would
    show, and so the interval's width, follows a scaled chi-square distribution. The variance of these seeds is read as
    the median of that distribution, so that the answer is too large as often as too small.
    """
    observed = _Spread.of(values)
    normal = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    if observed.count == 1:
        factors, median, effects = np.zeros(1), 1.0, np.zeros(len(normal))
    else:
        degrees = observed.count - 1
        factors = stats.chi2.ppf((np.arange(100) + 0.5) / 100, degrees) / degrees
        median = stats.chi2.median(degrees) / degrees
        effects = _seed_effects(observed.count, np.random.default_rng(0), len(normal))

    def power(delta: float, more: float) -> float:
        spread = observed.scaled(more)
        of_seeds = max(spread.chance, observed.seeds / median)  # seeds' own variance does not grow with the difference
        kept, between = spread.parts(of_seeds * factors)
        drawn = normal * np.sqrt(kept)[:, None] + effects * np.sqrt(between)[:, None]
        reach = np.quantile(np.abs(drawn), CONFIDENCE, axis=1)
        true = spread.questions + of_seeds - spread.chance
        return float(stats.norm.cdf(delta, reach, np.sqrt(max(true, 1e-30))).mean())

    return power


def _mcnemar_power(delta: float, pairs: int, discordant: float) -> float:
    """Return the chance that the exact test finds a difference of `delta`. discordant: the share of such pairs."""
    low, high = stats.binom.ppf([1e-6, 1 - 1e-6], pairs, discordant)
    counts = np.arange(low, high + 1)
    # The smallest number of pairs in favour that is significant, for each number of discordant pairs.
    needed = stats.binom.isf((1 - CONFIDENCE) / 2, counts, 0.5) + 1
    found = stats.binom.sf(needed - 1, counts, (1 + delta / discordant) / 2)
    return float((stats.binom.pmf(counts, pairs, discordant) * found).sum())


def _smallest(power: Callable[[float], float], most: float = 1.0) -> float | None:
    """Return the smallest difference that is found with 80% power. most: the largest that can be."""
    least = 1e-9
    if power(most) < POWER:
        return None
    if power(least) >= POWER:  # nothing varies
        return 0.0
    return float(optimize.brentq(lambda delta: power(delta) - POWER, least, most, xtol=1e-5))
