"""Plain text for terminals: aligned tables, readable sizes, and nothing that a terminal would obey."""

import re
from collections.abc import Collection, Sequence

# What a terminal would obey instead of showing: control characters and changes of the writing direction.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def shown_text(text: str) -> str:
    """Return text of a model, a dataset or a file for a terminal: control characters as Python spells them."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def aligned(cells: Sequence[tuple[str, ...]], left: Collection[int]) -> str:
    """Return a table with its header row underlined; columns in `left` are flush left, the others flush right."""
    cells = [tuple(map(shown_text, row)) for row in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [f"{cell:{'<' if i in left else '>'}{widths[i]}}" for i, cell in enumerate(row)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def readable_size(size: int) -> str:
    """Return bytes in decimal units, as the Hub shows them: `497.8 MB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
