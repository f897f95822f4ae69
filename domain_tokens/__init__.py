"""One token per multiplication fact: the rules every stage of the experiment shares.

Only the torch-free, text-in text-out functions are importable from here; everything heavier is imported from
its own module, so that `import domain_tokens` and every `--help` stay fast.
"""

import sys
from pathlib import Path


def _say_interrupted(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Print a line for Ctrl-C while a command still imports what it needs to answer it properly (command_line.run)."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("error: interrupted\n")
    else:
        sys.__excepthook__(kind, error, trace)


# Here, because every command imports this package first, and its own imports already take a moment. A command is a
# script in a folder beside this package; other programs that import it keep their tracebacks.
if Path(sys.argv[0]).resolve().parent.parent == Path(__file__).resolve().parent.parent:
    sys.excepthook = _say_interrupted

from domain_tokens.answers import extract_answer, is_correct  # noqa: E402
from domain_tokens.facts import expand  # noqa: E402
from domain_tokens.inject import inject  # noqa: E402

__all__ = ["expand", "extract_answer", "inject", "is_correct"]
