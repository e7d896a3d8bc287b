"""Files that come with the package but are not Python: the configs, and the versions tested."""

from pathlib import Path

import pathology


def shipped(name: str) -> Path:
    """Where ``configs`` or ``constraints.txt`` is: in an installed package, beside it in a clone.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    package = Path(pathology.__file__).parent
    for folder in (package, package.parent):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{package / name}: not in this installation; install it anew")
