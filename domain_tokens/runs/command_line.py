"""The command line that all scripts share: their parser, and how a command ends."""

import argparse
import errno
import math
import operator
import os
import re
import sys
import threading
from collections.abc import Callable
from itertools import compress
from pathlib import Path
from typing import Any

from domain_tokens.conditions import CONDITIONS
from domain_tokens.runs import processes, signals
from domain_tokens.runs.errors import InputError, RunError, explained, nearest
from domain_tokens.runs.files import user_path
from domain_tokens.runs.names import predictions_file, results_file
from domain_tokens.runs.terminal import shown_text

SEED_RANGE = range(2**32)  # what torch, numpy and transformers all take
_UNDO: list[Callable[[], None]] = []


def check_seed(name: str, seed: int) -> None:
    """Raise InputError for a seed that a library would refuse. name: what the user calls the seed."""
    if seed not in SEED_RANGE:
        raise InputError(f"{name} is {seed}, expected 0 to {SEED_RANGE[-1]}")


class CommandParser(argparse.ArgumentParser):
    """A parser with the script's docstring as its help and one-line errors. Flags are never abbreviated."""

    def __init__(self, docstring: str | None):
        super().__init__(
            description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        self._takes_overrides = False
        self._ranges: dict[str, tuple[float, float]] = {}

    def add_path(self, name: str, **settings: Any) -> None:
        """Add an argument that is a path or a Hub id; ~ is the home folder."""
        self.add_argument(name, type=user_path, **settings)

    def add_number(self, name: str, least: float, most: float = math.inf, kind: type = int, **settings: Any) -> None:
        """Add an argument for a number that is refused below `least` and above `most`."""
        self._ranges[name] = least, most
        self.add_argument(name, type=kind, **settings)

    def add_condition(self, required: bool = False, **settings: Any) -> None:
        meaning = "how facts are written in training text" if required else "for folders that do not say"
        settings = {"help": meaning, "choices": list(CONDITIONS)} | settings
        self.add_argument("--condition", required=required, **settings)

    def add_rerun_flags(self, resume: str, overwrite: str) -> None:
        """Add the flags that decide what happens to a run that the output folder already holds."""
        self.add_argument("--resume", action="store_true", help=resume)
        self.add_argument("--overwrite", action="store_true", help=overwrite)

    def add_output_path(self, what: str, **settings: Any) -> None:
        """Add --output-path, and --overwrite to replace a file there that another command wrote."""
        self.add_path("--output-path", help=what, **settings)
        self.add_argument("--overwrite", action="store_true", help="replace whatever lies at --output-path")

    def add_data_dir(self, gets: str) -> None:
        """Add --output-dir for generated data, and --overwrite for files with other rows there."""
        self.add_path("--output-dir", required=True, help=f"gets {gets}")
        self.add_argument("--overwrite", action="store_true", help="replace files with other rows in --output-dir")

    def add_overrides(self) -> None:
        self._takes_overrides = True
        self.add_argument("overrides", nargs="*", metavar="key=value", help="override any key of the config")

    def parse(self, argv: list[str] | None) -> argparse.Namespace:
        """Parse `argv` (None: the command line). Raises InputError for anything that is not accepted."""
        words = sys.argv[1:] if argv is None else argv
        self._check_words(words)
        args = self.parse_intermixed_args(_overrides_first(words)) if self._takes_overrides else self.parse_args(words)
        for name, value in vars(args).items():
            if isinstance(value, str) and not value.strip():
                self.error(f"--{name.replace('_', '-')} is empty")
        for name, (least, most) in self._ranges.items():
            value = getattr(args, name[2:].replace("-", "_"))
            if value is not None and not least <= value <= most:
                expected = f"at least {least}" if most == math.inf else f"{least} to {most}"
                raise InputError(f"{name} is {value}, expected {expected}")
        if getattr(args, "seed", None) is not None:
            check_seed("--seed", args.seed)
        return args

    def error(self, message: str) -> None:
        raise InputError(f"{message}; {self.prog} --help shows what it takes")

    def _check_words(self, words: list[str]) -> None:
        """Refuse misspelt flags before parsing, which would report the right flag as missing instead."""
        known = {"--help", *re.findall(r"--[\w-]+", self.format_usage())}
        for word in words:
            if re.search("[\ud800-\udfff]", word):  # how Python spells bytes that are no text
                self.error(f"{word!a} is not valid UTF-8 text")
        for word in words[: words.index("--")] if "--" in words else words:
            flag = word.partition("=")[0]
            if re.fullmatch(r"--[\w-]+", flag) and flag not in known:
                self.error(f"unrecognized arguments: {flag}{nearest(flag, known)}")


def _overrides_first(words: list[str]) -> list[str]:
    """Put overrides before the flags: one that takes several values (`--seeds 0 1 key=value`) would take them too."""
    moved = [
        "=" in word and not word.startswith("-") and not before.startswith("-")
        for before, word in zip(["", *words], words, strict=False)
    ]
    return [*compress(words, moved), *compress(words, map(operator.not_, moved))]


def sft_parser(docstring: str | None, start_model: str, recipe: str) -> CommandParser:
    """Return the parser of an SFT stage. start_model: what the stage starts from; recipe: path of its YAML."""
    parser = CommandParser(docstring)
    parser.add_path("--model-path", required=True, help=f"folder of the {start_model}")
    parser.add_path("--output-dir", required=True, help="folder to write the trained model to")
    parser.add_condition(required=True)
    parser.add_path("--config", required=True, help=f"YAML recipe, see {recipe}")
    parser.add_path("--dataset-path", help="Hub id, folder with train.jsonl or Parquet, or one file")
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


def eval_parser(docstring: str | None, evaluation: str, config: Path, seed: str) -> CommandParser:
    """Return the parser of an evaluation. config: its own YAML; seed: what the seed does."""
    parser = CommandParser(docstring)
    files = f"{results_file(evaluation)} and {predictions_file(evaluation)}"
    parser.add_path("--model-path", required=True, help="folder of the trained model")
    parser.add_path("--output-dir", required=True, help=f"gets {files}")
    parser.add_condition()
    parser.add_path("--config", default=str(config), help=f"YAML (default: eval/configs/{config.name})")
    parser.add_argument("--seed", type=int, help=seed)
    parser.add_rerun_flags("ask only what is missing in --output-dir", "replace these results in --output-dir")
    parser.add_overrides()
    return parser


def gsm8k_eval_parser(docstring: str | None, evaluation: str, config: Path) -> CommandParser:
    """Return the parser of an evaluation on GSM8K's test split."""
    parser = eval_parser(docstring, evaluation, config, seed="recorded; greedy replies do not depend on it")
    parser.add_path("--dataset-path", help="Hub id, folder with test.jsonl or Parquet, or one file")
    parser.add_argument("--max-samples", type=int, help="ask only the first N questions")
    return parser


def run(main: Callable[[], None], can_resume: bool = False) -> None:
    """Run a script's main and turn expected failures into one line on stderr and an exit code.

    can_resume: the script takes --resume, so an interrupted run can be continued.
    """
    _open_streams()
    signals.interrupt_on_signals()
    threading.excepthook, sys.unraisablehook = _thread_failed, _cleanup_failed
    try:
        _check_environment()
        main()
    except SystemExit:
        raise
    except BrokenPipeError:  # the reader of the output has gone (`| head`), and nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except BaseException as error:
        code, message, is_everywhere = _ending(error, can_resume)
        if message is None:
            raise
        signals.end_on_signals()
        for undo in reversed(_UNDO):
            undo()
        if processes.is_first_here() or not is_everywhere:
            sys.stderr.write(f"error: {shown_text(' '.join(message.split()))}\n")
        sys.exit(code)


def _ending(error: BaseException, can_resume: bool) -> tuple[int, str | None, bool]:
    """Return exit code and message (None for a fault of the program), and whether all processes fail alike.

    Where they do, only the first one says so.
    """
    if isinstance(error, InputError):
        return 2, str(error), True
    if isinstance(error, RunError):
        return 1, str(error), False
    if isinstance(error, OSError):
        return 2 if error.errno == errno.ENAMETOOLONG else 1, explained(error), False
    is_alone = processes.count() > 1 and (signals.another_had_ended or _is_lost_connection(error))
    if is_alone or isinstance(error, KeyboardInterrupt) or signals.was_just_stopped():
        what = "another process of this run has ended" if is_alone else "interrupted"
        how = f"; continue with: {signals.continuing_command()}" if can_resume else ""
        return 1, what + (how or ("; give the command again" if is_alone else "")), not is_alone
    return 1, None, False


def _check_environment() -> None:
    """Refuse variables that would be a traceback of some library later."""
    processes.check()
    if home := os.environ.get("HF_HOME"):
        os.environ["HF_HOME"] = user_path(home)


def _is_lost_connection(error: BaseException) -> bool:
    """Return whether torch lost another process: NCCL's errors have a type of their own, gloo's only a text."""
    return isinstance(error, RuntimeError) and (type(error).__name__.startswith("Dist") or "gloo" in str(error))


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


def _cleanup_failed(failure) -> None:
    """Interrupt again: Python ignores a Ctrl-C in the midst of cleaning up, and prints a traceback of it."""
    if issubclass(failure.exc_type, KeyboardInterrupt):
        threading.Timer(0.01, signals.interrupt_main_thread).start()
    else:
        sys.__unraisablehook__(failure)
