"""The tiles of an explanation as plain columns: found by place, told one by one, subtracted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathology.errors import PathologyError
from pathology.geometry import Box

Floats = NDArray[np.float64]

BOX = ("x", "y", "width", "height")
NUMBERS = (
    "weight", "contribution", "positive", "negative", "bias", "gap", "tissue", "attention",
    "removal_effect",
)  # fmt: skip
ALWAYS = ("weight", "contribution", "positive", "negative", "bias", "gap")
LOGIT = "logit_"


@dataclass(frozen=True, eq=False)
class Tiles:
    """Tiles of an explanation, or of the difference of two.

    Args:
        boxes: ``(n, 4)`` rows ``x, y, width, height`` in level-0 pixels.
        share: ``(n,)`` what each adds to the score, in logits: weight times contribution.
        columns: ``(n,)`` numbers by name, NaN where unknown: some of :data:`NUMBERS`.
        logits: the tiles' own, ``(n,)`` by class; empty in a slide model.
        stains: parts of the contribution, ``(n,)`` by stain.
        undivided: ``(n,)`` whether a tile's share is spread evenly over it, as it was not taken
            apart.
        member: ``(n,)`` number of the averaged explanation that a tile is of; None of a single one.
    """

    boxes: Floats
    share: Floats
    columns: Mapping[str, Floats]
    logits: Mapping[str, Floats]
    undivided: NDArray[np.bool_]
    stains: Mapping[str, Floats] = field(default_factory=dict)
    member: NDArray[np.intp] | None = None

    @classmethod
    def read(cls, path: Path, *, undivided: bool = False) -> "Tiles":
        """Read ``tiles.parquet`` of an explanation.

        Args:
            path: the file.
            undivided: whether some tiles may be undivided: those that have a contribution, but
                were never looked into, and so have no gap.

        Raises:
            PathologyError: it cannot be read, or lacks a column.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            if missing := {*BOX, "weight", "contribution"} - set(table.column_names):
                raise ValueError(f"it has no column {', '.join(sorted(missing))}")
            found = {
                name: table[name].to_numpy().astype(np.float64)
                for name, kind in zip(table.column_names, table.schema.types, strict=True)
                if pa.types.is_floating(kind) or pa.types.is_integer(kind)
            }
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            raise PathologyError(f"{path}: cannot be read as a table of tiles: {error}") from error
        unknown = np.full(table.num_rows, np.nan)
        columns = {name: found.get(name, unknown) for name in NUMBERS if name in {*ALWAYS, *found}}
        weight, contribution = columns["weight"], columns["contribution"]
        known = {*BOX, *NUMBERS, "member"}
        return cls(
            boxes=np.stack([found[name] for name in BOX], axis=1),
            # A tile of weight 0 was not explained, and adds nothing.
            share=np.where(weight == 0, 0.0, weight * contribution),
            columns=columns,
            logits={k.removeprefix(LOGIT): v for k, v in found.items() if k.startswith(LOGIT)},
            undivided=undivided
            & np.isnan(columns["gap"])
            & np.isfinite(contribution)
            & (weight > 0),
            stains={k: v for k, v in found.items() if k not in known and not k.startswith(LOGIT)},
            member=found["member"].astype(np.intp) if "member" in found else None,
        )

    def __len__(self) -> int:
        return len(self.boxes)

    @cached_property
    def _edges(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Left, top, right and bottom, each in one piece of memory."""
        x, y, width, height = (np.ascontiguousarray(column) for column in self.boxes.T)
        return x, y, x + width, y + height

    def at(self, x: float, y: float) -> NDArray[np.intp]:
        """Numbers of the tiles that a level-0 location lies in; overlapping ones all."""
        left, top, right, bottom = self._edges
        return np.flatnonzero((left <= x) & (x < right) & (top <= y) & (y < bottom))

    def within(self, box: Box) -> NDArray[np.intp]:
        """Numbers of the tiles that share area with a box of level-0 pixels."""
        left, top, right, bottom = self._edges
        return np.flatnonzero(
            (left < box.right) & (box.x < right) & (top < box.bottom) & (box.y < bottom)
        )

    def tile(self, index: int) -> dict[str, Any]:
        """All that is known of a tile, as JSON has it; unknown numbers are None."""
        told: dict[str, Any] = {"index": index}
        told |= {name: float(number) for name, number in zip(BOX, self.boxes[index], strict=True)}
        told["share"] = number_or_none(self.share[index])
        told |= {name: number_or_none(column[index]) for name, column in self.columns.items()}
        for name, group in (("logits", self.logits), ("stains", self.stains)):
            told[name] = {key: number_or_none(column[index]) for key, column in group.items()}
        told["undivided"] = bool(self.undivided[index])
        if self.member is not None:
            told["member"] = int(self.member[index])
        return told

    def minus(self, other: "Tiles") -> "Tiles | None":
        """What these tiles say minus what the same places say elsewhere, in this order.

        Shares subtract. So does what is linear in a tile: logits, removal effects, and, where both
        weigh a tile alike, contribution and bias. What is not (parts above and below zero,
        attention) is unknown of a difference. Gaps add.

        Returns:
            None where the tiles are not the same places, each once.
        """
        order = _matched(self.boxes, other.boxes)
        if order is None:
            return None
        mine, theirs = self.columns, {k: v[order] for k, v in other.columns.items()}
        unknown = np.full(len(self), np.nan)
        alike = mine["weight"] == theirs["weight"]
        columns = dict.fromkeys(ALWAYS, unknown)
        columns["weight"] = np.where(alike, mine["weight"], np.nan)
        columns["gap"] = mine["gap"] + theirs["gap"]
        for name in ("contribution", "bias"):
            columns[name] = np.where(alike, mine[name] - theirs[name], np.nan)
        if "removal_effect" in mine and "removal_effect" in theirs:
            columns["removal_effect"] = mine["removal_effect"] - theirs["removal_effect"]
        return Tiles(
            boxes=self.boxes,
            share=self.share - other.share[order],
            columns=columns,
            logits={
                name: column - other.logits[name][order]
                for name, column in self.logits.items()
                if name in other.logits
            },
            undivided=self.undivided | other.undivided[order],
        )


def number_or_none(number: float) -> float | None:
    """A number as JSON can hold it: None where it is not finite."""
    return float(number) if math.isfinite(number) else None


def _matched(boxes: Floats, others: Floats) -> NDArray[np.intp] | None:
    """Which of ``others`` each box is; None where they are not the same, or one is there twice."""
    if boxes.shape != others.shape:
        return None
    # In order of rows; equal grids have equal numbers to the last bit.
    first, second = np.lexsort(boxes.T), np.lexsort(others.T)
    ordered = boxes[first]
    if not np.array_equal(ordered, others[second]):
        return None
    if len(boxes) > 1 and (np.diff(ordered, axis=0) == 0).all(axis=1).any():
        return None
    order = np.empty(len(boxes), np.intp)
    order[first] = second
    return order
