"""What a manifest says of bags: classes, labels, grades, or survival, of slides or of patients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathology.errors import ManifestError

OutcomeName = Literal["classes", "labels", "grades", "cox", "hazard"]
OUTCOMES: tuple[str, ...] = get_args(OutcomeName)
SURVIVAL = ("cox", "hazard")
BagOf = Literal["slide", "patient"]

NONE = "none"
"""A cell that says: none of the labels. An empty one says that nobody knows."""
_SHOWN = 3

Fits = Callable[[NDArray[np.float64]], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a manifest says what is to be predicted.

    Args:
        outcome: what that is.
        classes: names of classes, labels or grades; none for survival.
        label: column of classes, labels or grades; ``label`` when omitted, of grades ``grade`` if
            there is one.
        time: column of the time to the event, or until last seen; above 0, in any unit.
        event: column of 1 where the event was seen, 0 where not (censored).

    Raises:
        ValueError: no such outcome, or classes that it does not have or lacks.
    """

    outcome: OutcomeName
    classes: Sequence[str]
    label: str | None = None
    time: str = "time"
    event: str = "event"

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(OUTCOMES)}; got {self.outcome!r}")
        classes = list(self.classes)
        if self.outcome in SURVIVAL:
            if classes:
                raise ValueError(f"outcome {self.outcome} has no classes; got {classes}")
            return
        least = 1 if self.outcome == "labels" else 2
        if len(set(classes)) != len(classes) or len(classes) < least:
            raise ValueError(f"classes must be at least {least} different names, got {classes}")
        if self.outcome == "labels" and any(";" in c or c == NONE for c in classes):
            raise ValueError(f"labels must not be called {NONE!r} nor hold ';', got {classes}")

    def named(self, table: pd.DataFrame) -> tuple[str, ...]:
        """The columns that are read."""
        if self.outcome in SURVIVAL:
            return self.time, self.event
        if self.label is None and self.outcome == "grades" and "grade" in table:
            return ("grade",)
        return (self.label or "label",)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of the bags of a split.

    Args:
        table: a row per bag: ``name``, then ``label``, or ``grade``, or ``time`` and ``event``;
            ``patient_id``, ``slide_id`` and the manifest's other columns.
        slides: of each bag, its rows of the manifest, counted among those given.
        targets: of each bag what a loss needs: ``label`` int64 ``(bags,)``, or float32 ``(bags,
            classes)``; ``grade`` int64; ``time`` and ``event`` float64.
    """

    table: pd.DataFrame
    slides: list[list[int]]
    targets: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def kinds(self) -> NDArray[np.int64]:
        """Class, grade or set of labels of each bag, or whether it had an event: ``(bags,)``."""
        kind = self.targets.get("event", self.targets.get("grade", self.targets.get("label")))
        assert kind is not None
        kinds = np.unique(kind.numpy(), axis=0, return_inverse=True)[1]
        return kinds.astype(np.int64).ravel()


def read_truth(
    where: object,
    rows: pd.DataFrame,
    columns: Columns,
    bag: BagOf = "slide",
    skip_unlabelled: bool = False,
) -> Truth:
    """Read what rows of a manifest of slides say.

    Args:
        where: the manifest, for messages.
        rows: some of its rows, by their number in the file (0 the first after the header).
        columns: where to look.
        bag: a bag for every slide, or for every patient, of all of the patient's slides.
        skip_unlabelled: leave rows out of which nothing is known; refuse them otherwise.

    Raises:
        ManifestError: a column is missing, a cell makes no sense, nothing is known of a row, slides
            of one patient contradict each other, or nothing is left.
    """
    named = columns.named(rows)
    for name in named:
        if name not in rows:
            raise ManifestError(
                f"{where}: column {name!r} is missing, which outcome {columns.outcome} needs;"
                f" say which column it is; got {', '.join(rows.columns)}"
            )
    if bag == "patient" and "patient_id" not in rows:
        raise ManifestError(f"{where}: column 'patient_id' is missing, which bags of patients need")
    empty = (rows[list(named)].apply(lambda cells: cells.str.strip()) == "").any(axis=1)
    if empty.any() and not skip_unlabelled:
        first = rows.index[empty][:_SHOWN]
        raise ManifestError(
            f"{where}: {int(empty.sum())} rows have no {' or '.join(named)} ({_lines(first)}); fill"
            " them, or leave such rows out with skip_unlabelled"
            + (f" (a slide with none of the labels says {NONE})" * (columns.outcome == "labels"))
        )
    rows = rows[~empty]
    if rows.empty:
        raise ManifestError(f"{where}: no row has {' and '.join(named)}")
    if bag == "patient" and (rows["patient_id"] == "").any():
        first = rows.index[rows["patient_id"] == ""][:_SHOWN]
        raise ManifestError(f"{where}: bags are of patients, but {_lines(first)} name none")
    told = _told(where, rows, columns, named)
    keys = rows["patient_id" if bag == "patient" else "slide_id"]
    owner, names = pd.factorize(keys)
    first = np.array([int(np.argmax(owner == i)) for i in range(len(names))])
    _check_agree(where, rows, told, owner, first, named)
    # Of several slides a bag's row says what all of them say, and joins what they do not.
    table = pd.DataFrame({"name": list(names)})
    for name, cells in told.items():
        table[name] = cells.to_numpy()[first]
    for name in rows.columns.difference([*table.columns, "path", "regions"], sort=False):
        if len(names) == len(rows):
            table[name] = rows[name].to_numpy()
        else:
            joined = rows[name].astype(str).groupby(owner).agg(lambda x: ";".join(dict.fromkeys(x)))
            table[name] = joined.to_numpy()
    places = np.flatnonzero(~empty.to_numpy())
    slides = [places[owner == i].tolist() for i in range(len(names))]
    return Truth(table, slides, _targets(table, columns))


def _told(
    where: object, rows: pd.DataFrame, columns: Columns, named: Sequence[str]
) -> dict[str, "pd.Series"]:
    """The cells that matter, as truth tables have them."""
    if columns.outcome in SURVIVAL:
        time, event = named
        return {
            "time": _numbers(
                where, rows[time], lambda x: np.isfinite(x) & (x > 0), "a time over 0"
            ),
            "event": _numbers(
                where, rows[event], lambda x: np.isin(x, (0, 1)), "0 (censored) or 1"
            ),
        }
    cells = rows[named[0]].str.strip()
    if columns.outcome == "grades":
        return {"grade": _grades(where, cells, columns.classes)}
    if columns.outcome == "classes":
        _check_names(where, cells, cells.index[~cells.isin(list(columns.classes))], columns)
        return {"label": cells}
    place = {name: i for i, name in enumerate(columns.classes)}
    split = cells.map(lambda cell: [word.strip() for word in cell.split(";") if word.strip()])
    split = split.map(lambda words: [] if words == [NONE] else words)
    _check_names(
        where, cells, cells.index[[bool(set(words) - set(place)) for words in split]], columns
    )
    return {"label": split.map(lambda words: ";".join(sorted(set(words), key=place.__getitem__)))}


def _check_names(where: object, cells: "pd.Series", wrong: pd.Index, columns: Columns) -> None:
    if len(wrong):
        raise ManifestError(
            f"{where}: row {_line(wrong[0])} has {cells.name} {cells[wrong[0]]!r}; wanted"
            f" {'some' if columns.outcome == 'labels' else 'one'} of {', '.join(columns.classes)}"
        )


def _grades(where: object, cells: "pd.Series", classes: Sequence[str]) -> "pd.Series":
    """Places of grades: by name, or counted from 0 where names are no numbers themselves."""
    place = {name: i for i, name in enumerate(classes)}
    if not any(name.isdecimal() for name in classes):
        place |= {str(i): i for i in range(len(classes))}
    wrong = cells.index[~cells.isin(list(place))]
    if len(wrong):
        raise ManifestError(
            f"{where}: row {_line(wrong[0])} has {cells.name} {cells[wrong[0]]!r}; wanted one of"
            f" {', '.join(place)}"
        )
    return cells.map(place).astype(np.int64)


def _numbers(where: object, cells: "pd.Series", fits: Fits, what: str) -> "pd.Series":
    values = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    wrong = cells.index[~fits(np.asarray(values, np.float64))]
    if len(wrong):
        raise ManifestError(
            f"{where}: row {_line(wrong[0])} has {cells.name} {cells[wrong[0]]!r}; wanted {what}"
        )
    return values


def _check_agree(
    where: object,
    rows: pd.DataFrame,
    told: dict[str, "pd.Series"],
    owner: NDArray[np.integer],
    first: NDArray[np.integer],
    named: Sequence[str],
) -> None:
    """Refuse slides of one patient that say different things."""
    for name, (what, cells) in zip(named, told.items(), strict=True):
        values = cells.to_numpy()
        differs = np.flatnonzero(values != values[first][owner])
        if len(differs):
            one, other = rows.index[first[owner[differs[0]]]], rows.index[differs[0]]
            raise ManifestError(
                f"{where}: slides of patient {rows['patient_id'][other]!r} have {what}"
                f" {rows[name][one]!r} (row {_line(one)}) and {rows[name][other]!r} (row"
                f" {_line(other)}); correct them, or use bags of slides"
            )


def _targets(table: pd.DataFrame, columns: Columns) -> dict[str, Tensor]:
    if columns.outcome in SURVIVAL:
        return {name: torch.tensor(table[name].to_numpy(np.float64)) for name in ("time", "event")}
    if columns.outcome == "grades":
        return {"grade": torch.tensor(table["grade"].to_numpy(np.int64))}
    names = pd.Index(list(columns.classes))
    if columns.outcome == "classes":
        return {"label": torch.tensor(names.get_indexer(pd.Index(table["label"])).astype(np.int64))}
    has = [[name in cell.split(";") for name in columns.classes] for cell in table["label"]]
    return {"label": torch.tensor(has, dtype=torch.float32)}


def _line(index: object) -> int:
    """Line of the CSV file, header included."""
    return int(index) + 2  # type: ignore[call-overload]


def _lines(indices: pd.Index) -> str:
    word = "row" if len(indices) == 1 else "rows"
    return f"{word} {', '.join(str(_line(i)) for i in indices)}"
