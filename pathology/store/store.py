"""Where results are kept: a folder, or a store by URL."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+://")  # C:\slides has but one letter
_SPOILT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]")


def is_url(place: str | Path) -> bool:
    """Whether it is a URL of something that is not on this machine's disks."""
    return isinstance(place, str) and bool(_URL.match(place)) and not _is_file_url(place)


@dataclass(frozen=True, slots=True)
class Seen:
    """A file of a store, as it is at the moment.

    Args:
        bytes: its size.
        tag: another one whenever the file is written anew.
    """

    bytes: int
    tag: str


class Store(ABC):
    """Files by names such as ``a/b.json``, each of them complete or not there.

    It may be pickled and used by several threads, and by processes that were forked. What it says
    is what the store holds now: nothing is remembered.

    Args:
        place: the folder or the URL, without a slash at the end.
    """

    is_local = False

    def __init__(self, place: str) -> None:
        self.place = place

    @staticmethod
    def at(place: str | Path) -> "Store":
        """The store at a path or a URL (``s3://bucket/cohort``); nothing is made or asked there.

        Endpoints and credentials of URLs are fsspec's and the services' own: ``FSSPEC_*`` and
        ``AWS_*`` variables, configuration files, roles of machines.

        Raises:
            MissingExtraError: the package for this kind of URL is not installed.
            ValueError: no URL that results can be kept at.
        """
        from pathology.store.folder import FolderStore

        if isinstance(place, Path) and _SPOILT.match(str(place)):
            raise ValueError(f"{place}: a URL must be given as text, not as a Path")
        if is_url(place):
            from pathology.store.remote import RemoteStore

            return RemoteStore(str(place))
        return FolderStore(local_path(place))

    @property
    def folder(self) -> Path:
        """The folder of a local store.

        Raises:
            ValueError: it is none.
        """
        raise ValueError(f"{self.place}: is no folder on this machine")

    def where(self, name: str) -> str:
        """Path or URL of a file, for messages."""
        return f"{self.place}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is such a file.

        Raises:
            OutputError: the store cannot be asked.
        """
        return self.seen(name) is not None

    @abstractmethod
    def seen(self, name: str) -> Seen | None:
        """Size and tag of a file, ``None`` where there is none.

        Raises:
            OutputError: the store cannot be asked.
        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """What a file holds.

        Raises:
            FileNotFoundError: there is none.
            OutputError: it cannot be read.
        """

    @abstractmethod
    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """What many small files hold, by name, at once; without those that are not there.

        Raises:
            OutputError: they cannot be read.
        """

    @abstractmethod
    def write(self, name: str, data: bytes, only_if_absent: bool = False) -> bool:
        """Put ``data`` there in one step.

        Args:
            name: of the file.
            data: all of it.
            only_if_absent: leave a file that is there as it is. Of several that write at once,
                one does.

        Returns:
            Whether it was written.

        Raises:
            OutputError: it cannot be written.
        """

    @abstractmethod
    def put(self, file: Path, name: str) -> None:
        """Copy a file into the store, in one step.

        Raises:
            OutputError: it cannot be written.
        """

    @abstractmethod
    def get(self, name: str, file: Path) -> None:
        """Copy a file out of the store: complete under its name, or not there.

        Raises:
            FileNotFoundError: there is none in the store.
            OutputError: it cannot be read, or not be written here.
        """

    @abstractmethod
    def names(self, prefix: str = "", deep: bool = True) -> list[str]:
        """Names of all files that begin so, sorted.

        Args:
            prefix: such as ``.cohort/tile/slides/``.
            deep: those in folders within, too.

        Raises:
            OutputError: the store cannot be asked.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            OutputError: it cannot be removed.
        """

    @abstractmethod
    def check_writable(self) -> None:
        """Before long work: write something, and take it away.

        Raises:
            OutputError: that is not possible.
        """

    def __repr__(self) -> str:
        return f"Store.at({self.place!r})"


def _is_file_url(place: str) -> bool:
    return place.lower().startswith(("file://", "local://"))


def local_path(place: str | Path) -> Path:
    """The path of what is on this machine's disks, which may be said as ``file:///folder``.

    Raises:
        ValueError: it is on those of another.
    """
    if isinstance(place, Path) or not _is_file_url(place):
        return Path(place)
    parts = urlsplit(place)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{place}: a file on another machine; wanted file:///folder")
    return Path(url2pathname(parts.path))
