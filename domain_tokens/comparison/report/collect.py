"""The contents of a report, read from an experiment's folders."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain_tokens.comparison.compare import Contrast, compare_groups
from domain_tokens.comparison.reading import Evaluation, Runs, read_runs
from domain_tokens.conditions import CONDITIONS
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import read_json
from domain_tokens.runs.names import (
    COMPARISON,
    EVALUATIONS,
    SFT_STAGES,
    STEPS_EVAL,
    eval_folder,
    is_experiment,
    results_file,
    seed_folder,
    seeds_below,
    stage_folder,
)
from domain_tokens.runs.results_schema import TrainingResults
from domain_tokens.runs.validation import read_results


@dataclass(frozen=True)
class Training:
    """One finished stage of one condition and seed."""

    folder: Path
    stage: str
    condition: str
    results: dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    root: Path
    runs: dict[str, Runs]  # the evaluations, by name
    contrasts: list[Contrast]  # of each condition with each other
    trainings: list[Training]  # by seed, condition and stage

    @property
    def conditions(self) -> list[str]:
        return list(next(iter(self.runs.values())))

    @property
    def replies(self) -> dict[str, Runs]:
        """The evaluations whose questions the page shows: all but the steps, which are several thousand."""
        return {name: groups for name, groups in self.runs.items() if name != STEPS_EVAL}

    def evaluations(self) -> list[tuple[str, Evaluation]]:
        """Return all evaluations with their names."""
        return [(name, each) for name, groups in self.runs.items() for group in groups.values() for each in group]

    def loss_curves(self, stage: str) -> dict[str, list[dict[str, Any]]]:
        """Return a stage's loss curves by condition, one for each seed; conditions without any are left out."""
        curves: dict[str, list[dict[str, Any]]] = {condition: [] for condition in self.conditions}
        for run in self.trainings:
            if run.stage == stage and run.results.get("loss_curves"):
                curves[run.condition].append(run.results["loss_curves"])
        return {condition: runs for condition, runs in curves.items() if runs}


def collect_experiment(root: Path, seeds: Sequence[int] | None) -> Experiment:
    """Read what is complete below `root`. InputError if nothing can be compared.

    seeds: the seeds to read. None takes the run in `root` itself, or else all seeds below `root`.
    """
    if not root.is_dir():
        raise InputError(f"{root} is no folder; give the one that an experiment was written to, such as outputs/toy")
    if seeds is None and not is_experiment(root):
        seeds = seeds_below(root)
    roots = [seed_folder(root, seed) for seed in seeds] if seeds else [root]
    present = [each for each in _in_order(root) if any(_is_evaluated(eval_folder(own, each)) for own in roots)]
    if len(present) == 1:
        raise InputError(f"{root} holds evaluations of {present[0]} only; a report needs two conditions to compare")
    conditions = present or list(CONDITIONS)
    runs = read_runs({condition: [eval_folder(each, condition) for each in roots] for condition in conditions})
    trainings = [
        Training(folder, stage, condition, read_results(folder / results_name, TrainingResults))
        for each in roots
        for condition in conditions
        for stage, results_name in SFT_STAGES.items()
        if ((folder := stage_folder(each, stage, condition)) / results_name).is_file()
    ]
    _check_trainings(trainings, runs)
    contrasts = compare_groups(runs, list(itertools.combinations(conditions, 2)))
    return Experiment(root, runs, contrasts, trainings)


def _is_evaluated(folder: Path) -> bool:
    return any((folder / results_file(name)).is_file() for name in EVALUATIONS)


def _check_trainings(trainings: list[Training], runs: dict[str, Runs]) -> None:
    """Raise InputError for a stage of another condition, and for evaluations of other weights than were trained."""
    for run in trainings:
        if run.results.get("condition", run.condition) != run.condition:
            raise InputError(
                f"{run.folder} holds a {run.results['condition']} model; move it to a folder of its own name"
            )
    for each in (each for groups in runs.values() for group in groups.values() for each in group):
        beside = [run for run in trainings if eval_folder(run.folder.parent, run.condition) == each.folder]
        weights = {run.results.get("weights") for run in beside}
        if weights and None not in weights and each.results.get("weights") not in (None, *weights):
            raise InputError(f"{each.folder} is of other weights than {beside[-1].folder}; run its evaluations again")


def _in_order(root: Path) -> list[str]:
    """Return all conditions, first those that the experiment's own comparison has as groups, in its order."""
    path = root / COMPARISON
    groups = read_json(path).get("groups") if path.is_file() else None
    compared = groups if isinstance(groups, dict) else {}
    return list(dict.fromkeys([*(name for name in compared if name in CONDITIONS), *CONDITIONS]))
