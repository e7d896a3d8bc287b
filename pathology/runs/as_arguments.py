"""Errors of runs as Python's callers read them: with arguments instead of the verbs' options."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pathology.errors import PathologyError


@contextmanager
def as_arguments() -> Iterator[None]:
    """Errors that name options of a verb name the arguments that are called like them."""
    try:
        yield
    except (PathologyError, ValueError) as error:
        error.args = tuple(
            re.sub(r"--([a-z][a-z-]*)", lambda option: option[1].replace("-", "_"), str(each))
            for each in error.args
        )
        raise
