"""How a command fails: two kinds of error, and the words for what is wrong and what to do."""

import errno
import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_NO_ROOM, _NO_RIGHT = "make room, then run the same command again", "check who may read and write there"
_REMEDIES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.ENAMETOOLONG: "give a shorter one",
    errno.EACCES: f"{_NO_RIGHT}, or choose another place",
    errno.EPERM: f"{_NO_RIGHT}, or choose another place",
    errno.EROFS: "choose another place",
}
_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring, _repr.maxother = 3, 200, 200


class InputError(Exception):
    """The user's input cannot be used (exit code 2). The message names the value, what was expected and what to do."""


class RunError(Exception):
    """Something failed while running (exit code 1); the same command can be run again."""


def explained(error: OSError) -> str:
    """Return what the system says, of which file, and what to do."""
    if error.errno is None:
        return str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror}; {_REMEDIES.get(error.errno, 'fix that, then run the same command again')}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean …?)` with the known word most like `word`, or nothing."""
    matches = get_close_matches(word, list(known), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def short_repr(value: Any) -> str:
    """Return a value as Python spells it, cut to fit one readable line."""
    return _repr.repr(value)
