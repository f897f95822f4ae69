"""The two conditions' evaluations side by side: what the difference is and whether it means anything.

One run of each condition, or several of different seeds. Right answers are matrices, seeds × questions, of 0 and 1;
what is judged is their difference, mul_tokens minus baseline, paired by seed and by question.
"""

from typing import Any

import numpy as np

from domain_tokens.comparison.reading import Evaluation, Predictions, Runs
from domain_tokens.comparison.statistics import (
    accuracy_interval,
    cohens_h,
    detectable_difference,
    mcnemar_p,
    mean_interval,
)
from domain_tokens.conditions import CONDITIONS
from domain_tokens.evaluation.scores import metrics, mul_table
from domain_tokens.runs.names import GSM8K_EVAL, PROBES_EVAL

NO_DIFFERENCE = "no difference shown"
ALPHA = 0.05


def compare_evaluations(runs: dict[str, Runs], seed: int) -> list[dict[str, Any]]:
    """One row a measure: GSM8K, strict GSM8K, all probes and each category of them. seed: of the bootstrap."""
    rows = []
    if GSM8K_EVAL in runs:
        rows.append(_compare("GSM8K", runs[GSM8K_EVAL], seed))
        rows.append(_compare("GSM8K, strict", runs[GSM8K_EVAL], seed, key="correct_strict"))
    if PROBES_EVAL in runs:
        rows.append(_compare("probes", runs[PROBES_EVAL], seed))
        asked = runs[PROBES_EVAL].baseline[0].results["metrics"]["category_accuracies"]
        categories = [_compare(f"probes: {name}", runs[PROBES_EVAL], seed, category=name) for name in asked]
        _correct_for_several(categories)
        rows += categories
    for row in rows:
        row["verdict"] = verdict(row)
    return rows


def token_usage(runs: dict[str, Runs]) -> dict[str, Any]:
    """How long replies are and how many facts they hold, over all seeds, by evaluation and condition."""
    keys = ("mul_token_count", "mul_tokens_per_response", "avg_response_tokens", "finished_rate")
    usage: dict[str, Any] = {}
    for name, both in runs.items():
        pooled = {condition: metrics(_pooled(both.of(condition))) for condition in CONDITIONS}
        usage[name] = {condition: {key: pooled[condition][key] for key in keys} for condition in CONDITIONS}
    return usage


def _pooled(evaluations: list[Evaluation]) -> Predictions:
    return [row for evaluation in evaluations for row in evaluation.predictions]


def right_answers(evaluations: list[Evaluation], key: str = "correct", category: str | None = None) -> np.ndarray:
    """Seeds × questions, 1 where the answer is right."""
    return np.array(
        [
            [row[key] for row in evaluation.predictions if category is None or row["category"] == category]
            for evaluation in evaluations
        ],
        dtype=int,
    )


def _compare(name: str, runs: Runs, seed: int, key: str = "correct", category: str | None = None) -> dict[str, Any]:
    a, b = (right_answers(runs.of(condition), key, category) for condition in CONDITIONS)
    only_baseline, only_mul_tokens = int((a > b).sum()), int((b > a).sum())
    return {
        "name": name,
        "questions": a.shape[1],
        "baseline": _accuracy(a, seed),
        "mul_tokens": _accuracy(b, seed),
        "difference": float((b - a).mean()),
        "interval": list(mean_interval(b - a, seed)),
        "only_baseline_right": only_baseline,
        "only_mul_tokens_right": only_mul_tokens,
        "mcnemar_p": mcnemar_p(only_baseline, only_mul_tokens),
        "cohens_h": cohens_h(b.mean(), a.mean()),
        "detectable_difference": detectable_difference(a, b),
    }


def _accuracy(right: np.ndarray, seed: int) -> dict[str, Any]:
    by_seed = right.mean(axis=1)
    return {
        "correct": int(right.sum()),
        "accuracy": float(right.mean()),
        "interval": list(accuracy_interval(right, seed)),
        "by_seed": by_seed.tolist(),
        "std_over_seeds": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
    }


def _correct_for_several(rows: list[dict[str, Any]]) -> None:
    """Holm's correction (Holm 1979): of three categories one is easily below 0.05 by chance."""
    from statsmodels.stats.multitest import multipletests  # takes a second to import

    adjusted = multipletests([row["mcnemar_p"] for row in rows], alpha=ALPHA, method="holm")[1]
    for row, p in zip(rows, adjusted, strict=True):
        row["holm_p"] = float(p)


def verdict(row: dict[str, Any]) -> str:
    """A difference is claimed only where the interval leaves out 0 and the exact test agrees.

    With a handful of discordant questions the bootstrap alone is too sure of itself; the exact test knows nothing of
    seeds.
    """
    low, high = row["interval"]
    if not low <= 0 <= high and row.get("holm_p", row["mcnemar_p"]) < ALPHA:
        return "mul_tokens better" if low > 0 else "baseline better"
    detectable = row["detectable_difference"]
    if detectable is None:
        return f"{NO_DIFFERENCE}; a run like this could not have seen any"
    return f"{NO_DIFFERENCE}; this run could have seen a difference of {100 * detectable:.1f} points"


def headline(row: dict[str, Any]) -> str:
    """One measure in a sentence."""
    low, high = row["interval"]
    accuracies = f"mul_tokens {row['mul_tokens']['accuracy']:.1%}, baseline {row['baseline']['accuracy']:.1%}"
    difference = f"difference {100 * row['difference']:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}"
    return f"{row['name']}: {row['verdict']} ({accuracies}; {difference})"


def mul_tables_by_condition(runs: Runs) -> dict[str, np.ndarray]:
    """By condition 9×9, row a-1, column b-1: the share of seeds that answered `a times b` right; NaN: not asked."""
    tables = {}
    for condition in CONDITIONS:
        by_seed = [mul_table(evaluation.predictions) for evaluation in runs.of(condition)]
        tables[condition] = np.array(by_seed, dtype=float).mean(axis=0)
    return tables
