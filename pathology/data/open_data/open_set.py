"""What is known about a data set, and what is found of it in a folder."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from pathology.data.open_data.rest import Rest
from pathology.errors import ManifestError

Kind = Literal["tiles", "slides"]
AT_RANDOM = "a split at random may put one into two parts"
"""End of the note on data in which nothing tells patients."""


@dataclass(frozen=True)
class Licence:
    """What one may do with a data set.

    Args:
        name: as its publisher says it.
        commercial: whether commercial use is allowed; ``None`` where the terms must be read.
        cite: who to name.
    """

    name: str
    commercial: bool | None
    cite: str

    def __str__(self) -> str:
        use = {
            True: "commercial use allowed",
            False: "no commercial use",
            None: "read the terms before commercial use",
        }[self.commercial]
        return f"{self.name}, {use}; cite {self.cite}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what was found.

    Args:
        what: in words, without the files.
        files: the files or rows it is about.
        absent: something is not there, which is well where only a part of a set is wanted;
            otherwise what is there is not right.
    """

    what: str
    files: tuple[str, ...] = ()
    absent: bool = False


@dataclass
class Found:
    """What a folder holds of a data set.

    Args:
        table: a manifest's rows, ``path`` and ``regions`` absolute; of tiles ``path, label`` and
            possibly ``index``, of slides ``slide_id, path``. ``split`` only where it is official.
        classes: labels in the data set's own order.
        problems: what is missing or does not fit.
        notes: what to know before using it.
        size_px: (width, height) that every image must have, ``None`` where they differ.
        regions: contents of ``regions.json`` for a table of these slides: which annotations make
            which class; ``None`` where the table has none, empty where theirs cannot be mixed.
        rest: what tissue outside of the regions is, where that is known.
        checksums: MD5 by file, where files that have a published one are there.
        licence: of this part, where parts have different ones.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    size_px: tuple[int, int] | None = None
    regions: Callable[[pd.DataFrame], Mapping[str, object]] | None = None
    rest: Rest | None = None
    checksums: dict[Path, str] = field(default_factory=dict)
    licence: Licence | None = None


@dataclass(frozen=True)
class OpenSet:
    """A data set, or a layout, that can be recognised.

    Args:
        name: short, for the command line.
        title: what it is, in a line.
        kind: whether its manifest is one of tiles or of slides.
        licence: ``None`` for layouts, which say nothing about it.
        source: where to get it.
        size: on disk, in words.
        split: its official split, or that there is none.
        recognise: takes a folder; returns what speaks for this set, ``""`` if nothing does.
        read: takes such a folder.
        proposal: where a published split by patient or slide comes from, for sets whose authors
            give none, or no validation part.
        propose: makes it from the table: train, val or test for every row.
    """

    name: str
    title: str
    kind: Kind
    licence: Licence | None
    source: str
    size: str
    split: str
    recognise: Callable[[Path], str]
    read: Callable[[Path], Found]
    proposal: str = ""
    propose: Callable[[pd.DataFrame], "pd.Series[str]"] | None = None


def tile_table(
    rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ("path", "label")
) -> pd.DataFrame:
    """Rows as a table, with these columns where there are no rows."""
    return pd.DataFrame(rows, columns=None if rows else list(columns))


def count_problems(
    table: pd.DataFrame, column: str, expected: Mapping[str, int], what: str
) -> list[Problem]:
    """Where numbers of rows are not the published ones.

    Args:
        table: what was found.
        column: whose values are counted.
        expected: rows by value; values without any row are not asked for here.
        what: of what, in the plural.
    """
    counts = table[column].value_counts()
    return [
        Problem(
            f"{value}: found {counts[value]:,} of {wanted:,} {what}",
            absent=counts[value] < wanted,
        )
        for value, wanted in expected.items()
        if value in counts and counts[value] != wanted
    ]


def leaking(table: pd.DataFrame) -> list[Problem]:
    """Patients in more than one split."""
    known = table[(table["patient_id"] != "") & (table["split"] != "")]
    splits = known.groupby("patient_id")["split"].nunique()
    shared = tuple(map(str, splits.index[splits > 1]))
    return [Problem("patients in more than one split (leakage)", shared)] if shared else []


def read_table(
    path: Path, needed: Sequence[str], separator: str = ",", header: bool = True
) -> pd.DataFrame:
    """A data set's own table as text, without blanks around its cells.

    Args:
        path: the file.
        needed: columns it must have; the names of its first columns when it has no header.
        separator: between cells.
        header: whether its first row names the columns.

    Raises:
        ManifestError: unreadable, or of other columns.
    """
    try:
        with warnings.catch_warnings():
            # Rows longer than the header would be cut, or shift every column.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, sep=separator, dtype=str, keep_default_na=False, header=None, index_col=False
            )
    # Parser and encoding errors are ValueErrors.
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        raise ManifestError(f"{path}: not a table: {str(error).strip()}") from error
    table = table.apply(lambda cells: cells.str.strip())
    if not header:
        if table.shape[1] < len(needed):
            raise ManifestError(
                f"{path}: {table.shape[1]} columns; wanted at least {len(needed)}:"
                f" {', '.join(needed)}"
            )
        return table.rename(columns=dict(enumerate(needed)))
    # Not named by pandas, which calls the second of two equal names by another.
    columns = pd.Index([name or f"column {i}" for i, name in enumerate(table.iloc[0], 1)])
    table = table.iloc[1:].set_axis(columns, axis=1).reset_index(drop=True)
    if columns.has_duplicates:
        twice = columns[columns.duplicated()][0]
        raise ManifestError(f"{path}: two columns are called {twice!r}; keep one")
    if separator == "," and len(columns) == 1 and ";" in columns[0]:
        raise ManifestError(f"{path}: cells are separated by semicolons: save it with commas")
    missing = [name for name in needed if name not in table]
    if missing:
        raise ManifestError(
            f"{path}: column {missing[0]!r} is missing; got {', '.join(table.columns)}"
        )
    return table
