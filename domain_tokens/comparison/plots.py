"""The plots: PNG files beside a comparison and SVG in the report's page, drawn by the same functions.

Groups, such as the conditions, have the same colours everywhere, by their order.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from domain_tokens.comparison.formats import BITS, VALIDATION_BITS, is_bits
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.files import read_json

# Colours that colour-blind readers can tell apart (Okabe & Ito 2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_WRONG, _SOME, _RIGHT = "#d55e00", "#f0e442", "#56b4e9"
_FEW_SEEDS = 8  # the points of more would hide the curves and swell the page, their curves one another
_PNG_TITLE = "comparison by domain_tokens"
_INK, _RULE = "#222222", "#b0b0b0"
_STYLE = {
    "axes.edgecolor": _INK, "axes.labelcolor": _INK, "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK,
    "grid.color": _RULE, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "legend.fontsize": "small", "font.size": 9, "figure.constrained_layout.use": True,
    "svg.fonttype": "none", "svg.hashsalt": "domain_tokens", "text.parse_math": False,  # labels may hold $
}  # fmt: skip
# Colours of the page's light or dark scheme that replace the plots' own.
_PAGE_COLORS = {_INK: "currentColor", _RULE: "var(--rule)"} | {c: f"var(--group-{i})" for i, c in enumerate(COLORS)}


def _new_plot(height: float, xlabel: str, grid: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, height))
    axes = figure.subplots()
    axes.set_xlabel(xlabel)
    axes.grid(axis=grid)
    return figure, axes


@rc_context(_STYLE)
def accuracy_figure(rows: Sequence[Mapping[str, Any]], labels: Sequence[str], data: str = "") -> Figure:
    """Draw the groups' accuracies at each measure with their intervals, and a dash for each of several seeds.

    rows: see `compare.measures`; those in bits are left out. data: what to say of the data beside the plot's subject.
    """
    shares = [row for row in rows if not is_bits(row)]
    figure, axes = _dots(shares, labels, "accuracy", 100, f"right answers in %, with 95% intervals{data}")
    axes.set_xlim(-2, 102)
    return figure


@rc_context(_STYLE)
def bits_figure(rows: Sequence[Mapping[str, Any]], labels: Sequence[str], data: str = "") -> Figure:
    """Draw the measures in bits per byte in the same way."""
    bits = [row for row in rows if is_bits(row)]
    return _dots(bits, labels, "bits_per_byte", 1, f"{BITS}, lower is better,\nwith 95% intervals{data}")[0]


def _dots(
    rows: Sequence[Mapping[str, Any]], labels: Sequence[str], key: str, scale: float, xlabel: str
) -> tuple[Figure, Axes]:
    figure, axes = _new_plot(1.2 + max(0.55, 0.16 * len(labels)) * len(rows), xlabel, "x")
    spacing = min(0.28, 0.8 / len(labels))
    for i, (label, color) in enumerate(zip(labels, cycle(COLORS), strict=False)):
        heights = np.arange(len(rows)) + spacing * (i - (len(labels) - 1) / 2)
        groups = [row[label] for row in rows]
        values = np.array([scale * group[key] for group in groups])
        low, high = scale * np.array([group["interval"] for group in groups]).T
        reach = np.maximum(0, [values - low, high - values])
        axes.errorbar(values, heights, xerr=reach, fmt="o", color=color, capsize=3, label=label)
        dashes = [
            ([scale * value] * 2, [height - 0.4 * spacing, height + 0.4 * spacing])
            for height, group in zip(heights, groups, strict=True)
            if len(group["by_seed"]) > 1
            for value in group["by_seed"]
        ]
        axes.plot(*_joined(dashes), color=color, lw=1, alpha=0.4, zorder=1)  # many must not cover the interval
    axes.set_yticks(range(len(rows)), [f"{row['name']}\n({row['questions']} questions)" for row in rows])
    axes.invert_yaxis()
    figure.legend(loc="outside upper right", ncols=2)
    return figure, axes


@rc_context(_STYLE)
def mul_table_figure(tables: Mapping[str, np.ndarray], data: str = "") -> Figure:
    """Draw the 9×9 table of each group. tables: the share of seeds that had a·b right, NaN if it was not asked."""
    shades = LinearSegmentedColormap.from_list("right", [_WRONG, _SOME, _RIGHT])
    lines = -(-len(tables) // 2)
    figure = Figure(figsize=(9, 0.4 + 4.8 * lines))
    panels = figure.subplots(lines, 2, squeeze=False).ravel()
    for axes in panels[len(tables) :]:
        axes.remove()
    for axes, (label, right) in zip(panels, tables.items(), strict=False):
        axes.imshow(right, cmap=shades, vmin=0, vmax=1)
        axes.set_title(f"{label}: {np.nansum(right):.4g} of {np.isfinite(right).sum()} right", pad=8)
        axes.set_xlabel("b")
        axes.set_ylabel("a", rotation=0, labelpad=8)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(range(9), range(1, 10))
            axis.set_ticks(np.arange(8) + 0.5, minor=True)
        axes.grid(which="minor", color="white", alpha=1)
        axes.tick_params(which="minor", length=0)
        for (a, b), share in np.ndenumerate(right):
            mark = "" if np.isnan(share) else {1: str((a + 1) * (b + 1)), 0: "×"}.get(share, f"{share:.0%}")
            axes.text(b, a, mark, ha="center", va="center", fontsize=8)
    figure.suptitle(f"“What is a times b?”: the product where it was answered right, × where not{data}")
    return figure


def _joined(lines: Iterable[tuple[Sequence[float], Sequence[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """Return lines as one with gaps, x and y. As elements of their own, those of many seeds would swell the page."""
    gap = [(np.nan,), (np.nan,)]
    return tuple(np.concatenate(parts) for parts in zip(*(each for line in lines for each in (line, gap)), strict=True))


def _plot_curves(
    axes: Axes, curves: Sequence[Sequence[tuple[int, float]]], line: str, are_marked: bool, **style
) -> None:
    """Draw the curve of each run; those of many are pale, below their mean.

    A single point has no line, so it is marked in any case.
    """
    drawn = [tuple(zip(*curve, strict=True)) for curve in curves if curve] or [((), ())]
    dot = "o" if are_marked or any(len(steps) == 1 for steps, _ in drawn) else ""
    if len(drawn) > _FEW_SEEDS:
        axes.plot(*_joined(drawn), dot + line, lw=1.2, alpha=0.15, zorder=1.5, **style | {"label": None})
        drawn = [_mean_curve(curves)]
    axes.plot(*_joined(drawn), dot + line, lw=1.2, alpha=0.8, **style)


def _mean_curve(curves: Iterable[Sequence[tuple[int, float]]]) -> tuple[Sequence[int], Sequence[float]]:
    """Return the steps, and at each the mean over the curves that have it."""
    values: dict[int, list[float]] = {}
    for step, value in (point for curve in curves for point in curve):
        values.setdefault(step, []).append(value)
    return sorted(values), [float(np.mean(values[step])) for step in sorted(values)]


@rc_context(_STYLE)
def loss_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw training loss (lines) and validation loss (dashed), each group in a panel with its own scale.

    In one panel, losses per token would be read against each other, though the groups' tokens differ.

    curves: of each group's runs, as `loss_curves` in their results.
    """
    figure = Figure(figsize=(5, 0.6 + 1.6 * len(curves)))
    panels = figure.subplots(len(curves), sharex=True, squeeze=False)[:, 0]
    for axes, (label, runs), color in zip(panels, curves.items(), cycle(COLORS), strict=False):
        for key, line, name in (("train", "-", "training"), ("validation", "--", "validation")):
            are_marked = key == "validation" and len(runs) <= _FEW_SEEDS
            _plot_curves(axes, [run[key] for run in runs], line, are_marked, color=color, ms=4, label=name)
        axes.set_title(label, fontsize="medium", loc="left", pad=3)
        axes.legend()
        axes.grid()
    figure.supylabel("loss per trained token", fontsize="medium")
    panels[-1].set_xlabel("optimizer step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


@rc_context(_STYLE)
def validation_bits_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw the bits per byte of the validation rows' shared text, numbers and words, all groups in one panel each.

    The text is the same for all groups, so these curves may be read against each other.

    curves: of each group's runs, as `loss_curves` in their results.
    """
    figure = Figure(figsize=(5, 4.4))
    panels = figure.subplots(2, sharex=True)
    for axes, (key, name) in zip(panels, VALIDATION_BITS.items(), strict=True):
        for (label, runs), color in zip(curves.items(), cycle(COLORS), strict=False):
            shown = label if axes is panels[0] else None  # once in the legend
            _plot_curves(axes, [run[key] for run in runs], "-", len(runs) <= _FEW_SEEDS, color=color, ms=3, label=shown)
        axes.set_title(name, fontsize="medium", loc="left", pad=3)
        axes.grid()
    figure.supylabel(f"{BITS}, lower is better", fontsize="medium")
    panels[-1].set_xlabel("optimizer step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.legend(loc="outside upper right", ncols=2)
    return figure


@rc_context(_STYLE)
def reply_length_figure(tokens: Mapping[str, Sequence[int]]) -> Figure:
    """Draw a histogram of each group's reply lengths in tokens."""
    figure, axes = _new_plot(2.8, "tokens in a reply", "y")
    longest = max(max(lengths) for lengths in tokens.values())
    bins = np.linspace(0, longest + 1, min(40, longest + 1) + 1)
    for (label, lengths), color in zip(tokens.items(), cycle(COLORS), strict=False):
        if len(tokens) < 3:  # more of them would hide each other
            axes.hist(lengths, bins=bins, color=color, alpha=0.25)
        axes.hist(lengths, bins=bins, histtype="step", color=color, lw=1.5, label=label)
    axes.set_ylabel("replies")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def figure_as_png(figure: Figure) -> bytes:
    image = io.BytesIO()
    # Constrained layout does not see a tick label that reaches beyond the axis.
    figure.savefig(image, dpi=150, format="png", bbox_inches="tight", metadata={"Title": _PNG_TITLE})
    return image.getvalue()


def plot_file(comparison: Path, name: str, overwrite: bool) -> Path:
    """Return the place for a plot beside the comparison's file. InputError if something else lies there."""
    path = comparison.with_name(f"{comparison.stem}_{name}.png")
    is_ours = path.is_file() and _PNG_TITLE.encode() in path.read_bytes()[:1000]
    if path.exists() and not is_ours and not (overwrite and path.is_file()):
        listed = str(read_json(comparison).get("plots")) if comparison.is_file() else ""
        if path.name not in listed:  # as a plot of an earlier version is
            raise InputError(f"{path} is no plot of a comparison; choose another --output-path, or give --overwrite")
    return path


@rc_context(_STYLE)
def figure_as_svg(figure: Figure, name: str) -> str:
    """Return the figure as an <svg> element for a page. name: keeps the ids of several figures apart."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL)
    for color, variable in _PAGE_COLORS.items():
        drawing = drawing.replace(color, variable)
    drawing = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", drawing)
    drawing = re.sub(r"font-family: [^;\"]*;?", "", drawing)  # the page's own font
    return re.sub(r'(width|height)="[^"]*"', "", drawing, count=2).replace("<svg", '<svg aria-hidden="true"', 1)
