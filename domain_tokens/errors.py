"""Two kinds of failure, each one line on stderr and an exit code: 2 for what the user gave, 1 for what happened."""

import sys
from collections.abc import Callable
from difflib import get_close_matches


class InputError(Exception):
    """The user's input cannot be used. The message names the value, what was expected and what to do."""


class RunError(Exception):
    """Something failed while running; the same command can be given again."""


def run(main: Callable[[], None]) -> None:
    """Run a script's main and turn its expected failures into one line and an exit code."""
    try:
        main()
    except InputError as error:
        _exit(2, error)
    except (RunError, OSError) as error:
        _exit(1, error)
    except KeyboardInterrupt:
        _exit(1, "interrupted")


def one_line_usage_errors(parser):
    """Make an argument parser raise InputError instead of printing its whole usage. Returns the parser."""

    def raise_input_error(message: str) -> None:
        raise InputError(f"{message}; {parser.prog} --help shows what it takes")

    parser.error = raise_input_error
    return parser


def nearest(word: str, known) -> str:
    """` (did you mean …?)` for the known word nearest to a misspelt one, or nothing."""
    matches = get_close_matches(word, list(known), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _exit(code: int, message: object) -> None:
    sys.stderr.write(f"error: {' '.join(str(message).split())}\n")
    sys.exit(code)
