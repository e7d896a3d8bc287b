"""A store that is a folder on this machine, or on a disk that machines share."""

import os
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pathology.errors import OutputError
from pathology.outputs import DRAFT_END, complete_file, draft_path, writable_folder
from pathology.store.store import Seen, Store


class FolderStore(Store):
    """Files of a folder.

    Args:
        folder: it is made when something is written.
    """

    is_local = True

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = folder

    @property
    def folder(self) -> Path:
        return self._folder

    def where(self, name: str) -> str:
        return str(self._folder / name)

    def seen(self, name: str) -> Seen | None:
        try:
            found = (self._folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unread(name, error) from error
        return None if stat.S_ISDIR(found.st_mode) else Seen(found.st_size, str(found.st_mtime_ns))

    def read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from error
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unread(name, error) from error

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        found = {}
        for name in names:
            with suppress(FileNotFoundError):
                found[name] = self.read(name)
        return found

    def write(self, name: str, data: bytes, only_if_absent: bool = False) -> bool:
        path = self._folder / name
        if only_if_absent:
            return _create(path, data)
        with complete_file(path) as draft:
            draft.write_bytes(data)
        return True

    def put(self, file: Path, name: str) -> None:
        with complete_file(self._folder / name) as draft:
            shutil.copyfile(file, draft)

    def get(self, name: str, file: Path) -> None:
        if not (self._folder / name).is_file():
            raise FileNotFoundError(self.where(name))
        with complete_file(file) as draft:
            shutil.copyfile(self._folder / name, draft)

    def names(self, prefix: str = "", deep: bool = True) -> list[str]:
        start = self._folder / prefix.rpartition("/")[0]
        found = []
        try:
            for root, folders, files in os.walk(start, onerror=_raise):
                # Others' drafts are not there yet.
                folders[:] = [name for name in folders if not name.endswith(DRAFT_END)]
                if not deep:
                    folders.clear()
                at = Path(root).relative_to(self._folder)
                found += [(at / name).as_posix() for name in files if not name.endswith(DRAFT_END)]
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise self._unread(prefix, error) from error
        return sorted(name for name in found if name.startswith(prefix))

    def remove(self, name: str) -> None:
        try:
            (self._folder / name).unlink(missing_ok=True)
        except NotADirectoryError:
            pass
        except OSError as error:
            raise OutputError(f"{self.where(name)}: cannot be removed: {error.strerror}") from error

    def check_writable(self) -> None:
        writable_folder(self._folder)

    def _unread(self, name: str, error: OSError) -> OutputError:
        return OutputError(f"{self.where(name)}: cannot be read: {error.strerror or error}")


def _raise(error: OSError) -> None:
    raise error


def _create(path: Path, data: bytes) -> bool:
    """Write a file unless it is there; whether it was not."""
    draft = draft_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        try:
            return _link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _link(draft: Path, path: Path) -> bool:
    try:
        os.link(draft, path)  # all of it at once, or an error
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            with path.open("xb") as file:
                file.write(draft.read_bytes())
        except FileExistsError:
            return False
    return True
