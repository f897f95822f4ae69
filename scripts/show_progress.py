"""Show how far an experiment has come: stage by condition, from what lies in its folders.

Example:
  uv run python scripts/show_progress.py outputs/toy
  uv run python scripts/show_progress.py outputs --write progress/2026-11-22-end-to-end.md
"""

import argparse
from pathlib import Path

from domain_tokens.runs.command_line import CommandParser, run
from domain_tokens.runs.errors import InputError
from domain_tokens.runs.terminal import aligned, say


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(__doc__)
    parser.add_path("experiment", nargs="?", default="outputs", help="folder (default: outputs)")
    parser.add_path("--write", metavar="NOTE", help="also put the table into this note, in a block of its own")
    return parser.parse(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from domain_tokens.comparison.formats import LOSS_NOTE
    from domain_tokens.comparison.progress import as_markdown, progress_table, put_into
    from domain_tokens.runs.files import shown_path, write_text

    root = Path(args.experiment)
    if not root.is_dir():
        raise InputError(f"{root} is no folder; give the one that an experiment is written to, such as outputs/toy")
    note = Path(args.write) if args.write else None
    if note and not note.is_file():
        raise InputError(f"{note} is no file; write the note first, the table is put into it")
    if note and note.suffix not in (".md", ".txt"):
        raise InputError(f"{note} is no note; give a .md or .txt file, such as one in progress/")
    rows = progress_table(root)
    say(aligned(rows, left=range(len(rows[0]))))
    if any(sum(" loss " in cell for cell in row) > 1 for row in rows):
        say(f"\n{LOSS_NOTE}")
    if note:
        shown = shown_path(root)
        try:
            with note.open(encoding="utf-8", newline="") as file:
                before = file.read()
            text = put_into(before.replace("\r\n", "\n"), shown, as_markdown(rows))
            text = text.replace("\n", "\r\n") if "\r\n" in before else text
        except UnicodeDecodeError:
            raise InputError(f"{note} is not UTF-8 text; give a note of plain text") from None
        except ValueError as error:
            raise InputError(f"{note} has {error}") from None
        write_text(note.resolve(), text)  # not over a link, but into the note that it leads to
        say(f"\nwrote {note}")


if __name__ == "__main__":
    run(main)
