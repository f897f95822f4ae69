"""Where a report's numbers come from: every run, the recipes of the stages, and the environments."""

from pathlib import Path

import yaml

from domain_tokens.comparison.formats import EVALUATION_NAMES, STAGE_NAMES, duration
from domain_tokens.comparison.report.collect import Experiment


def run_table(experiment: Experiment) -> list[dict[str, str]]:
    """Return the cells of a table by column, for every training and evaluation."""
    rows = []
    for run in experiment.trainings:
        outcome = "{total_train_samples:,} rows, {steps:,} steps, loss {train_loss:.4f}".format(**run.results)
        facts, seconds = run.results.get("injected_mul_tokens"), run.results["train_runtime"]
        rows.append((STAGE_NAMES[run.stage], run, run.results.get("seed"), outcome, facts, seconds))
    for name, run in experiment.evaluations():
        metrics, seconds = run.results["metrics"], run.results.get("runtime")
        outcome = f"{metrics['correct']} of {metrics['total']} right"
        what, facts = f"evaluation: {EVALUATION_NAMES[name]}", metrics.get("mul_token_count")
        rows.append((what, run, run.seed, outcome, facts, seconds))
    return [
        {
            "run": what,
            "folder": str(run.folder.relative_to(experiment.root)),
            "seed": "–" if seed is None else str(seed),
            "outcome": outcome,
            "facts": "–" if facts is None else f"{facts:,}",
            "time": "–" if seconds is None else duration(seconds),
            "weights": (run.results.get("weights") or "–")[:12],
        }
        for what, run, seed, outcome, facts, seconds in rows
    ]


def environments(experiment: Experiment) -> dict[str, list[str]]:
    """Return by device, commit and library versions the folders of the runs that were made with them."""
    found: dict[str, list[Path]] = {}
    for run in [*experiment.trainings, *(evaluation for _, evaluation in experiment.evaluations())]:
        environment = run.results.get("environment") or {}
        commit, libraries = environment.get("commit"), environment.get("libraries") or {}
        state = (
            f"{commit[:10]}{' with uncommitted changes' if environment.get('dirty') else ''}" if commit else "unknown"
        )
        versions = [f"{name} {libraries[name]}" for name in ("torch", "transformers") if name in libraries]
        words = ", ".join([f"device {environment.get('device') or 'unknown'}", f"commit {state}", *versions])
        found.setdefault(words, []).append(run.folder)
    return {
        words: [str(folder.relative_to(experiment.root)) for folder in dict.fromkeys(folders)]
        for words, folders in found.items()
    }


def recipes(experiment: Experiment) -> dict[str, str]:
    """Return configs as YAML without their seeds, by stage and, if the conditions' configs differ, by condition."""
    found: dict[tuple[str, str], dict[str, None]] = {}  # conditions by stage and config
    for run in experiment.trainings:
        if config := {key: value for key, value in (run.results.get("config") or {}).items() if key != "seed"}:
            recipe = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
            found.setdefault((STAGE_NAMES[run.stage], recipe), {})[run.condition] = None
    return {f"{name}, {' and '.join(conditions)}": recipe for (name, recipe), conditions in found.items()}
