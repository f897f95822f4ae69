"""The two conditions' evaluations side by side: what the difference is and whether it means anything.

One run of each condition, or several of different seeds. Right answers are matrices, seeds × questions, of 0 and 1;
what is judged is their difference, mul_tokens minus baseline, paired by seed and by question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain_tokens.conditions import CONDITIONS
from domain_tokens.evaluation.scores import metrics
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import read_json, read_jsonl
from domain_tokens.runs.names import GSM8K_EVAL, PROBES_EVAL

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
        if name == PROBES_EVAL and not isinstance(row.get("category"), str):
            raise InputError(f"{path} line {number}: no proper 'category'; run the evaluation again with --overwrite")
    counted, written = metrics(predictions) if predictions else {}, results.get("metrics")
    for key in ("total", "correct", "category_accuracies"):
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
