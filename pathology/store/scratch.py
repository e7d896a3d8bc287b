"""Where a process keeps files for as long as it works on them."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pathology.errors import OutputError
from pathology.outputs import DRAFT_END, draft_path, remove_abandoned

_NAME = "bcos-pathology"
_number = itertools.count()


class Scratch:
    """A folder of this process on the machine's own disk (``TMPDIR``), always of the same name.

    It is there only while it is in use. What killed processes have left is removed by the next
    that uses one on the same machine.
    """

    def __init__(self) -> None:
        self._name = f"{_NAME}-{next(_number)}"
        self._looked = False

    @property
    def folder(self) -> Path:
        """Where it is, or will be.

        Raises:
            OutputError: the machine has no folder for such files.
        """
        return draft_path(_temporary() / self._name)

    @contextmanager
    def in_use(self) -> Iterator[Path]:
        """The folder, empty; gone after the block.

        Raises:
            OutputError: it cannot be made.
        """
        if not self._looked:
            remove_abandoned(_temporary().glob(f".{_NAME}-*{DRAFT_END}"))
            self._looked = True
        folder = self.folder
        shutil.rmtree(folder, ignore_errors=True)  # of a process of the same number
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot be made ({error.strerror}); set TMPDIR to another folder"
            ) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise OutputError(f"no folder for temporary files; set TMPDIR ({error})") from error
