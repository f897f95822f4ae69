"""Where a report's numbers come from: every run, the recipes of the stages, and the environments."""

from pathlib import Path
from typing import Any

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
        what, facts = f"evaluation: {EVALUATION_NAMES[name]}", metrics["mul_token_count"]
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


def recipes(experiment: Experiment) -> dict[str, dict[str, str]]:
    """Return by stage its config, flat. A value that differs between the conditions names them."""
    tables: dict[str, dict[str, str]] = {}
    for stage, name in STAGE_NAMES.items():
        found: dict[str, dict[str, list[str]]] = {}  # values of all seeds by key and condition
        for run in experiment.trainings:
            for key, value in _flat(run.results.get("config") or {}).items() if run.stage == stage else ():
                found.setdefault(key, {}).setdefault(run.condition, []).append(value)
        for key, values in found.items():
            texts = {condition: ", ".join(dict.fromkeys(each)) for condition, each in values.items()}
            differing = "; ".join(f"{condition}: {text}" for condition, text in texts.items())
            tables.setdefault(name, {})[key] = differing if len(set(texts.values())) > 1 else next(iter(texts.values()))
    return tables


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: "–" if value is None else str(value)}
    return flat
