"""The page itself: Jinja2 escapes all text, questions travel as JSON and are put into the page as text by page.js."""

import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from domain_tokens.comparison.compare import headline, mul_tables_by_condition
from domain_tokens.comparison.figures import accuracy_figure, figure_as_svg, loss_figure, reply_length_figure
from domain_tokens.comparison.report.collect import Experiment
from domain_tokens.conditions import CONDITIONS
from domain_tokens.evaluation.fact_usage import fact_usage
from domain_tokens.facts import FACT_PATTERN, FACT_TOKENS, FACTS, show_facts
from domain_tokens.runs.files import shown_path
from domain_tokens.runs.names import GSM8K_EVAL, PROBES_EVAL, SFT_STAGES

NAMES = {GSM8K_EVAL: "GSM8K", PROBES_EVAL: "arithmetic probes"}
STAGES = {"sft_tulu": "stage 1, Tulu", "sft_gsm8k": "stage 2, GSM8K"}
_HERE = Path(__file__).parent


def render_report(experiment: Experiment) -> str:
    """The whole page as HTML. It loads nothing: styles, script, plots and data are in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "points": _points, "p_value": _p_value, "effect": _effect}
    return environment.get_template("page.html.jinja").render(
        title=experiment.root.resolve().name,
        root=shown_path(experiment.root),
        rows=experiment.rows,
        headline=_headline(experiment),
        seeds=experiment.seeds,
        conditions=CONDITIONS,
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),
        plots=_plots(experiment),
        mul_tables=_mul_tables(experiment),
        usage=_usage(experiment),
        provenance=_provenance(experiment),
        questions=Markup(_for_script(_questions(experiment))),
        has_questions=len(experiment.runs),
    )


def _headline(experiment: Experiment) -> dict[str, str]:
    row = experiment.rows[0]
    verdict, _, rest = row["verdict"].partition("; ")
    return {"measure": row["name"], "verdict": verdict, "rest": rest, "sentence": headline(row)}


def _plots(experiment: Experiment) -> list[dict[str, Any]]:
    """Title, drawing, and the same in words for those who do not see it."""
    plots = [
        {
            "title": "Right answers",
            "drawing": Markup(figure_as_svg(accuracy_figure(experiment.rows), "accuracies")),
            "words": "; ".join(
                f"{row['name']}: baseline {_percent(row['baseline']['accuracy'])}, "
                f"mul_tokens {_percent(row['mul_tokens']['accuracy'])}"
                for row in experiment.rows
            ),
        }
    ]
    for stage, title in STAGES.items():
        curves = {
            condition: [
                run.results["loss_curves"]
                for run in experiment.stages
                if (run.step, run.condition) == (stage, condition) and "loss_curves" in run.results
            ]
            for condition in CONDITIONS
        }
        if not any(curves.values()):
            continue
        plots.append(
            {
                "title": f"Loss, {title}",
                "drawing": Markup(figure_as_svg(loss_figure(curves), f"loss-{stage}")),
                "words": "; ".join(_last_losses(condition, runs) for condition, runs in curves.items() if runs),
            }
        )
    for name, both in experiment.runs.items():
        tokens = {
            condition: [row["tokens"] for evaluation in both.of(condition) for row in evaluation.predictions]
            for condition in CONDITIONS
        }
        plots.append(
            {
                "title": f"Length of replies, {NAMES[name]}",
                "drawing": Markup(figure_as_svg(reply_length_figure(tokens), f"lengths-{name}")),
                "words": "; ".join(
                    f"{condition}: {sum(lengths) / len(lengths):.1f} tokens on average, {max(lengths)} at most"
                    for condition, lengths in tokens.items()
                ),
            }
        )
    return plots


def _last_losses(condition: str, runs: list[dict[str, Any]]) -> str:
    parts = []
    for name, key in (("training", "train"), ("validation", "validation")):
        lasts = [run[key][-1][1] for run in runs if run[key]]
        if lasts:
            parts.append(f"{name} loss {sum(lasts) / len(lasts):.4f}")
    return f"{condition}, at the end: {', '.join(parts)}"


def _mul_tables(experiment: Experiment) -> list[dict[str, Any]]:
    if PROBES_EVAL not in experiment.runs:
        return []
    tables = mul_tables_by_condition(experiment.runs[PROBES_EVAL])
    return [
        {"condition": condition, "right": float(table.sum()), "shares": table.tolist()}
        for condition, table in tables.items()
    ]


def _usage(experiment: Experiment) -> list[dict[str, Any]]:
    """A row a fact: how often it was injected in training and written in replies, over all seeds."""
    injected = {
        stage: [run.results.get("injected_by_fact", {}) for run in experiment.stages
                if (run.step, run.condition) == (stage, "mul_tokens")]
        for stage in STAGES
    }  # fmt: skip
    written = {
        name: fact_usage(row for evaluation in both.mul_tokens for row in evaluation.predictions)
        for name, both in experiment.runs.items()
    }
    rows = []
    for (a, b), token in zip(FACTS, FACT_TOKENS, strict=True):
        row: dict[str, Any] = {"equation": show_facts(token), "a": a, "b": b}
        row["injected"] = [sum(counts.get(token, 0) for counts in injected[stage]) for stage in STAGES]
        row["written"] = [written[name].get(token) for name in written]
        rows.append(row)
    most = max(max((use["written"] for use in row["written"] if use), default=0) for row in rows)
    for row in rows:
        row["bar"] = max((use["written"] for use in row["written"] if use), default=0) / most if most else 0
    return (
        {"rows": rows, "stages": list(STAGES.values()), "evaluations": [NAMES[name] for name in written]}
        if (most or any(any(row["injected"]) for row in rows))
        else {}
    )


def _provenance(experiment: Experiment) -> list[dict[str, Any]]:
    rows = []
    for run in [*experiment.stages, *experiment.evaluations]:
        results, where = run.results, run.results.get("environment", {})
        libraries = where.get("libraries", {})
        commit = where.get("commit")
        figures_of_run = (
            f"{results['total_train_samples']:,} rows, {results['steps']:,} steps, loss {results['train_loss']:.4f}"
            if run.step in SFT_STAGES
            else f"{results['metrics']['correct']} of {results['metrics']['total']} right"
        )
        rows.append(
            {
                "folder": str(run.folder.relative_to(experiment.root)),
                "seed": run.seed,
                "outcome": figures_of_run,
                "facts": results.get("injected_mul_tokens", results["metrics"]["mul_token_count"]
                                     if "metrics" in results else None),
                "commit": "unknown" if commit is None else commit[:10] + ("+" if where.get("dirty") else ""),
                "versions": ", ".join(f"{name} {libraries[name]}" for name in ("torch", "transformers")
                                      if name in libraries),
                "device": where.get("device", "unknown"),
                "minutes": (results.get("train_runtime") or results.get("runtime") or 0) / 60,
                "weights": (results.get("weights") or "")[:12],
            }
        )  # fmt: skip
    return rows


def _questions(experiment: Experiment) -> dict[str, Any]:
    """Per evaluation the questions, and per seed what both conditions replied."""
    evaluations = []
    for name, both in experiment.runs.items():
        asked = both.baseline[0].predictions
        evaluations.append(
            {
                "name": NAMES[name],
                "questions": [{"id": row["id"], "question": row["question"], "reference": row.get("reference")}
                              for row in asked],
                "seeds": [
                    {"seed": pair[0].seed, "replies": [_replies(*rows) for rows in
                                                       zip(*(side.predictions for side in pair), strict=True)]}
                    for pair in zip(both.baseline, both.mul_tokens, strict=True)
                ],
            }
        )  # fmt: skip
    facts = {token: show_facts(token) for token in FACT_TOKENS}
    return {"evaluations": evaluations, "conditions": list(CONDITIONS), "facts": facts, "pattern": FACT_PATTERN.pattern}


def _replies(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"reply": row.get("reply", ""), "right": row["correct"], "read": row.get("extracted")} for row in rows]


def _for_script(value: Any) -> str:
    """JSON that nothing in it can end the <script> element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _points(difference: float) -> str:
    return _signed(f"{100 * difference:+.1f}")


def _effect(h: float) -> str:
    return _signed(f"{h:+.2f}")


def _signed(number: str) -> str:
    return number.replace("-", "−") if float(number) else number[1:]


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
