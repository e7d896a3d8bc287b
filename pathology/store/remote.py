"""A store by URL: buckets of Amazon's and Google's kind, and whatever else fsspec knows."""

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pathology.errors import OutputError
from pathology.outputs import draft_path, this_machine
from pathology.store.failures import is_passing, is_there, is_unknown, one_line
from pathology.store.protocols import check_protocol
from pathology.store.store import Seen, Store

T = TypeVar("T")

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Waits between tries when a store is too busy or out of reach, after the libraries' own tries."""
AT_ONCE = 16  # requests for small files


class RemoteStore(Store):
    """Objects under a URL.

    An object appears when all of it has arrived, also where it is sent in parts: what a killed
    process has sent so far is never seen by anybody, and goes with the bucket's rule for
    incomplete uploads.

    Args:
        url: such as ``s3://bucket/cohort``.
    """

    def __init__(self, url: str) -> None:
        protocol, _, path = url.partition("://")
        if not path.strip("/"):
            raise ValueError(f"{url}: names no bucket; wanted {protocol}://BUCKET/FOLDER")
        super().__init__(url.rstrip("/"))
        check_protocol(protocol, url)
        self._made: tuple[int, Any, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place, "_made": None}

    def seen(self, name: str) -> Seen | None:
        def ask() -> Seen | None:
            try:
                found = self._system.info(self._at(name))
            except FileNotFoundError:
                return None
            # Folders that were made by hand are objects, too.
            return None if found["type"] == "directory" else _seen(found)

        return self._do(ask, name, "read")

    def read(self, name: str) -> bytes:
        return self._do(lambda: bytes(self._system.cat_file(self._at(name))), name, "read")

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        def one(name: str) -> bytes | None:
            try:
                return self.read(name)
            except FileNotFoundError:
                return None

        names = list(names)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = zip(names, pool.map(one, names), strict=True)
            return {name: data for name, data in found if data is not None}

    def write(self, name: str, data: bytes, only_if_absent: bool = False) -> bool:
        def send() -> None:
            self._system.pipe_file(self._at(name), data)

        def create() -> bool:
            try:
                self._system.pipe_file(self._at(name), data, mode="create")
            except Exception as error:
                if is_there(error):
                    return False
                if not is_unknown(error):
                    raise
                send()
            return True

        if only_if_absent:
            # Asked before, too: some stores pass over the condition.
            return not self.exists(name) and self._do(create, name, "written")
        self._do(send, name, "written")
        return True

    def put(self, file: Path, name: str) -> None:
        self._do(lambda: self._system.put_file(str(file), self._at(name)), name, "written")

    def get(self, name: str, file: Path) -> None:
        draft = draft_path(file)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._do(lambda: self._fetch(name, draft), name, "read")
            draft.replace(file)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise OutputError(f"{file}: cannot be written: {error.strerror or error}") from error
        finally:
            with suppress(OSError):
                draft.unlink()

    def _fetch(self, name: str, draft: Path) -> None:
        before = _seen(self._system.info(self._at(name)))
        self._system.get_file(self._at(name), str(draft))
        got = draft.stat().st_size
        if got != before.bytes:
            raise ConnectionError(f"got {got} bytes of {before.bytes}")
        if _seen(self._system.info(self._at(name))) != before:
            raise ConnectionError("it was written anew while it was read")

    def names(self, prefix: str = "", deep: bool = True) -> list[str]:
        folder = prefix.rpartition("/")[0]
        start = self._at(folder) if folder else self._root

        def ask() -> list[str]:
            try:
                if deep:
                    return list(self._system.find(start))
                found = self._system.ls(start, detail=True)
                return [each["name"] for each in found if each["type"] != "directory"]
            except FileNotFoundError:
                return []

        root = self._root.rstrip("/") + "/"
        found = (path.removeprefix(root) for path in self._do(ask, prefix, "listed"))
        return sorted(name for name in found if name.startswith(prefix) and name[-1:] != "/")

    def remove(self, name: str) -> None:
        def delete() -> None:
            try:
                self._system.rm_file(self._at(name))
            except FileNotFoundError:
                return

        self._do(delete, name, "removed")

    def check_writable(self) -> None:
        name = f".write-probe-{this_machine()}-{os.getpid()}"
        # Nobody waits for a store that was never there.
        self._do(lambda: self._system.pipe_file(self._at(name), b""), "", "written", patience=())
        self.remove(name)

    def _do(
        self,
        what: Callable[[], T],
        name: str,
        doing: str,
        patience: Iterable[float] | None = None,
    ) -> T:
        """Do it, again after a while where the trouble may pass.

        Raises:
            FileNotFoundError: there is nothing of that name to be read.
            OutputError: of whatever else a library has to say.
        """
        waits = iter(WAITS_S if patience is None else patience)
        while True:
            try:
                return what()
            except OutputError:
                raise
            except Exception as error:
                if isinstance(error, FileNotFoundError) and doing == "read":
                    raise FileNotFoundError(self.where(name)) from error
                wait = next(waits, None) if is_passing(error) else None
                if wait is None:
                    where = self.where(name) if name else self.place
                    raise OutputError(one_line(error, where, doing)) from error
            time.sleep(wait)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @property
    def _root(self) -> str:
        return self._connected[1]

    @property
    def _system(self) -> Any:
        return self._connected[0]

    @property
    def _connected(self) -> tuple[Any, str]:
        """File system of fsspec and the path in it; a forked process needs its own."""
        made = self._made
        if made is None or made[0] != os.getpid():
            from fsspec.core import url_to_fs

            # What others write must be seen: no listing is remembered.
            system, root = url_to_fs(self.place, use_listings_cache=False)
            made = self._made = os.getpid(), system, root
        return made[1], made[2]


def _seen(info: dict[str, Any]) -> Seen:
    tag = info.get("ETag") or info.get("etag") or info.get("generation") or info.get("md5Hash")
    written = info.get("LastModified") or info.get("updated") or info.get("mtime") or ""
    return Seen(int(info["size"] or 0), str(tag or written).strip('"'))
