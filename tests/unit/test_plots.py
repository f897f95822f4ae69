"""Figures show every point they are given."""

import pytest

from domain_tokens.comparison.formats import VALIDATION_BITS
from domain_tokens.comparison.plots import loss_figure, validation_bits_figure


def curve(points: int) -> dict:
    values = [(10 * i, 1 / i) for i in range(1, points + 1)]
    return dict.fromkeys(("train", "validation", *VALIDATION_BITS), values)


@pytest.mark.parametrize(("points", "runs", "marker"), [(1, 1, "o"), (1, 9, "o"), (3, 8, "o"), (3, 9, "None")])
def test_points_are_marked_where_no_line_shows_them_and_for_few_seeds(points, runs, marker):
    [axes] = loss_figure({"baseline": [curve(points)] * runs}).axes
    training, validation = axes.lines[:2]
    assert training.get_marker() == ("o" if points == 1 else "None")
    assert validation.get_marker() == marker
    for axes in validation_bits_figure({"baseline": [curve(points)] * runs}).axes:
        assert [line.get_marker() for line in axes.lines] == [marker] * runs
