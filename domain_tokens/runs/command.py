"""The command line that all scripts share: their parser, and how a command ends.

Two kinds of failure end a command with one line on stderr and an exit code: 2 for what the user gave, 1 for what
happened while running.
"""

import argparse
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from domain_tokens.conditions import CONDITIONS
from domain_tokens.runs import processes
from domain_tokens.runs.errors import InputError, RunError, explained, nearest
from domain_tokens.runs.signals import continuing_command, terminate_like_interrupt
from domain_tokens.runs.terminal import shown_text

SEED_RANGE = range(2**32)  # what torch, numpy and transformers all take
_UNDO: list[Callable[[], None]] = []


def check_seed(name: str, seed: int) -> None:
    """Raise InputError for a seed that a library would not take. name: what the user calls the seed."""
    if seed not in SEED_RANGE:
        raise InputError(f"{name} is {seed}, expected 0 to {SEED_RANGE[-1]}")


class CommandParser(argparse.ArgumentParser):
    """A parser whose help is the script's docstring, and whose errors are one line each.

    Flags are never abbreviated. An empty value and an impossible seed are refused in the same words everywhere.
    """

    def __init__(self, docstring: str | None):
        super().__init__(
            description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        self._takes_overrides = False

    def add_condition(self, required: bool = False) -> None:
        meaning = "how facts are written in training text" if required else "for folders that do not say"
        self.add_argument("--condition", required=required, choices=list(CONDITIONS), help=meaning)

    def add_rerun_flags(self, resume: str, overwrite: str) -> None:
        """Add the two flags that say what to do with a run that the output folder already holds."""
        self.add_argument("--resume", action="store_true", help=resume)
        self.add_argument("--overwrite", action="store_true", help=overwrite)

    def add_overrides(self) -> None:
        self._takes_overrides = True
        self.add_argument("overrides", nargs="*", metavar="key=value", help="override any key of the config")

    def parse(self, argv: list[str] | None) -> argparse.Namespace:
        """Parse `argv` (None: the command line). Raises InputError for anything that is not accepted."""
        self._check_words(sys.argv[1:] if argv is None else argv)
        args = self.parse_intermixed_args(argv) if self._takes_overrides else self.parse_args(argv)
        for name, value in vars(args).items():
            if value == "":
                self.error(f"--{name.replace('_', '-')} is empty")
        if getattr(args, "seed", None) is not None:
            check_seed("--seed", args.seed)
        return args

    def error(self, message: str) -> None:
        raise InputError(f"{message}; {self.prog} --help shows what it takes")

    def _check_words(self, words: list[str]) -> None:
        """Look for misspelt flags before parsing, which would report the right flag as missing instead."""
        known = {"--help", *re.findall(r"--[\w-]+", self.format_usage())}
        for word in words:
            if re.search("[\ud800-\udfff]", word):  # how Python spells bytes that are no letter
                self.error(f"{word!a} is not valid UTF-8 text")
        for word in words[: words.index("--")] if "--" in words else words:
            flag = word.partition("=")[0]
            if re.fullmatch(r"--[\w-]+", flag) and flag not in known:
                self.error(f"unrecognized arguments: {flag}{nearest(flag, known)}")


def sft_parser(docstring: str | None, start_model: str, recipe: str) -> CommandParser:
    """Return the parser of an SFT stage. start_model: what the stage starts from; recipe: the path of its YAML."""
    parser = CommandParser(docstring)
    parser.add_argument("--model-path", required=True, help=f"folder of the {start_model}")
    parser.add_argument("--output-dir", required=True, help="folder to write the trained model to")
    parser.add_condition(required=True)
    parser.add_argument("--config", required=True, help=f"YAML recipe, see {recipe}")
    parser.add_argument("--dataset-path", help="Hub id, folder with train.jsonl or Parquet, or one file")
    parser.add_argument("--max-train-samples", type=int, help="train on at most this many rows")
    parser.add_argument("--seed", type=int, help="draws the rows, their order and the dropout")
    parser.add_argument(
        "--inject-mul-tokens", action=argparse.BooleanOptionalAction, default=None,
        help="facts in assistant text; --condition decides, --no-… trains its model without them (ablation)",
    )  # fmt: skip
    parser.add_rerun_flags("continue the run in --output-dir from its last checkpoint",
                           "replace the run that --output-dir holds")  # fmt: skip
    parser.add_overrides()
    return parser


def eval_parser(docstring: str | None, files: str, config: Path, seed: str) -> CommandParser:
    """Return the parser of an evaluation. files: what it writes; config: its own YAML; seed: what the seed does."""
    parser = CommandParser(docstring)
    parser.add_argument("--model-path", required=True, help="folder of the trained model")
    parser.add_argument("--output-dir", required=True, help=f"gets {files}")
    parser.add_condition()
    parser.add_argument("--config", default=str(config), help=f"YAML (default: eval/configs/{config.name})")
    parser.add_argument("--seed", type=int, help=seed)
    parser.add_rerun_flags("ask only what is missing in --output-dir", "replace these results in --output-dir")
    parser.add_overrides()
    return parser


def run(main: Callable[[], None], can_resume: bool = False) -> None:
    """Run a script's main and turn its expected failures into one line and an exit code.

    can_resume: the script takes --resume, so an interrupted run can be continued.
    """
    _open_streams()
    terminate_like_interrupt()
    threading.excepthook = _thread_failed
    try:
        main()
    except InputError as error:
        _exit(2, error, is_everywhere=True)
    except BrokenPipeError:  # the reader of the output has gone (`| head`), and nobody is left to tell
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
    """Return whether torch lost another process: NCCL's errors have a type of their own, gloo's only a text."""
    return type(error).__name__.startswith("Dist") or "gloo" in str(error)


def on_failure(undo: Callable[[], None]) -> None:
    """Call `undo` before a failing command exits, to take back what the command had begun."""
    _UNDO.append(undo)


def _open_streams() -> None:
    """Replace closed standard streams (`>&-`), and let the others write × in any encoding."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  (until the program ends)
    sys.stdin.reconfigure(errors="replace")
    sys.stdout.reconfigure(errors="backslashreplace")


def _thread_failed(failure) -> None:
    """Ignore a full disk in TensorBoard's writer thread: the main thread fails for the same reason and says so."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def _exit(code: int, message: object, is_everywhere: bool = False) -> None:
    """Undo, print and exit. is_everywhere: all processes fail alike, so only the first one prints the message."""
    for undo in reversed(_UNDO):
        undo()
    for number in (signal.SIGINT, signal.SIGTERM):  # nothing more to say: a launcher's signal now would be a traceback
        signal.signal(number, signal.SIG_DFL)
    if processes.is_first_here() or not is_everywhere:
        sys.stderr.write(f"error: {shown_text(' '.join(str(message).split()))}\n")
    sys.exit(code)
