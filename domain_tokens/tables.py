"""Plain text for terminals: aligned tables and readable sizes."""

from collections.abc import Sequence


def aligned(cells: Sequence[tuple[str, ...]], left: Sequence[int]) -> str:
    """A table with its header row underlined; columns in `left` are flush left, the others flush right."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(cell.ljust(width) if i in left else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in cells
    ]  # fmt: skip
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def readable_size(size: int) -> str:
    """Bytes in decimal units, as the Hub shows them: `497.8 MB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
