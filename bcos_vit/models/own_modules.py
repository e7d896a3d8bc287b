"""Modules of the user's, which a name such as ``package.module:function`` asks for."""

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_own_module(name: str) -> ModuleType:
    """Import a module that is installed, or a file where one stands; what it raises is its own."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # a file where one stands need not be installed
    return importlib.import_module(name)
