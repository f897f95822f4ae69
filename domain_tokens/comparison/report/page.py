"""The page as HTML. Jinja2 escapes all text, and page.js inserts the questions, which travel as JSON, as text."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from domain_tokens.comparison import formats
from domain_tokens.comparison.compare import NO_DIFFERENCE, Contrast, measures, mul_tables
from domain_tokens.comparison.formats import EVALUATION_NAMES, STAGE_NAMES
from domain_tokens.comparison.plots import (
    accuracy_figure,
    bits_figure,
    figure_as_svg,
    loss_figure,
    reply_length_figure,
    validation_bits_figure,
)
from domain_tokens.comparison.reading import data_label
from domain_tokens.comparison.report.collect import Experiment
from domain_tokens.comparison.report.provenance import environments, recipes, run_table
from domain_tokens.comparison.report.questions import questions_data
from domain_tokens.evaluation.fact_usage import fact_usage
from domain_tokens.facts import FACT_TOKENS, show_facts
from domain_tokens.runs.files import shown_path
from domain_tokens.runs.names import PROBES_EVAL

LONGEST_PAGE = 1_900_000  # bytes; of many seeds, it holds the replies of the first ones
_HERE = Path(__file__).parent


def render_report(experiment: Experiment) -> str:
    """Return the whole page. Styles, script, plots and data are in it, so that it loads nothing."""
    seeds = len(next(iter(next(iter(experiment.runs.values())).values())))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {name: getattr(formats, name) for name in ("interval", "percent", "points", "short_verdict")}
    environment.filters["minus"] = lambda text: text.replace("-", "−")
    render = functools.partial(
        environment.get_template("page.html.jinja").render,
        title=experiment.root.resolve().name,
        root=shown_path(experiment.root),
        generated=data_label(experiment.runs),
        first=experiment.contrasts[0]["rows"][0],
        verdict=_verdict(experiment.contrasts),
        contrasts=experiment.contrasts,
        blocks=_blocks(experiment.contrasts),
        differences=_differences(experiment.contrasts, seeds),
        has_bits=any(map(formats.is_bits, experiment.contrasts[0]["rows"])),
        steps_note=formats.STEPS_NOTE,
        bits_note=formats.BITS_NOTE,
        seeds=seeds,
        conditions=experiment.conditions,
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),
        plots=_plots(experiment),
        mul_tables=mul_tables(experiment.runs[PROBES_EVAL]) if PROBES_EVAL in experiment.runs else {},
        usage=_usage(experiment),
        stages=list(STAGE_NAMES.values()),
        evaluations=[EVALUATION_NAMES[name] for name in experiment.replies],
        runs=run_table(experiment),
        environments=environments(experiment),
        recipes=recipes(experiment),
    )
    room = LONGEST_PAGE - len(render(questions="", questions_type="", seeds_shown=0).encode())
    questions, questions_type, seeds_shown = questions_data(experiment, seeds, room)
    return render(questions=Markup(questions), questions_type=questions_type, seeds_shown=seeds_shown)


def _verdict(contrasts: Sequence[Contrast]) -> str:
    """Return the verdict on the first measure: of one contrast its own, of several every difference that is claimed."""
    if len(contrasts) == 1:
        return formats.short_verdict(contrasts[0]["rows"][0])
    claims = []
    for contrast in contrasts:
        verdict = formats.short_verdict(contrast["rows"][0])
        if verdict != NO_DIFFERENCE:
            is_other = verdict == f"{contrast['other']} better"
            claims.append(f"{verdict} than {contrast['reference' if is_other else 'other']}")
    return ", ".join(claims) or NO_DIFFERENCE


def _blocks(contrasts: Sequence[Contrast]) -> list[dict[str, Any]]:
    """Return tables: of one contrast a single one without title, of several one for each measure."""
    if len(contrasts) == 1:
        (contrast,) = contrasts
        rows = formats.measure_table(contrast["rows"], contrast["reference"], contrast["other"])
        return [{"title": "", "rows": rows}]
    return formats.contrast_rows(contrasts)


def _differences(contrasts: Sequence[Contrast], seeds: int) -> dict[str, str]:
    """Return by name in what the groups of each contrast differ, where it is more than their conditions."""
    return {
        formats.contrast_name(each): formats.differences_in_words(each["differs_in"], seeds)
        for each in contrasts
        if each["differs_in"] != ["condition"]
    }


def _plots(experiment: Experiment) -> list[dict[str, str]]:
    """Return of each plot its title, its drawing, a note, and the same in words for readers who do not see it."""
    plots = []
    rows, conditions = measures(experiment.contrasts), experiment.conditions
    bits_notes = [] if any(map(formats.is_bits, rows)) else [formats.BITS_NOTE]  # else it stands below the table
    for title, figure, in_bits in (
        ("Right answers", accuracy_figure, False),
        ("Bits of the shared text", bits_figure, True),
    ):
        if shown := [row for row in rows if formats.is_bits(row) == in_bits]:
            words = [
                f"{row['name']}: {', '.join(f'{each} {formats.reached(row, each)}' for each in conditions)}"
                for row in shown
            ]
            plots.append(_plot(title, figure(rows, conditions), words))
    for stage, name in STAGE_NAMES.items():
        curves = experiment.loss_curves(stage)
        if curves:
            words = _last_values(curves, {"train": "training loss", "validation": "validation loss"}, "")
            plots.append(_plot(f"Loss, {name}", loss_figure(curves), words, formats.LOSS_NOTE))
        measured = [run.get(key) for runs in curves.values() for run in runs for key in formats.VALIDATION_BITS]
        if measured and all(measured):
            words = _last_values(curves, formats.VALIDATION_BITS, f" {formats.BITS}")
            title = f"Bits of the validation rows’ shared text, {name}"
            plots.append(_plot(title, validation_bits_figure(curves), words, "".join(bits_notes)))
            bits_notes.clear()
    for evaluation, groups in experiment.replies.items():
        tokens = {
            label: [row["tokens"] for each in group for row in each.predictions] for label, group in groups.items()
        }
        lengths = [
            f"{label}: {sum(lengths) / len(lengths):.1f} tokens on average, {max(lengths)} at most"
            for label, lengths in tokens.items()
        ]
        plots.append(_plot(f"Length of replies, {EVALUATION_NAMES[evaluation]}", reply_length_figure(tokens), lengths))
    return plots


def _plot(title: str, figure: Figure, words: list[str], note: str = "") -> dict[str, str]:
    name = "".join(letter for letter in title.lower() if letter.isalnum())
    return {"title": title, "drawing": Markup(figure_as_svg(figure, name)), "words": "; ".join(words), "note": note}


def _last_values(curves: Mapping[str, list[dict[str, Any]]], names: Mapping[str, str], unit: str) -> list[str]:
    """Return in words where each condition's curves end, as means over seeds. names: of the curves, by key."""
    words = []
    for condition, runs in curves.items():
        lasts = {name: [run[key][-1][1] for run in runs if run[key]] for key, name in names.items()}
        parts = [f"{name} {sum(values) / len(values):.4f}{unit}" for name, values in lasts.items() if values]
        words.append(f"{condition}, at the end: {', '.join(parts)}")
    return words


def _usage(experiment: Experiment) -> list[dict[str, Any]]:
    """Return how often each fact was injected by stage and written by evaluation, over all seeds and groups."""
    injected = [
        [run.results.get("injected_by_fact") or {} for run in experiment.trainings if run.stage == stage]
        for stage in STAGE_NAMES
    ]
    written = [
        fact_usage(row for group in groups.values() for evaluation in group for row in evaluation.predictions)
        for groups in experiment.replies.values()
    ]
    rows = [
        {
            "equation": show_facts(token),
            "injected": [sum(counts.get(token, 0) for counts in stage) for stage in injected],
            "written": [usage.get(token, {}) for usage in written],
        }
        for token in FACT_TOKENS
    ]
    return rows if any(any(row["injected"]) or any(row["written"]) for row in rows) else []
