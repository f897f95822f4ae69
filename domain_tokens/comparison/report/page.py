"""The page as HTML. Jinja2 escapes all text, and page.js inserts the questions, which travel as JSON, as text."""

import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from domain_tokens.comparison import formats
from domain_tokens.comparison.compare import mul_tables
from domain_tokens.comparison.figures import accuracy_figure, figure_as_svg, loss_figure, reply_length_figure
from domain_tokens.comparison.formats import EVALUATION_NAMES, STAGE_NAMES
from domain_tokens.comparison.report.collect import Experiment
from domain_tokens.conditions import CONDITIONS
from domain_tokens.evaluation.fact_usage import fact_usage
from domain_tokens.facts import FACT_PATTERN, FACT_TOKENS, show_facts
from domain_tokens.runs.files import shown_path
from domain_tokens.runs.names import PROBES_EVAL

_HERE = Path(__file__).parent


def render_report(experiment: Experiment) -> str:
    """Return the whole page. Styles, script, plots and data are in it, so that it loads nothing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    for name in ("accuracy", "detectable", "interval", "p_value", "percent", "points", "short_verdict"):
        environment.filters[name] = getattr(formats, name)
    environment.filters["minus"] = lambda text: text.replace("-", "−")
    return environment.get_template("page.html.jinja").render(
        title=experiment.root.resolve().name,
        root=shown_path(experiment.root),
        rows=experiment.rows,
        seeds=len(experiment.first_evaluations),
        conditions=list(CONDITIONS),
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),
        plots=_plots(experiment),
        mul_tables=mul_tables(experiment.runs[PROBES_EVAL]) if PROBES_EVAL in experiment.runs else {},
        usage=_usage(experiment),
        provenance=_provenance(experiment),
        questions=Markup(_for_script(_questions(experiment))),
    )


def _plots(experiment: Experiment) -> list[dict[str, str]]:
    """Return of each plot its title, its drawing, and the same in words for readers who do not see it."""
    accuracies = [
        f"{row['name']}: " + ", ".join(f"{each} {formats.percent(row[each]['accuracy'])}" for each in CONDITIONS)
        for row in experiment.rows
    ]
    plots = [_plot("Right answers", accuracy_figure(experiment.rows, list(CONDITIONS)), accuracies)]
    for stage, name in STAGE_NAMES.items():
        curves = {
            condition: [run["loss_curves"] for run in experiment.trainings_of(stage, condition) if "loss_curves" in run]
            for condition in CONDITIONS
        }
        if any(curves.values()):
            losses = [_last_losses(condition, runs) for condition, runs in curves.items() if runs]
            plots.append(_plot(f"Loss, {name}", loss_figure(curves), losses))
    for evaluation, groups in experiment.runs.items():
        tokens = {
            label: [row["tokens"] for each in group for row in each.predictions] for label, group in groups.items()
        }
        lengths = [
            f"{label}: {sum(lengths) / len(lengths):.1f} tokens on average, {max(lengths)} at most"
            for label, lengths in tokens.items()
        ]
        plots.append(_plot(f"Length of replies, {EVALUATION_NAMES[evaluation]}", reply_length_figure(tokens), lengths))
    return plots


def _plot(title: str, figure: Figure, words: list[str]) -> dict[str, str]:
    name = "".join(letter for letter in title.lower() if letter.isalnum())
    return {"title": title, "drawing": Markup(figure_as_svg(figure, name)), "words": "; ".join(words)}


def _last_losses(condition: str, runs: list[dict[str, Any]]) -> str:
    parts = []
    for name, key in (("training", "train"), ("validation", "validation")):
        if lasts := [run[key][-1][1] for run in runs if run[key]]:
            parts.append(f"{name} loss {sum(lasts) / len(lasts):.4f}")
    return f"{condition}, at the end: {', '.join(parts)}"


def _usage(experiment: Experiment) -> dict[str, list]:
    """Return for each fact how often it was injected in training and written in replies, over all seeds and groups."""
    injected = [
        [run.results.get("injected_by_fact", {}) for run in experiment.trainings if run.stage == stage]
        for stage in STAGE_NAMES
    ]
    written = [
        fact_usage(row for group in groups.values() for evaluation in group for row in evaluation.predictions)
        for groups in experiment.runs.values()
    ]
    rows = [
        {
            "equation": show_facts(token),
            "injected": [sum(counts.get(token, 0) for counts in stage) for stage in injected],
            "written": [usage.get(token) for usage in written],
        }
        for token in FACT_TOKENS
    ]
    if not any(any(row["injected"]) or any(row["written"]) for row in rows):
        return {}
    return {
        "rows": rows,
        "stages": list(STAGE_NAMES.values()),
        "evaluations": [EVALUATION_NAMES[name] for name in experiment.runs],
    }


def _provenance(experiment: Experiment) -> list[dict[str, Any]]:
    rows = []
    for run in experiment.trainings:
        outcome = "{total_train_samples:,} rows, {steps:,} steps, loss {train_loss:.4f}".format(**run.results)
        facts, seconds = run.results.get("injected_mul_tokens"), run.results["train_runtime"]
        rows.append(_run(experiment, run.folder, run.results, run.results.get("seed"), outcome, facts, seconds))
    for groups in experiment.runs.values():
        for each in (each for group in groups.values() for each in group):
            metrics = each.results["metrics"]
            outcome = f"{metrics['correct']} of {metrics['total']} right"
            facts, seconds = metrics["mul_token_count"], each.results.get("runtime")
            rows.append(_run(experiment, each.folder, each.results, each.seed, outcome, facts, seconds))
    return rows


def _run(experiment, folder: Path, results, seed, outcome: str, facts, seconds) -> dict[str, Any]:
    where = results.get("environment", {})
    libraries, commit = where.get("libraries", {}), where.get("commit")
    return {
        "folder": str(folder.relative_to(experiment.root)),
        "seed": seed,
        "outcome": outcome,
        "facts": facts,
        "commit": "unknown" if commit is None else commit[:10] + ("+" if where.get("dirty") else ""),
        "versions": ", ".join(f"{name} {libraries[name]}" for name in ("torch", "transformers") if name in libraries),
        "device": where.get("device", "unknown"),
        "minutes": (seconds or 0) / 60,
        "weights": (results.get("weights") or "")[:12],
    }


def _questions(experiment: Experiment) -> dict[str, Any]:
    """Return by evaluation the questions and, for each seed, what the groups replied."""
    evaluations = [
        {
            "name": EVALUATION_NAMES[name],
            "questions": [
                {"id": row["id"], "question": row["question"], "reference": row.get("reference")}
                for row in next(iter(groups.values()))[0].predictions
            ],
            "seeds": [
                {
                    "seed": same_seed[0].seed,
                    "replies": [
                        [{"reply": row.get("reply", ""), "right": row["correct"], "read": row.get("extracted")}
                         for row in replies]
                        for replies in zip(*(each.predictions for each in same_seed), strict=True)
                    ],
                }
                for same_seed in zip(*groups.values(), strict=True)
            ],
        }
        for name, groups in experiment.runs.items()
    ]  # fmt: skip
    facts = {token: show_facts(token) for token in FACT_TOKENS}
    return {"evaluations": evaluations, "conditions": list(CONDITIONS), "facts": facts, "pattern": FACT_PATTERN.pattern}


def _for_script(value: Any) -> str:
    """Return JSON in which nothing can end the <script> element around it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
