"""What every command shares: parser and exit codes, configs, run folders and their names, files and their schemas,
provenance, processes and signals, text for terminals.

May import the common module only, and never torch at the top of a module.
"""

import sys


def _say_interrupted(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Print a line for Ctrl-C while a command still imports what it needs to answer it properly (see command.run)."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("error: interrupted\n")
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _say_interrupted
