"""Two evaluations of the same questions, side by side: what the difference is and whether it means anything."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from domain_tokens.errors import InputError
from domain_tokens.evaluation import PROBE_COUNTS, metrics
from domain_tokens.results import GSM8K_EVAL, PROBES_EVAL, read_json, read_jsonl

CONFIDENCE = 0.95
RESAMPLES = 10_000
NO_DIFFERENCE = "no difference shown"

Predictions = list[dict[str, Any]]

_PREDICTION_TYPES = {
    "id": str, "question": str, "correct": bool, "correct_strict": bool, "tokens": int,
    "mul_tokens": int, "finished": bool,
}  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """One evaluation's results and its predictions, in the order of their ids."""

    results: dict[str, Any]
    predictions: Predictions


def read_pairs(baseline_dir: Path, mul_tokens_dir: Path) -> dict[str, tuple[Evaluation, Evaluation]]:
    """The evaluations both folders hold, by name. InputError where a pair must not be compared."""
    pairs = {}
    for name in (GSM8K_EVAL, PROBES_EVAL):
        folders = {"baseline": baseline_dir, "mul_tokens": mul_tokens_dir}
        complete = {condition: (folder / f"{name}_results.json").is_file() for condition, folder in folders.items()}
        if not any(complete.values()):
            continue
        if not all(complete.values()):
            lacking = next(folders[condition] for condition, is_complete in complete.items() if not is_complete)
            raise InputError(f"{lacking} has no {name}_results.json, the other folder has; run that evaluation too")
        pair = tuple(_read(folder, name, condition) for condition, folder in folders.items())
        _check_pair(name, *pair)
        pairs[name] = pair
    if not pairs:
        raise InputError(
            f"{baseline_dir} and {mul_tokens_dir} hold no complete evaluation; run eval/run_gsm8k.py first"
        )
    return pairs


def compare(pairs: dict[str, tuple[Evaluation, Evaluation]], seed: int) -> list[dict[str, Any]]:
    """One row a measure: GSM8K, strict GSM8K, all probes and each category of them."""
    rows = []
    for name, (baseline, mul_tokens) in pairs.items():
        both = baseline.predictions, mul_tokens.predictions
        if name == GSM8K_EVAL:
            rows.append(_compare("GSM8K", *both, "correct", seed))
            rows.append(_compare("GSM8K, strict", *both, "correct_strict", seed))
            continue
        rows.append(_compare("probes", *both, "correct", seed))
        for category in PROBE_COUNTS:
            chosen = ([row for row in predictions if row["category"] == category] for predictions in both)
            rows.append(_compare(f"probes: {category}", *chosen, "correct", seed))
    return rows


def token_usage(pairs: dict[str, tuple[Evaluation, Evaluation]]) -> dict[str, Any]:
    """How long replies are and how many facts they hold, by evaluation and condition."""
    keys = ("mul_token_count", "mul_tokens_per_response", "avg_response_tokens", "finished_rate")
    return {
        name: {side.results["condition"]: {key: metrics(side.predictions)[key] for key in keys} for side in pair}
        for name, pair in pairs.items()
    }


def _compare(name: str, baseline: Predictions, mul_tokens: Predictions, key: str, seed: int) -> dict[str, Any]:
    a, b = (np.array([row[key] for row in side], dtype=int) for side in (baseline, mul_tokens))
    only_baseline, only_mul_tokens = int((a > b).sum()), int((b > a).sum())
    low, high = difference_interval(b - a, seed)
    p = mcnemar_p(only_baseline, only_mul_tokens)
    return {
        "name": name,
        "questions": len(a),
        "baseline": _accuracy(a),
        "mul_tokens": _accuracy(b),
        "difference": float((b - a).mean()),
        "interval": [low, high],
        "only_baseline_right": only_baseline,
        "only_mul_tokens_right": only_mul_tokens,
        "mcnemar_p": p,
        "verdict": verdict(low, high, p),
    }


def _accuracy(right: np.ndarray) -> dict[str, Any]:
    interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(CONFIDENCE, method="wilson")
    return {
        "correct": int(right.sum()),
        "accuracy": float(right.mean()),
        "interval": [float(interval.low), float(interval.high)],
    }


def difference_interval(differences: np.ndarray, seed: int) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean paired difference (Efron & Tibshirani 1993, ch. 13).

    differences: per question, 1 where only mul_tokens is right, -1 where only baseline is, else 0.
    """
    if (differences == differences[0]).all():
        return float(differences[0]), float(differences[0])  # every resample is the sample
    interval = stats.bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, batch=500, confidence_level=CONFIDENCE,
        method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


def mcnemar_p(only_baseline: int, only_mul_tokens: int) -> float:
    """McNemar's exact test: are the questions only one side got right split evenly? (Two-sided binomial.)"""
    discordant = only_baseline + only_mul_tokens
    return float(stats.binomtest(only_mul_tokens, discordant).pvalue) if discordant else 1.0


def verdict(low: float, high: float, p: float) -> str:
    """A difference is claimed only where the interval leaves out 0 and the exact test agrees.

    With a handful of discordant questions the bootstrap alone is too sure of itself.
    """
    if low <= 0 <= high or p >= 1 - CONFIDENCE:
        return NO_DIFFERENCE
    return "mul_tokens better" if low > 0 else "baseline better"


def table_map(predictions: Predictions) -> np.ndarray:
    """9×9, row a-1, column b-1: 1 where `a times b` was answered right, 0 where not."""
    right = np.full((9, 9), np.nan)
    for row in predictions:
        if row.get("category") == "mul_table":
            a, b = row["id"].removeprefix("mul_table-").split("x")
            right[int(a) - 1, int(b) - 1] = row["correct"]
    return right


def _read(folder: Path, name: str, condition: str) -> Evaluation:
    results = read_json(folder / f"{name}_results.json")
    if results.get("condition") != condition:
        raise InputError(
            f"{folder} holds a {results.get('condition')} evaluation, expected {condition}; check the two folders"
        )
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
    return Evaluation(results, sorted(predictions, key=lambda row: row["id"]))


def _check_pair(name: str, baseline: Evaluation, mul_tokens: Evaluation) -> None:
    versions = baseline.results.get("eval_version"), mul_tokens.results.get("eval_version")
    if versions[0] != versions[1]:
        raise InputError(f"{name}: eval_version {versions[0]} against {versions[1]}; run the older evaluation again")
    for key in ("max_new_tokens", "dtype"):  # what can change a reply to the same question
        values = [side.results.get("config", {}).get(key) for side in (baseline, mul_tokens)]
        if values[0] != values[1]:
            raise InputError(f"{name}: {key} {values[0]} against {values[1]}; run one of the evaluations again")
    questions = [
        {(row["id"], row["question"], row.get("reference")) for row in side.predictions}
        for side in (baseline, mul_tokens)
    ]
    if questions[0] != questions[1]:
        differing = len(questions[0] ^ questions[1])
        raise InputError(
            f"{name}: the folders hold different questions ({differing} without a partner); ask both the same"
        )
