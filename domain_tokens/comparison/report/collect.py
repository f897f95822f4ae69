"""What the report is made of, read from an experiment's folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain_tokens.comparison.compare import compare_evaluations
from domain_tokens.comparison.reading import Runs, read_runs
from domain_tokens.conditions import CONDITIONS
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import read_json
from domain_tokens.runs.names import SFT_STAGES, eval_folder, is_experiment, seed_folder, seeds_below, stage_folder

BOOTSTRAP_SEED = 42  # compare_runs.py's default, so that both show the same intervals


@dataclass(frozen=True)
class Run:
    """One stage or evaluation of one condition and seed."""

    folder: Path
    step: str  # sft_tulu, sft_gsm8k, gsm8k or arithmetic
    condition: str
    seed: int | None  # of the training
    results: dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    root: Path
    runs: dict[str, Runs]  # the evaluations, by name
    rows: list[dict[str, Any]]  # of the comparison
    stages: list[Run]  # complete training runs, by seed, condition and stage
    evaluations: list[Run]

    @property
    def seeds(self) -> list[int | None]:
        return [evaluation.seed for evaluation in next(iter(self.runs.values())).baseline]


def collect_experiment(root: Path, seeds: Sequence[int] | None) -> Experiment:
    """Read what is complete below `root`. InputError where nothing can be compared.

    seeds: which; None takes the one run that lies in `root` itself, or else all seeds below it.
    """
    if not root.is_dir():
        raise InputError(f"{root} is no folder; give the one that an experiment was written to, such as outputs/toy")
    if seeds is None and not is_experiment(root):
        seeds = seeds_below(root)
    roots = [seed_folder(root, seed) for seed in seeds] if seeds else [root]
    folders = {condition: [eval_folder(seed_root, condition) for seed_root in roots] for condition in CONDITIONS}
    runs = read_runs(folders["baseline"], folders["mul_tokens"])
    stages = []
    for seed_root in roots:
        for condition in CONDITIONS:
            for stage, results_name in SFT_STAGES.items():
                folder = stage_folder(seed_root, stage, condition)
                if (folder / results_name).is_file():
                    results = read_json(folder / results_name)
                    stages.append(Run(folder, stage, condition, results.get("seed"), results))
    evaluations = [
        Run(evaluation.folder, name, condition, evaluation.seed, evaluation.results)
        for name, both in runs.items()
        for condition in CONDITIONS
        for evaluation in both.of(condition)
    ]
    return Experiment(root, runs, compare_evaluations(runs, BOOTSTRAP_SEED), stages, evaluations)
