"""Two kinds of failure, each one line on stderr and an exit code: 2 for what the user gave, 1 for what happened."""

import os
import sys
from collections.abc import Callable
from difflib import get_close_matches

from domain_tokens.interruption import continuing_command, terminate_like_interrupt


class InputError(Exception):
    """The user's input cannot be used. The message names the value, what was expected and what to do."""


class RunError(Exception):
    """Something failed while running; the same command can be given again."""


def run(main: Callable[[], None], can_resume: bool = False) -> None:
    """Run a script's main and turn its expected failures into one line and an exit code.

    can_resume: the script takes --resume, so what is interrupted can be continued.
    """
    _open_streams()
    terminate_like_interrupt()
    try:
        main()
    except InputError as error:
        _exit(2, error)
    except BrokenPipeError:  # whoever read the output has gone (`| head`), and nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (RunError, OSError) as error:
        _exit(1, error)
    except KeyboardInterrupt:
        _exit(1, f"interrupted; continue with: {continuing_command()}" if can_resume else "interrupted")


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


def _open_streams() -> None:
    """Standard streams may be closed (`>&-`), or of an encoding without × and the like."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  (until the program ends)
    sys.stdin.reconfigure(errors="replace")
    sys.stdout.reconfigure(errors="backslashreplace")


def _exit(code: int, message: object) -> None:
    sys.stderr.write(f"error: {' '.join(str(message).split())}\n")
    sys.exit(code)
