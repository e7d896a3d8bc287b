"""Naming what was meant."""

import difflib
from collections.abc import Iterable


def hint(word: object, known: Iterable[str], otherwise: str = "") -> str:
    """``did you mean X?`` for the end of a message.

    Args:
        word: what was said.
        known: what could have been.
        otherwise: where nothing is near; all that there is when omitted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(word), names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return otherwise or f"one of {', '.join(names)}"
