"""Two groups compared step by step: how many steps are right, and how many bits the text around them takes.

Steps of one question are not independent, so questions are what is resampled.
"""

from typing import Any

import numpy as np

from domain_tokens.comparison import ratios, statistics
from domain_tokens.comparison.formats import BITS
from domain_tokens.comparison.reading import Evaluation, Runs


def compare_steps(groups: Runs, seed: int) -> list[dict[str, Any]]:
    """Return a row each for right steps, bits of numbers and bits of words. seed: of the bootstrap.

    groups: two, the reference first, with the same steps and bytes.
    """
    first = next(iter(groups.values()))[0]
    steps = _sums(first, None)
    rows = [_step_accuracy(groups, steps, seed)]
    for name, kind in (("numbers", "number"), ("words", "word")):
        sizes = _sums(first, f"{kind}_bytes")
        if sizes.any():
            rows.append(_bits(f"{name}, {BITS}", groups, f"{kind}_bits", sizes, seed))
    return rows


def _step_accuracy(groups: Runs, steps: np.ndarray, seed: int) -> dict[str, Any]:
    (reference, a), (other, b) = ((label, _by_question(group, "correct")) for label, group in groups.items())
    row = _row("step accuracy", {reference: a, other: b}, steps, seed)
    for label, right in ((reference, a), (other, b)):
        low, high = row[label]["interval"]
        row[label] = {
            "correct": int(right.sum()),
            "accuracy": row[label].pop("ratio"),
            **row[label],
            "interval": [max(0.0, low), min(1.0, high)],
        }
    share_a, share_b = row[reference]["accuracy"], row[other]["accuracy"]
    discordant = _discordant(*groups.values())

    def spread_at(delta: float) -> float:
        """As in `statistics.detectable_difference`: a difference adds to the steps that only one side has right."""
        return min(1.0, max(delta, discordant + abs(1 - share_a - share_b) * delta)) / discordant

    return row | {
        "permutation_p": ratios.sign_flip_p(b - a, seed),
        "cohens_h": statistics.cohens_h(share_b, share_a),
        "detectable_difference": statistics.detectable_mean(ratios.linearised(b - a, steps), spread_at),
    }


def _bits(name: str, groups: Runs, key: str, sizes: np.ndarray, seed: int) -> dict[str, Any]:
    sums = {label: _by_question(group, key) for label, group in groups.items()}
    row = _row(name, sums, sizes, seed)
    for label in sums:
        low, high = row[label]["interval"]
        row[label] = {"bits_per_byte": row[label].pop("ratio"), **row[label], "interval": [max(0.0, low), high]}
    a, b = sums.values()
    return row | {
        "unit": BITS,
        "permutation_p": ratios.sign_flip_p(b - a, seed),
        "cohens_h": None,
        "detectable_difference": statistics.detectable_mean(ratios.linearised(b - a, sizes)),
    }


def _row(name: str, sums: dict[str, np.ndarray], sizes: np.ndarray, seed: int) -> dict[str, Any]:
    a, b = sums.values()
    differences = ratios.linearised(b - a, sizes)
    within, p = statistics.mean_test(differences, seed)
    row = {"name": name, "questions": len(sizes)}
    row |= {label: _group(ratios.linearised(own, sizes), seed) for label, own in sums.items()}
    return row | {"difference": float(differences.mean()), "interval": list(within), "interval_p": p}


def _group(values: np.ndarray, seed: int) -> dict[str, Any]:
    by_seed = values.mean(axis=1)
    return {
        "ratio": float(values.mean()),
        "interval": list(statistics.mean_interval(values, seed)),
        "by_seed": by_seed.tolist(),
        "std_over_seeds": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
    }


def _by_question(group: list[Evaluation], key: str) -> np.ndarray:
    """Return seeds × questions: the sum of a field over each question's steps."""
    return np.array([_sums(each, key) for each in group])


def _sums(evaluation: Evaluation, key: str | None) -> np.ndarray:
    """Return by question the sum of a field over its steps; of None, their number."""
    questions = [row["id"].rpartition("-")[0] for row in evaluation.predictions]
    weights = None if key is None else [row[key] for row in evaluation.predictions]
    return np.bincount(np.unique(questions, return_inverse=True)[1], weights).astype(float)


def _discordant(one: list[Evaluation], other: list[Evaluation]) -> float:
    """Return the share of steps that only one side has right."""
    right = [np.array([[row["correct"] for row in each.predictions] for each in group]) for group in (one, other)]
    return float((right[0] != right[1]).mean())
