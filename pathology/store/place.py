"""A folder here for the files that all slides share, wherever they are kept."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pathology.store.folder import FolderStore
from pathology.store.scratch import Scratch
from pathology.store.store import Store


class Place:
    """Files of a store, in a folder here: the store's own folder, or a copy of what was fetched.

    Args:
        store: where the files are kept.
        folder: where they are here.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder

    def fetch(self, names: Iterable[str]) -> list[str]:
        """Have these small files here as far as they are there.

        Returns:
            Those that are.

        Raises:
            OutputError: the store cannot be read.
        """
        names = list(names)
        if self.store.is_local:
            return [name for name in names if self.store.exists(name)]
        found = self.store.read_all(names)
        for name, data in found.items():
            FolderStore(self.folder).write(name, data)
        return list(found)

    def publish(self, names: Iterable[str]) -> None:
        """Have the store hold what is here: these files, and none of those that are not here.

        Raises:
            OutputError: the store cannot be written.
        """
        if self.store.is_local:
            return
        for name in names:
            if (self.folder / name).is_file():
                self.store.put(self.folder / name, name)
            else:
                self.store.remove(name)

    def claim(self, name: str) -> bool:
        """Publish a file that whoever comes first decides.

        Returns:
            Whether it is the one that is here. Otherwise somebody has been quicker: theirs is here
            now, to be compared with what is wanted.

        Raises:
            OutputError: the store cannot be written.
        """
        if self.store.is_local:
            return True
        mine = (self.folder / name).read_bytes()
        for _ in range(8):
            if self.store.write(name, mine, only_if_absent=True):
                return True
            if self.fetch([name]):  # else it was removed in between
                return (self.folder / name).read_bytes() == mine
        return False


@contextmanager
def output_place(out: str | Path) -> Iterator[Place]:
    """The place of results while the block runs, shown to be writable.

    Raises:
        MissingExtraError, ValueError: as :meth:`Store.at`.
        OutputError: it cannot be written.
    """
    store = Store.at(out)
    store.check_writable()
    with _folder_of(store) as folder:
        yield Place(store, folder)


@contextmanager
def input_place(place: str | Path) -> Iterator[Place]:
    """The place of what is only read, while the block runs.

    Raises:
        MissingExtraError, ValueError: as :meth:`Store.at`.
    """
    store = Store.at(place)
    with _folder_of(store) as folder:
        yield Place(store, folder)


@contextmanager
def _folder_of(store: Store) -> Iterator[Path]:
    if store.is_local:
        yield store.folder
        return
    with Scratch().in_use() as folder:
        yield folder
