"""Cells: pieces of a study's work, each a folder that is whole or not there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from pathology.benchmark.study.config import digest
from pathology.benchmark.study.rows import COLUMNS, Value
from pathology.outputs import complete_folder

VALUES = "values.parquet"
RECORD = "cell.json"
FIELDS = tuple(each.name for each in fields(Value))


class BlockedError(Exception):
    """What the work needs could not be made, which is told where it failed."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of work.

    Args:
        kind: ``data``, ``runs``, ``backbones``, ``methods``, ``pictures``, ``slides``.
        name: to be read, a part of its folder's name.
        decides: all that its numbers depend on, as JSON can hold it; another value anywhere in it
            is another cell.
    """

    kind: str
    name: str
    decides: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Of what decides its numbers."""
        return digest({"kind": self.kind, **self.decides})

    def folder(self, out: Path) -> Path:
        """Where it lies in a study's folder."""
        return out / "cells" / self.kind / f"{self.name}-{self.key}"

    def is_done(self, out: Path) -> bool:
        """Whether it is there, whole."""
        return (self.folder(out) / RECORD).is_file()

    @contextmanager
    def written(self, out: Path) -> Iterator[Path]:
        """A scratch folder that becomes the cell when the block succeeds."""
        with complete_folder(self.folder(out)) as draft:
            yield draft
            record = {"kind": self.kind, "name": self.name, "decides": self.decides}
            text = json.dumps(record, indent=1, sort_keys=True, default=str)
            (draft / RECORD).write_text(text + "\n")


def write_values(folder: Path, values: Sequence[Value]) -> None:
    """Values of a cell."""
    frame = pd.DataFrame([asdict(each) for each in values], columns=list(FIELDS))
    frame = frame.astype({name: COLUMNS[name] for name in FIELDS})
    frame.to_parquet(folder / VALUES, index=False)


def read_values(folder: Path) -> pd.DataFrame:
    """Values of a cell, a column per field of :class:`Value`."""
    return pd.read_parquet(folder / VALUES)
