"""The two conditions' evaluations side by side: what the difference is and whether it means anything.

One run of each condition, or several of different seeds. Right answers are matrices, seeds × questions, of 0 and 1;
what is judged is their difference, mul_tokens minus baseline, paired by seed and by question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from domain_tokens.config import CONDITIONS
from domain_tokens.errors import InputError
from domain_tokens.evaluation import PROBE_COUNTS, metrics, mul_table
from domain_tokens.results import GSM8K_EVAL, PROBES_EVAL, read_json, read_jsonl
from domain_tokens.significance import accuracy_interval, cohens_h, detectable_difference, interval, mcnemar_p

NO_DIFFERENCE = "no difference shown"
ALPHA = 0.05

Predictions = list[dict[str, Any]]

_PREDICTION_TYPES = {
    "id": str, "question": str, "correct": bool, "correct_strict": bool, "tokens": int,
    "mul_tokens": int, "finished": bool,
}  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """One evaluation's results and its predictions, in the order of their ids."""

    folder: Path
    results: dict[str, Any]
    predictions: Predictions

    @property
    def seed(self) -> int | None:
        """The seed that the model was last trained with; None where the results do not say."""
        lineage = self.results.get("lineage")
        return lineage[-1].get("seed") if isinstance(lineage, list) and lineage else None


@dataclass(frozen=True)
class Runs:
    """The same evaluation of both conditions' models, one of each for every seed, in the same order."""

    baseline: list[Evaluation]
    mul_tokens: list[Evaluation]

    def of(self, condition: str) -> list[Evaluation]:
        return getattr(self, condition)


def read_runs(baseline_dirs: Sequence[Path], mul_tokens_dirs: Sequence[Path]) -> dict[str, Runs]:
    """The evaluations that all folders hold, by name. InputError where they must not be compared."""
    if len(baseline_dirs) != len(mul_tokens_dirs):
        raise InputError(
            f"{len(baseline_dirs)} baseline folders against {len(mul_tokens_dirs)} of mul_tokens; give one of each for "
            "every seed"
        )
    folders = {"baseline": baseline_dirs, "mul_tokens": mul_tokens_dirs}
    everything = [*baseline_dirs, *mul_tokens_dirs]
    runs = {}
    for name in (GSM8K_EVAL, PROBES_EVAL):
        complete = [folder for folder in everything if (folder / f"{name}_results.json").is_file()]
        if not complete:
            continue
        if len(complete) < len(everything):
            lacking = next(folder for folder in everything if folder not in complete)
            raise InputError(f"{lacking} has no {name}_results.json, {complete[0]} has; run that evaluation too")
        runs[name] = Runs(
            *([_read(folder, name, condition) for folder in folders[condition]] for condition in CONDITIONS)
        )
        _check_alike(name, runs[name])
    if not runs:
        raise InputError(
            f"{' and '.join(map(str, everything))} hold no complete evaluation; run eval/run_gsm8k.py first"
        )
    return runs


def compare(runs: dict[str, Runs], seed: int) -> list[dict[str, Any]]:
    """One row a measure: GSM8K, strict GSM8K, all probes and each category of them. seed: of the bootstrap."""
    rows = []
    if GSM8K_EVAL in runs:
        rows.append(_compare("GSM8K", runs[GSM8K_EVAL], seed))
        rows.append(_compare("GSM8K, strict", runs[GSM8K_EVAL], seed, key="correct_strict"))
    if PROBES_EVAL in runs:
        rows.append(_compare("probes", runs[PROBES_EVAL], seed))
        categories = [_compare(f"probes: {name}", runs[PROBES_EVAL], seed, category=name) for name in PROBE_COUNTS]
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
        "interval": list(interval(b - a, seed)),
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


def mul_tables(runs: Runs) -> dict[str, np.ndarray]:
    """By condition 9×9, row a-1, column b-1: the share of seeds that answered `a times b` right; NaN: not asked."""
    tables = {}
    for condition in CONDITIONS:
        by_seed = [mul_table(evaluation.predictions) for evaluation in runs.of(condition)]
        tables[condition] = np.array(by_seed, dtype=float).mean(axis=0)
    return tables


def _read(folder: Path, name: str, condition: str) -> Evaluation:
    results = read_json(folder / f"{name}_results.json")
    if results.get("condition") != condition:
        raise InputError(
            f"{folder} holds a {results.get('condition')} evaluation, expected {condition}; check the two folders"
        )
    if not isinstance(results.get("config"), dict):
        raise InputError(f"{folder / name}_results.json has no config; run the evaluation again with --overwrite")
    path = folder / f"{name}_predictions.jsonl"
    if not path.is_file():
        raise InputError(f"{path} is missing; run the evaluation again with --overwrite")
    predictions = read_jsonl(path)
    for number, row in enumerate(predictions, start=1):
        for key, kind in _PREDICTION_TYPES.items():
            if not isinstance(row, dict) or not isinstance(row.get(key), kind):
                raise InputError(f"{path} line {number}: no proper {key!r}; run the evaluation again with --overwrite")
        if name == PROBES_EVAL and row.get("category") not in PROBE_COUNTS:
            raise InputError(f"{path} line {number}: unknown category; run the evaluation again with --overwrite")
    counted, written = metrics(predictions) if predictions else {}, results.get("metrics")
    for key in ("total", "correct"):
        if not isinstance(written, dict) or counted.get(key) != written.get(key):
            raise InputError(
                f"{path} does not match its results ({len(predictions)} predictions); run the evaluation again"
            )
    return Evaluation(folder, results, sorted(predictions, key=lambda row: row["id"]))


def _check_alike(name: str, runs: Runs) -> None:
    first, *others = [*runs.baseline, *runs.mul_tokens]
    for other in others:
        versions = first.results.get("eval_version"), other.results.get("eval_version")
        if versions[0] != versions[1]:
            raise InputError(
                f"{name}: eval_version {versions[0]} against {versions[1]} in {other.folder}; run the older one again"
            )
        for key in ("max_new_tokens", "dtype"):  # what can change a reply to the same question
            values = [evaluation.results.get("config", {}).get(key) for evaluation in (first, other)]
            if values[0] != values[1]:
                raise InputError(
                    f"{name}: {key} {values[0]} against {values[1]} in {other.folder}; run one of them again"
                )
        if differing := len(_asked(first) ^ _asked(other)):
            raise InputError(
                f"{name}: {first.folder} and {other.folder} hold different questions ({differing} without a partner); "
                "ask both the same"
            )
    if len(runs.baseline) > 1:
        _check_seeds(name, runs)


def _check_seeds(name: str, runs: Runs) -> None:
    """One model counted twice would look like certainty."""
    for evaluations in (runs.baseline, runs.mul_tokens):
        seen: dict[str, Path] = {}
        for evaluation in evaluations:
            model = str(evaluation.results.get("weights") or evaluation.folder.resolve())
            if model in seen:
                raise InputError(
                    f"{name}: {seen[model]} and {evaluation.folder} are of the same model; give each seed's folder once"
                )
            seen[model] = evaluation.folder
    for pair in zip(runs.baseline, runs.mul_tokens, strict=True):
        if pair[0].seed != pair[1].seed:
            raise InputError(
                f"{name}: {pair[0].folder} is of seed {pair[0].seed}, {pair[1].folder} of seed {pair[1].seed}; give "
                "both conditions' folders in the same order of seeds"
            )


def _asked(evaluation: Evaluation) -> set[tuple[Any, ...]]:
    return {(row["id"], row["question"], row.get("reference")) for row in evaluation.predictions}
