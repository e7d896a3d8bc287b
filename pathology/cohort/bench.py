"""Where a process works on slides, tables and results that are kept by URL."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathology.cohort.events import Row
from pathology.cohort.slide_files import fetch_slide, local_name
from pathology.errors import OutputError, SlideError
from pathology.store.folder import FolderStore
from pathology.store.scratch import Scratch
from pathology.store.store import Store, is_url

Words = Callable[[str], str]
"""Puts the names of the stores' files into a text, for those of the files here."""


@dataclass(frozen=True)
class Input:
    """Tables that work reads, some for each slide.

    Args:
        store: where they are.
        ends: what their names add to the slide's.
    """

    store: Store
    ends: tuple[str, ...] = (".parquet",)


class Bench:
    """A process's copy of the work, whose folders are on this machine.

    Args:
        work: a dataclass with a field ``out`` and those of the inputs.
        out: where results are kept.
        inputs: by the field that names their folder.
    """

    def __init__(self, work: Any, out: Store, inputs: Mapping[str, Input]) -> None:
        self._scratch = Scratch()
        self._inputs = {name: each for name, each in inputs.items() if not each.store.is_local}
        # The same folders for every slide: what the work has loaded stays loaded.
        folder = self._scratch.folder
        self._stores = {folder / name: each.store for name, each in self._inputs.items()}
        self.out = out
        if not out.is_local:
            self._stores[folder / "out"] = out
            self.out = FolderStore(folder / "out")
        self.work = _moved(work, {path.name: path for path in self._stores})

    @contextmanager
    def used_for(self, row: Row, columns: Iterable[str]) -> Iterator[Words]:
        """There is room for whatever must be fetched, as long as the block runs.

        Raises:
            OutputError: there is none.
        """
        places = {str(path): store.place for path, store in self._stores.items()}
        for column in ("path", *columns):
            if is_url(url := cell(row, column)):
                places[str(self._fetched_to(column) / local_name(url))] = url

        def words(text: str) -> str:
            for here, there in places.items():
                text = text.replace(here, there)
            return text

        if not places:
            yield words
            return
        with self._scratch.in_use():
            for folder in self._stores:
                folder.mkdir()
            yield words

    def fetched(self, row: Row, columns: Iterable[str]) -> Row:
        """The row with files here in place of URLs; the slide's tables are here, too.

        A table that is not there is missed by the work.

        Raises:
            SlideError: something cannot be fetched.
        """
        found = dict(row)
        try:
            for name, each in self._inputs.items():
                for file in (f"{row['slide_id']}{end}" for end in each.ends):
                    with suppress(FileNotFoundError):
                        each.store.get(file, self._scratch.folder / name / file)
        except OutputError as error:
            raise SlideError(str(error)) from error
        for column in ("path", *columns):
            if is_url(url := cell(row, column)):
                folder = self._fetched_to(column)
                folder.mkdir(parents=True, exist_ok=True)
                found[column] = str(fetch_slide(url, folder))
        return found

    def _fetched_to(self, column: str) -> Path:
        return self._scratch.folder / f"row_{column}"


def cell(row: Row, column: str) -> str:
    """What a row says, empty for nothing."""
    value = row.get(column)
    return "" if value is None or value != value else str(value)


def _moved(work: Any, folders: Mapping[str, Path]) -> Any:
    """The work with other folders, and with what it has loaded so far."""
    if not folders:
        return work
    moved = dataclasses.replace(work, **folders)
    fields = {each.name for each in dataclasses.fields(work)}
    for name in vars(work).keys() - fields:
        vars(moved)[name] = vars(work)[name]
    return moved
