"""Ratios of sums over questions: right steps over steps, bits over bytes. Questions, not steps, are what is sampled."""

import numpy as np

from domain_tokens.comparison import statistics

_BATCH = 500


def linearised(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return a value for each seed and question, whose means over questions are the seeds' ratios Σ sums / Σ sizes.

    A ratio's error is that of the mean of its linearised values to first order (Cochran 1977, Sampling Techniques,
    ch. 6; Woodruff 1971), so all that is known about means of seeds × questions holds for it.

    sums: seeds × questions, differences between two groups or one group's own. sizes: by question, the same in all
    seeds and groups.
    """
    ratio = sums.sum(axis=1).mean() / sizes.sum()
    return ratio + (sums - ratio * sizes) / sizes.mean()


def sign_flip_p(sums: np.ndarray, seed: int) -> float:
    """Return the p-value of a paired permutation test of differences (Fisher 1935, ch. 21; Good 2005, ch. 3).

    If the groups were equal, each question's difference could just as well have the opposite sign. The p-value is the
    share of random signs, the sample's own included, whose sum is at least as far from 0. It is exact for few questions
    that differ, where the bootstrap is too sure, and knows nothing of seeds.

    sums: seeds × questions; a question's seeds change sign together.
    """
    by_question = sums.sum(axis=0)
    by_question = by_question[by_question != 0]
    rng, seen, extreme = np.random.default_rng(seed), abs(by_question.sum()), 1
    rounding, batches = 1e-9 * np.abs(by_question).sum(), -(-statistics.RESAMPLES // _BATCH)
    for _ in range(batches):
        turned = rng.integers(0, 2, (_BATCH, len(by_question)), dtype=np.int8).astype(np.float32)
        drawn = 2 * (turned @ by_question) - by_question.sum()
        extreme += int((np.abs(drawn) >= seen - rounding).sum())
    return extreme / (batches * _BATCH + 1)
