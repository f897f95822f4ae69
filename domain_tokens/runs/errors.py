"""Two kinds of failure, each one line on stderr and an exit code: 2 for what the user gave, 1 for what happened."""

import errno
from difflib import get_close_matches

_REMEDIES = {
    errno.ENOSPC: "make room, then give the same command again",
    errno.EDQUOT: "make room, then give the same command again",
    errno.ENAMETOOLONG: "give a shorter one",
    errno.EACCES: "check who may read and write there, or choose another place",
    errno.EPERM: "check who may read and write there, or choose another place",
    errno.EROFS: "choose another place",
}


class InputError(Exception):
    """The user's input cannot be used. The message names the value, what was expected and what to do."""


class RunError(Exception):
    """Something failed while running; the same command can be given again."""


def explained(error: OSError) -> str:
    """What the system says, of which file, and what to do."""
    if error.errno is None:
        return str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror}; {_REMEDIES.get(error.errno, 'mend that, then give the same command again')}"


def nearest(word: str, known) -> str:
    """` (did you mean …?)` for the known word nearest to a misspelt one, or nothing."""
    matches = get_close_matches(word, list(known), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""
