"""Figures show every point they are given."""

import numpy as np
import pytest

from domain_tokens.comparison.formats import VALIDATION_BITS
from domain_tokens.comparison.plots import accuracy_figure, loss_figure, validation_bits_figure


def curve(points: int) -> dict:
    values = [(10 * i, 1 / i) for i in range(1, points + 1)]
    return dict.fromkeys(("train", "validation", *VALIDATION_BITS), values)


def labelled(lines):
    return [line for line in lines if not line.get_label().startswith("_")]


@pytest.mark.parametrize(("points", "runs", "marker"), [(1, 1, "o"), (1, 9, "o"), (3, 8, "o"), (3, 9, "None")])
def test_points_are_marked_where_no_line_shows_them_and_for_few_seeds(points, runs, marker):
    [axes] = loss_figure({"baseline": [curve(points)] * runs}).axes
    training, validation = labelled(axes.lines)
    assert training.get_marker() == ("o" if points == 1 else "None")
    assert validation.get_marker() == marker
    for axes in validation_bits_figure({"baseline": [curve(points)] * runs}).axes:
        assert {line.get_marker() for line in axes.lines} == {marker}


def test_many_runs_are_drawn_pale_below_their_mean():
    rising = [{"train": [(1, float(i)), (2, i + 1.0)], "validation": [(2, 4.0)]} for i in range(9)]
    shorter = {"train": [(1, 14.0)], "validation": [(2, 14.0)]}
    [axes] = loss_figure({"baseline": [*rising, shorter]}).axes
    training, validation = labelled(axes.lines)
    mean = [[1, 5], [2, 5], [np.nan] * 2]  # (0 + 1 + … + 8 + 14) / 10, and (1 + … + 9) / 9
    np.testing.assert_equal(training.get_xydata(), mean)
    np.testing.assert_equal(validation.get_xydata(), mean[1:])
    pale = [line for line in axes.lines if line.get_alpha() < 0.5]
    assert [np.isnan(line.get_xdata()).sum() for line in pale] == [10, 10], "every run's own"
    assert max(line.get_zorder() for line in pale) < min(training.get_zorder(), validation.get_zorder())


def test_curves_of_several_runs_do_not_run_into_each_other():
    one, other = {"train": [(1, 5.0), (2, 4.0)], "validation": []}, {"train": [(1, 7.0)], "validation": [(2, 3.0)]}
    [axes] = loss_figure({"baseline": [one, other]}).axes
    training, validation = axes.lines
    np.testing.assert_equal(training.get_xydata(), [[1, 5], [2, 4], [np.nan] * 2, [1, 7], [np.nan] * 2])
    np.testing.assert_equal(validation.get_xydata(), [[2, 3], [np.nan] * 2])


def test_each_seed_has_a_dash_of_its_own_beside_the_group():
    row = {
        "name": "GSM8K",
        "questions": 8,
        "baseline": {"accuracy": 0.5, "interval": [0.25, 0.75], "by_seed": [0.25, 0.75]},
    }
    axes = accuracy_figure([row], ["baseline"]).axes[0]
    [dashes] = [line for line in axes.lines if len(line.get_xdata()) > 2]
    np.testing.assert_allclose(dashes.get_xdata(), [25, 25, np.nan, 75, 75, np.nan])
    np.testing.assert_allclose(dashes.get_ydata(), [-0.112, 0.112, np.nan] * 2)
