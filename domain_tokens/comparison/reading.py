"""Evaluations read from their folders, and refused if they must not be compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from domain_tokens.comparison.formats import VALIDATION_BITS
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.names import (
    EVALUATIONS,
    PROBES_EVAL,
    STEPS_EVAL,
    predictions_file,
    results_file,
    unfinished_evaluation,
)
from domain_tokens.runs.provenance import is_generated
from domain_tokens.runs.results_schema import evaluation_schemas
from domain_tokens.runs.validation import read_predictions, read_results


@dataclass(frozen=True)
class Evaluation:
    """The results of one evaluation and its predictions, in the order of their ids."""

    folder: Path
    results: dict[str, Any]
    predictions: list[dict[str, Any]]

    @property
    def seed(self) -> int | None:
        """The seed of the model's last training; None if the results do not say."""
        lineage = self.results.get("lineage")
        return lineage[-1].get("seed") if lineage else None


# One evaluation of several groups of models, by label. Groups have an evaluation for each seed, in the same order.
Runs = dict[str, list[Evaluation]]


def read_runs(folders: Mapping[str, Sequence[Path]], labels_are_conditions: bool = True) -> dict[str, Runs]:
    """Return by name the evaluations that all folders hold. InputError if they must not be compared.

    folders: by label, one for every seed. labels_are_conditions: each folder must be of the condition that its label
    names, and groups must have the same seeds. Otherwise labels are free, two groups may have entirely other seeds, and
    one model must not be in two groups. A group's evaluations are put in the order of their seeds.
    """
    (first, of_first), *others = folders.items()
    for label, of_label in others:
        if len(of_label) != len(of_first):
            raise InputError(
                f"{len(of_first)} {first} folders against {len(of_label)} of {label}; give one of each for every seed"
            )
    everything = [folder for group in folders.values() for folder in group]
    runs = {}
    for name in EVALUATIONS:
        results_name = results_file(name)
        complete = [folder for folder in everything if (folder / results_name).is_file()]
        if not complete:
            continue
        if lacking := [folder for folder in everything if folder not in complete]:
            raise InputError(f"{lacking[0]} has no {results_name}, {complete[0]} has; run that evaluation too")
        runs[name] = {
            label: [_read(folder, name, label if labels_are_conditions else None) for folder in group]
            for label, group in folders.items()
        }
        _check_alike(name, runs[name])
        _check_models(name, runs[name], across=not labels_are_conditions)
        _check_seeds(name, runs[name], same=labels_are_conditions)
        runs[name] = {label: _by_seed(group) for label, group in runs[name].items()}
    _check_folders(runs)
    if not runs:
        raise InputError(
            f"{' and '.join(map(str, everything))} hold no complete evaluation; run eval/run_gsm8k.py first"
        )
    return runs


def data_label(runs: Mapping[str, Runs]) -> str:
    """Return what tables and plots say of the data: that it is generated, if a model comes from the toy world."""
    lineages = [each.results.get("lineage") for groups in runs.values() for group in groups.values() for each in group]
    return " (generated data)" if any(map(is_generated, lineages)) else ""


def _read(folder: Path, name: str, condition: str | None) -> Evaluation:
    """Return one evaluation. InputError for a folder of another condition than `condition` (None: any will do)."""
    if (folder / unfinished_evaluation(name)).exists():
        raise InputError(f"{folder} was evaluated again and that is not finished; give the same command with --resume")
    results_schema, prediction_schema = evaluation_schemas(name)
    results = read_results(folder / results_file(name), results_schema)
    if condition not in (None, results["condition"]):
        raise InputError(
            f"{folder} holds a {results['condition']} evaluation, expected {condition}; check the two folders"
        )
    path = folder / predictions_file(name)
    if not path.is_file():
        raise InputError(f"{path} is missing; run the evaluation again with --overwrite")
    predictions = read_predictions(path, prediction_schema)
    for number, row in enumerate(predictions, start=1):
        if name != PROBES_EVAL:
            row.pop("category", None)
        elif row.get("category") not in results["metrics"].get("category_accuracies", {}):
            raise InputError(f"{path} line {number}: unknown category; run the evaluation again with --overwrite")
    counted = (len(predictions), sum(row["correct"] for row in predictions))
    if not predictions or counted != (results["metrics"]["total"], results["metrics"]["correct"]):
        raise InputError(f"{path} does not match its results ({counted[0]} predictions); run the evaluation again")
    if name == STEPS_EVAL:
        _check_bits(path, results["metrics"], predictions)
    return Evaluation(folder, results, sorted(predictions, key=lambda row: row["id"]))


