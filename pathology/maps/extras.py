"""Packages that only some formats need."""

import importlib
from typing import Any

from pathology.errors import MissingExtraError


def imported(name: str, extra: str) -> Any:
    """The module ``name``, which comes with the extra ``extra`` of this package.

    Raises:
        MissingExtraError: it is not installed; says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f'needs {name.partition(".")[0]}: pip install "bcos-pathology[{extra}]" ({error})'
        ) from error
