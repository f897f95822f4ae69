"""The plots: PNG files for the comparison, SVG in the report's page, drawn by the same functions."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from domain_tokens.runs.files import write_files

# Okabe & Ito (2008): told apart by colour-blind readers too.
COLORS = {"baseline": "#0072b2", "mul_tokens": "#d55e00"}
WRONG, RIGHT = COLORS["mul_tokens"], "#56b4e9"
_INK, _RULE = "#222222", "#b0b0b0"

_STYLE = {
    "axes.edgecolor": _INK, "axes.labelcolor": _INK, "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK,
    "grid.color": _RULE, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "domain_tokens",
}  # fmt: skip

# In a page, colours follow its light or dark scheme.
_PAGE_COLORS = {
    _INK: "currentColor", _RULE: "var(--rule)", COLORS["baseline"]: "var(--baseline)",
    COLORS["mul_tokens"]: "var(--mul-tokens)",
}  # fmt: skip


def accuracy_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Both conditions' accuracy at each measure with its interval, and a dot for each seed."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5, 1.2 + 0.55 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for offset, condition in ((-0.14, "baseline"), (0.14, "mul_tokens")):
            color, heights = COLORS[condition], [i + offset for i in range(len(rows))]
            shares = [100 * row[condition]["accuracy"] for row in rows]
            reach = [
                [
                    max(0.0, share - 100 * row[condition]["interval"][0])
                    for row, share in zip(rows, shares, strict=True)
                ],
                [
                    max(0.0, 100 * row[condition]["interval"][1] - share)
                    for row, share in zip(rows, shares, strict=True)
                ],
            ]
            axes.errorbar(shares, heights, xerr=reach, fmt="o", color=color, capsize=3, label=condition)
            for height, row in zip(heights, rows, strict=True):
                if len(by_seed := row[condition]["by_seed"]) > 1:
                    axes.plot([100 * share for share in by_seed], [height] * len(by_seed), "|", color=color, ms=9)
        axes.set_yticks(range(len(rows)), [f"{row['name']}\n({row['questions']} questions)" for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(-2, 102)
        axes.set_xlabel("right answers in %, with 95% intervals")
        axes.grid(axis="x", alpha=0.3)
        figure.legend(loc="outside upper right", ncols=2)
        return figure


def mul_table_figure(tables: Mapping[str, np.ndarray]) -> Figure:
    """The 9×9 table by condition. tables: 9×9 each, the share of seeds that had a·b right."""
    shades = LinearSegmentedColormap.from_list("right", [WRONG, "#f0e442", RIGHT])
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 5.2), layout="constrained")
        for axes, (condition, right) in zip(figure.subplots(1, len(tables)), tables.items(), strict=True):
            axes.imshow(right, cmap=shades, vmin=0, vmax=1)
            axes.set_title(f"{condition}: {np.nansum(right):.4g} of 81 right", pad=8)
            axes.set_xticks(range(9), range(1, 10))
            axes.set_yticks(range(9), range(1, 10))
            axes.set_xlabel("b")
            axes.set_ylabel("a", rotation=0, labelpad=8)
            axes.set_xticks([i + 0.5 for i in range(8)], minor=True)
            axes.set_yticks([i + 0.5 for i in range(8)], minor=True)
            axes.grid(which="minor", color="white")
            axes.tick_params(which="minor", length=0)
            for a in range(9):
                for b in range(9):
                    mark = {1: str((a + 1) * (b + 1)), 0: "×"}.get(right[a, b], f"{right[a, b]:.0%}")
                    axes.text(b, a, mark, ha="center", va="center", fontsize=8)
        figure.suptitle("“What is a times b?”: the product where it was answered right, × where not")
        return figure


def loss_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Training (lines) and validation loss (dashed, with dots). curves: by condition one per seed, see results."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5, 3.2), layout="constrained")
        axes = figure.subplots()
        for condition, runs in curves.items():
            for i, run in enumerate(runs):
                names = (condition, f"{condition}, validation") if i == 0 else (None, None)
                axes.plot(*_columns(run["train"]), color=COLORS[condition], lw=1.2, alpha=0.8, label=names[0])
                axes.plot(
                    *_columns(run["validation"]),
                    "o--",
                    color=COLORS[condition],
                    lw=1.2,
                    ms=4,
                    alpha=0.8,
                    label=names[1],
                )
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss per trained token")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        figure.legend(loc="outside upper center", ncols=2, fontsize="small")
        return figure


def reply_length_figure(tokens: Mapping[str, Sequence[int]]) -> Figure:
    """How many replies are how long, by condition."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5, 2.8), layout="constrained")
        axes = figure.subplots()
        longest = max(max(lengths) for lengths in tokens.values())
        bins = np.linspace(0, longest + 1, min(40, longest + 1) + 1)
        for condition, lengths in tokens.items():
            axes.hist(lengths, bins=bins, color=COLORS[condition], alpha=0.25)
            axes.hist(lengths, bins=bins, histtype="step", color=COLORS[condition], lw=1.5, label=condition)
        axes.set_xlabel("tokens in a reply")
        axes.set_ylabel("replies")
        axes.grid(axis="y", alpha=0.3)
        figure.legend(loc="outside upper center", ncols=2, fontsize="small")
        return figure


def _columns(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def save_figure(figure: Figure, path: Path) -> Path:
    image = io.BytesIO()
    figure.savefig(image, dpi=150, format="png")
    write_files({path: image.getvalue()})
    return path


def figure_as_svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element to put into a page; `name` keeps its ids apart from other figures'."""
    file = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = file.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    for color, variable in _PAGE_COLORS.items():
        drawing = drawing.replace(color, variable)
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", drawing)
    drawing = re.sub(r"font-family: [^;\"]*;?", "", drawing)  # the page's own font
    return re.sub(r'<svg ([^>]*?)width="[^"]*"', r'<svg aria-hidden="true" \1', drawing, count=1).replace(
        'height="', 'data-height="', 1
    )
