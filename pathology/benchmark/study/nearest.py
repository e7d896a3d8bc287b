"""Naming what was meant."""

import difflib
from collections.abc import Iterable


def hint(word: str, known: Iterable[str]) -> str:
    """``did you mean X?``, or all that there is, for the end of a message."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}"
