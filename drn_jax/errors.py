"""The one exception that means: the person at the terminal can mend this."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user asked for or supplied, as one clear line.

    The message says what is wrong, where (file, field, value) and what to do.
    The programs print it without a traceback and exit with status 1.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the known names closest to `name`, or lists them all."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(known)}"