def _check_bits(path: Path, metrics: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> None:
    """Refuse predictions whose bits are not those of the results, or that measured nothing."""
    for key in VALIDATION_BITS:
        size = sum(row[key.replace("bits", "bytes")] for row in predictions)
        found = sum(row[key] for row in predictions) / size if size else None
        said = metrics.get(f"{key}_per_byte")
        if found != said and (None in (found, said) or not math.isclose(found, said, rel_tol=1e-6)):
            raise InputError(f"{path} does not match its results ({key}_per_byte); run the evaluation again")
    if not any(row["word_bytes"] for row in predictions):
        raise InputError(f"{path} counts no bytes of shared text; run the evaluation again with --overwrite")


def _check_alike(name: str, groups: Runs) -> None:
    first, *others = [evaluation for group in groups.values() for evaluation in group]
    for other in others:
        for key in ("eval_version", "max_new_tokens", "dtype"):  # what can change a reply to the same question
            values = [(each.results | each.results["config"]).get(key) for each in (first, other)]
            if values[0] != values[1]:
                advice = f"run the {'older' if key == 'eval_version' else 'differing'} one again"
                raise InputError(f"{name}: {key} {values[0]} against {values[1]} in {other.folder}; {advice}")
        if differing := len(_asked(first) ^ _asked(other)):
            raise InputError(
                f"{name}: {first.folder} and {other.folder} hold different questions ({differing} without a partner); "
                "ask both the same"
            )
        if name == STEPS_EVAL and (place := _differing_bytes(first, other)):
            raise InputError(
                f"{name}: {first.folder} and {other.folder} differ in the bytes of {place}, so they did not "
                "measure the same text; run both again"
            )


def _differing_bytes(one: Evaluation, other: Evaluation) -> str | None:
    """Return the first step whose shared text had other bytes. Both have the same steps."""
    for a, b in zip(one.predictions, other.predictions, strict=True):
        if any(a[key] != b[key] for key in ("number_bytes", "word_bytes")):
            return a["id"]
    return None


def _check_models(name: str, groups: Runs, across: bool) -> None:
    """Raise InputError if a group holds one model twice: its answers would count as those of two seeds.

    across: also if two groups share a model.
    """
    for group in [list(chain(*groups.values()))] if across else groups.values():
        seen: dict[str, Path] = {}
        for evaluation in group:
            model = str(evaluation.results.get("weights") or evaluation.folder.resolve())
            if model in seen:
                raise InputError(
                    f"{name}: {seen[model]} and {evaluation.folder} are of one model, by its weights; give folders of "
                    "different models, one for each seed"
                )
            seen[model] = evaluation.folder


def of_one_model(groups: Runs) -> bool:
    """Return whether two of the groups hold a model in common, by its weights."""
    weights = [{each.results.get("weights") for each in group} - {None} for group in groups.values()]
    return any(one & other for one, other in combinations(weights, 2))


def _by_seed(group: list[Evaluation]) -> list[Evaluation]:
    """Return evaluations in the order of their seeds, as they are if the results do not say them."""
    return group if any(each.seed is None for each in group) else sorted(group, key=lambda each: each.seed)


def _check_seeds(name: str, groups: Runs, same: bool) -> None:
    """Refuse seeds that are twice in a group, and groups that share some seeds only.

    Groups are paired by seed where they have the same ones. same: groups of several seeds must have the same.
    """
    for group in groups.values():
        seen: dict[int, Path] = {}
        for each in group if None not in (each.seed for each in group) else ():
            if each.seed in seen:
                raise InputError(f"{name}: {seen[each.seed]} and {each.folder} are both of seed {each.seed}; give one")
            seen[each.seed] = each.folder
    for (one, first), (other, second) in combinations(groups.items(), 2):
        if len(first) > 1:
            seeds = [{each.seed for each in group} for group in (first, second)]
            if seeds[0] == seeds[1] and [each.seed for each in first] != [each.seed for each in second]:
                raise InputError(f"{name}: {one} and {other} have their seeds in different order; give both the same")
            if seeds[0] != seeds[1] and (same or seeds[0] & seeds[1]):
                shown = [", ".join(map(str, sorted(own, key=str))) for own in seeds]
                either = "" if same else ", or entirely other ones"
                raise InputError(f"{name}: {one} has seeds {shown[0]}, {other} {shown[1]}; give both the same{either}")


def _check_folders(runs: Mapping[str, Runs]) -> None:
    """Refuse a folder whose evaluations are of different models: one was trained again, and not all asked again."""
    seen: dict[Path, Evaluation] = {}
    for each in (each for groups in runs.values() for group in groups.values() for each in group):
        first = seen.setdefault(each.folder, each)
        if first.results.get("weights") != each.results.get("weights"):
            raise InputError(f"{each.folder} holds evaluations of two models, by their weights; run all of them again")


def _asked(evaluation: Evaluation) -> set[tuple[str, ...]]:
    return {(row["id"], row["question"], row["reference"]) for row in evaluation.predictions}
