"""How tables and messages write numbers."""

import pytest

from domain_tokens.comparison.formats import seeds_in_words


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ([42], "42"),
        ([0, 1, 2], "0, 1, 2"),
        ([0, 1, 2, 3], "0 to 3"),
        ([7, *range(24, 116)], "7, 24 to 115"),
        ([8, 10, 11, 12, 13, 5], "8, 10 to 13, 5"),
        ([3, 2, 1, 0], "3, 2, 1, 0"),
        ([None], "–"),
        ([None, None, None, None], "–, –, –, –"),
    ],
)
def test_many_seeds_in_a_row_are_a_range(seeds, words):
    assert seeds_in_words(seeds) == words
