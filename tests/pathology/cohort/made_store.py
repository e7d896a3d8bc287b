"""A store that is none of this machine's, and one that fills up."""

from pathology.errors import OutputError
from pathology.store.folder import FolderStore
from pathology.store.store import Store


class Bucket(FolderStore):
    """What is written appears complete, and nothing can be added to it."""

    is_local = False
    folder = Store.folder  # there is none


class Full(FolderStore):
    """A disk that has no place for files whose names hold ``what``."""

    what = ""

    def write(self, name, data, only_if_absent=False):
        if self.what and self.what in name:
            raise OutputError(f"{self.where(name)}: cannot be written: No space left on device")
        return super().write(name, data, only_if_absent)
