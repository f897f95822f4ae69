"""The comparison of groups of evaluations, two at a time: their difference, and whether it means anything.

Right answers are matrices of 0 and 1, seeds × questions. Differences are paired by seed and by question.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from domain_tokens.comparison import statistics
from domain_tokens.comparison.formats import EVALUATION_NAMES, amount, interval, is_bits, p_value, percent, points
from domain_tokens.comparison.groups import describe_groups, differences
from domain_tokens.comparison.reading import Evaluation, Runs
from domain_tokens.comparison.steps import compare_steps
from domain_tokens.evaluation import scores
from domain_tokens.runs.names import GSM8K_EVAL, PROBES_EVAL, STEPS_EVAL

NO_DIFFERENCE = "no difference shown"
ALPHA = 0.05
BOOTSTRAP_SEED = 42

CATEGORY = f"{EVALUATION_NAMES[PROBES_EVAL]}: "  # how the names of categories' rows begin

Row = dict[str, Any]  # one measure of two groups, as comparison.json holds it
Pair = tuple[str, str]  # labels of two groups, the reference first
Contrast = dict[str, Any]  # two groups and their rows, as comparison.json holds them


def compare_groups(runs: Mapping[str, Runs], pairs: Sequence[Pair], seed: int = BOOTSTRAP_SEED) -> list[Contrast]:
    """Return the contrast of each pair of groups: `reference`, `other`, `differs_in` and a row for each measure.

    P-values are corrected for multiple tests (Holm): each measure over its contrasts, the probes' categories over
    contrasts and categories together.

    runs: by evaluation. pairs: labels, the reference first. seed: of the bootstrap.
    """
    described = describe_groups(runs)
    contrasts = []
    for reference, other in pairs:
        pair = {name: {label: groups[label] for label in (reference, other)} for name, groups in runs.items()}
        differs_in = differences(described[reference], described[other])
        rows = _rows(pair, seed)
        contrasts.append({"reference": reference, "other": other, "differs_in": differs_in, "rows": rows})
    _correct([contrast["rows"] for contrast in contrasts])
    for contrast in contrasts:
        for row in contrast["rows"]:
            row["verdict"] = _verdict(row, contrast["reference"], contrast["other"])
    return contrasts


def measures(contrasts: Sequence[Contrast]) -> list[Row]:
    """Return each measure once, with what all groups reached in it."""
    by_measure = zip(*(contrast["rows"] for contrast in contrasts), strict=True)
    return [{key: value for row in rows for key, value in row.items()} for rows in by_measure]


def _rows(groups: Mapping[str, Runs], seed: int) -> list[Row]:
    """Return a row for each measure: GSM8K, strict GSM8K, all probes and each category of them, and three of steps."""
    rows = []
    for evaluation, pair in groups.items():
        name = EVALUATION_NAMES[evaluation]
        if evaluation == STEPS_EVAL:
            rows += compare_steps(pair, seed)
            continue
        rows.append(_compare(name, pair, seed))
        if evaluation == GSM8K_EVAL:
            rows.append(_compare(f"{name}, strict", pair, seed, key="correct_strict"))
        elif evaluation == PROBES_EVAL:
            names = next(iter(pair.values()))[0].results["metrics"]["category_accuracies"]
            rows += [_compare(f"{name}: {each}", pair, seed, category=each) for each in names]
    return rows


def _correct(contrasts: Sequence[list[Row]]) -> None:
    """Add Holm's p to the rows that are one of several.

    Over several contrasts, what is corrected is the larger of the exact test's p and the interval's: a claim needs
    both (Berger 1982), and the exact test alone knows nothing of seeds. One contrast has its interval for that.
    """
    families: dict[str, list[Row]] = {}
    for rows in contrasts:
        for row in rows:
            if len(contrasts) == 1:
                del row["interval_p"]
            families.setdefault(CATEGORY if row["name"].startswith(CATEGORY) else row["name"], []).append(row)
    for family, rows in families.items():
        if len(contrasts) > 1 or family == CATEGORY:
            corrected = statistics.holm_p([p_value(row) for row in rows])
            for row, p in zip(rows, corrected, strict=True):
                row["holm_p"] = p


def token_usage(runs: Mapping[str, Runs]) -> dict[str, Any]:
    """Return by evaluation and group how long replies are and how many facts they hold, over all seeds."""
    return {
        name: {
            label: scores.token_usage([row for evaluation in group for row in evaluation.predictions])
            for label, group in groups.items()
        }
        for name, groups in runs.items()
    }


def headline(row: Row, reference: str, other: str, data: str) -> str:
    """Return one measure in a sentence. data: what to say of the data beside the measure's name."""
    accuracies = ", ".join(f"{label} {percent(row[label]['accuracy'])}" for label in (other, reference))
    difference = f"difference {points(row['difference'])} points, 95% interval {interval(row)}"
    return f"{row['name']}{data}: {row['verdict']} ({accuracies}; {difference})"


def mul_tables(groups: Runs) -> dict[str, np.ndarray]:
    """Return by group 9×9, row a-1, column b-1: the share of seeds that answered `a times b` right; NaN: not asked."""
    return {
        label: np.array([scores.mul_table(evaluation.predictions) for evaluation in group], dtype=float).mean(axis=0)
        for label, group in groups.items()
    }


def _right_answers(group: list[Evaluation], key: str, category: str | None) -> np.ndarray:
    """Return seeds × questions, 1 where the answer is right. category: of the questions; None for all."""
    return np.array(
        [[row[key] for row in each.predictions if category in (None, row.get("category"))] for each in group], dtype=int
    )


def _compare(name: str, groups: Runs, seed: int, key: str = "correct", category: str | None = None) -> Row:
    (reference, a), (other, b) = ((label, _right_answers(group, key, category)) for label, group in groups.items())
    within, p = statistics.mean_test(b - a, seed)
    only_reference, only_other = int((a > b).sum()), int((b > a).sum())
    return {
        "name": name,
        "questions": a.shape[1],
        reference: _accuracy(a, seed),
        other: _accuracy(b, seed),
        "difference": float((b - a).mean()),
        "interval": list(within),
        "interval_p": p,
        f"only_{reference}_right": only_reference,
        f"only_{other}_right": only_other,
        "mcnemar_p": statistics.mcnemar_p(only_reference, only_other),
        "cohens_h": statistics.cohens_h(b.mean(), a.mean()),
        "detectable_difference": statistics.detectable_difference(a, b),
    }


def _accuracy(right: np.ndarray, seed: int) -> dict[str, Any]:
    by_seed = right.mean(axis=1)
    return {
        "correct": int(right.sum()),
        "accuracy": float(right.mean()),
        "interval": list(statistics.accuracy_interval(right, seed)),
        "by_seed": by_seed.tolist(),
        "std_over_seeds": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
    }


def _verdict(row: Row, reference: str, other: str) -> str:
    """Claim a difference only where the interval leaves out 0 and the test agrees.

    The bootstrap alone is too sure of itself with a handful of discordant questions, and the exact test ignores seeds.
    """
    low, high = row["interval"]
    if not low <= 0 <= high and p_value(row) < ALPHA:
        return f"{other if (low > 0) != is_bits(row) else reference} better"
    if (detectable := row["detectable_difference"]) is None:
        return f"{NO_DIFFERENCE}; a run like this could not have seen any"
    return f"{NO_DIFFERENCE}; this run could have seen a difference of {amount(row, detectable)}"
