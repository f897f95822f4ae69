"""docs/known.md: its tests and detectable differences, computed again from the published counts."""

import re

import numpy as np
import pytest
from documents import ROOT

from domain_tokens.comparison.statistics import detectable_difference, mcnemar_p

ROW = re.compile(r"^\| [^|]+ \| ([\d,]+) \| (\d+) \| (\d+) \| ([-+][\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)
PAGE = (ROOT / "docs/known.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", ROW.findall(PAGE), ids=lambda row: "-".join(row[:3]))
def test_a_row_follows_from_its_counts(row):
    questions, a, b = (int(number.replace(",", "")) for number in row[:3])
    common = max(0, a + b - questions)
    right = np.zeros((2, 1, questions), int)
    right[0, 0, :a] = right[1, 0, a - common : a - common + b] = 1
    assert row[3] == f"{100 * (b - a) / questions:+.1f}"
    assert row[4] == f"{mcnemar_p(a - common, b - common):.3f}"
    assert row[5] == f"{100 * detectable_difference(*right):.1f}"


def test_the_five_published_comparisons_are_there():
    assert [row[:3] for row in ROW.findall(PAGE)] == [
        ("1,319", "33", "27"), ("500", "12", "19"), ("500", "11", "20"), ("500", "9", "12"), ("81", "55", "30"),
    ]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "needed"), [(33, 27, 27), (12, 19, 11), (11, 20, 7)])
def test_so_many_in_common_would_have_been_needed(a, b, needed):
    assert mcnemar_p(a - needed, b - needed) < 0.05 < mcnemar_p(a - needed + 1, b - needed + 1)
    assert re.search(rf"{needed}\s+of\s+{min(a, b)}\b", PAGE)


def test_nothing_in_common_helps_the_synthetic_data_and_the_table_does_not_need_it():
    assert min(mcnemar_p(9 - common, 12 - common) for common in range(10)) > 0.05
    assert max(mcnemar_p(55 - common, 30 - common) for common in range(4, 31)) < 0.05
