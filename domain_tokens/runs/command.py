"""Two kinds of failure, each one line on stderr and an exit code: 2 for what the user gave, 1 for what happened."""

import errno
import os
import re
import sys
import threading
from collections.abc import Callable

from domain_tokens.runs import processes
from domain_tokens.runs.errors import InputError, RunError, explained, nearest
from domain_tokens.runs.signals import continuing_command, terminate_like_interrupt
from domain_tokens.runs.terminal import shown_text

_UNDO: list[Callable[[], None]] = []


def run(main: Callable[[], None], can_resume: bool = False) -> None:
    """Run a script's main and turn its expected failures into one line and an exit code.

    can_resume: the script takes --resume, so what is interrupted can be continued.
    """
    _open_streams()
    terminate_like_interrupt()
    threading.excepthook = _thread_failed
    try:
        main()
    except InputError as error:
        _exit(2, error, is_everywhere=True)
    except BrokenPipeError:  # whoever read the output has gone (`| head`), and nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except RunError as error:
        _exit(1, error)
    except RuntimeError as error:
        if processes.count() == 1 or not _is_lost_connection(error):
            raise
        how = f"continue with: {continuing_command()}" if can_resume else "give the command again"
        _exit(1, f"another process of this run has ended; {how}")
    except OSError as error:
        _exit(2 if error.errno == errno.ENAMETOOLONG else 1, explained(error))
    except KeyboardInterrupt:
        text = f"interrupted; continue with: {continuing_command()}" if can_resume else "interrupted"
        _exit(1, text, is_everywhere=True)


def _is_lost_connection(error: RuntimeError) -> bool:
    """torch's errors of NCCL have a type, those of gloo a text only."""
    return type(error).__name__.startswith("Dist") or "gloo" in str(error)


def on_failure(undo: Callable[[], None]) -> None:
    """Have `undo` called before a run that fails ends, to take back what it had begun."""
    _UNDO.append(undo)


def one_line_usage_errors(parser):
    """Make an argument parser raise InputError instead of printing its whole usage. Returns the parser.

    It also refuses, in the same words for every script, what no flag takes: empty values and impossible seeds.
    """

    def raise_input_error(message: str) -> None:
        raise InputError(f"{message}; {parser.prog} --help shows what it takes")

    def strictly(parse):
        def parse_args(argv: list[str] | None):
            _check_words(parser, sys.argv[1:] if argv is None else argv)
            args = parse(argv)
            _check_values(parser, args)
            return args

        return parse_args

    parser.error = raise_input_error
    for name in ("parse_args", "parse_intermixed_args"):
        setattr(parser, name, strictly(getattr(parser, name)))
    return parser


def _check_words(parser, words: list[str]) -> None:
    """Said before parsing: a misspelt flag would be reported as the absence of the right one."""
    known = {"--help", *re.findall(r"--[\w-]+", parser.format_usage())}
    for word in words:
        if re.search("[\ud800-\udfff]", word):  # how Python spells bytes that are no letter
            parser.error(f"{word!a} is not valid UTF-8 text")
    for word in words[: words.index("--")] if "--" in words else words:
        flag = word.partition("=")[0]
        if re.fullmatch(r"--[\w-]+", flag) and flag not in known:
            parser.error(f"unrecognized arguments: {flag}{nearest(flag, known)}")


def _check_values(parser, args) -> None:
    for name, value in vars(args).items():
        if value == "":
            parser.error(f"--{name.replace('_', '-')} is empty")
    seed = getattr(args, "seed", None)
    if seed is not None and not 0 <= seed < 2**32:
        raise InputError(f"--seed is {seed}, expected 0 to {2**32 - 1}")


def _open_streams() -> None:
    """Standard streams may be closed (`>&-`), or of an encoding without × and the like."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  (until the program ends)
    sys.stdin.reconfigure(errors="replace")
    sys.stdout.reconfigure(errors="backslashreplace")


def _thread_failed(failure) -> None:
    """TensorBoard writes in a thread of its own. A full disk then fails in the main one too, and is told once."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def _exit(code: int, message: object, is_everywhere: bool = False) -> None:
    """is_everywhere: every process of this command ends with the same message, and one of them is enough to say it."""
    for undo in reversed(_UNDO):
        undo()
    if processes.is_first_here() or not is_everywhere:
        sys.stderr.write(f"error: {shown_text(' '.join(str(message).split()))}\n")
    sys.exit(code)
