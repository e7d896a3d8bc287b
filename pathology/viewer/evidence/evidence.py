"""An explanation, or the difference of two, as numbers: ledger, maps and tiles.

A difference is of the same slide: of two runs, or of two classes of one. Everything that adds up
is subtracted entry by entry and pixel by pixel, so its ledger holds as those of the two do.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pathology.errors import PathologyError
from pathology.explain.ledger import Ledger, Undivided
from pathology.maps.stored_map import StoredMap
from pathology.viewer.evidence.maps import (
    LAYER,
    MAP,
    DifferenceMap,
    EvidenceMap,
    OneMap,
)
from pathology.viewer.evidence.tiles import Floats, Tiles

if TYPE_CHECKING:
    from pathology.viewer.library.entries import EvidenceEntry, SlideEntry
    from pathology.viewer.library.library import Library

MINUS = "~"
"""Stands between the ids of two explanations for their difference."""


class Evidence(Protocol):
    """What can be asked of an explanation, or of a difference."""

    @property
    def id(self) -> str:
        """What requests name it by."""

    @property
    def slide(self) -> "SlideEntry":
        """The slide it is of."""

    @property
    def entries(self) -> "Sequence[EvidenceEntry]":
        """The explanations behind it: one, or the two that are subtracted."""

    @property
    def target(self) -> str:
        """What is explained."""

    @property
    def title(self) -> str:
        """What to call it on a screen: target and run."""

    @property
    def ledger(self) -> Ledger:
        """How the score adds up."""

    @property
    def record(self) -> Mapping[str, Any]:
        """Settings, provenance and what else is told of it, JSON values by name."""

    @property
    def maps(self) -> Mapping[str, EvidenceMap]:
        """Maps by name; ``heatmap``, the additive one, is always there and comes first."""

    @property
    def tiles(self) -> Tiles | None:
        """Its tiles; None where there are none to tell, see :attr:`tiles_note`."""

    @property
    def tiles_note(self) -> str | None:
        """Why there are no tiles."""

    @property
    def undivided(self) -> Floats:
        """``(n, 4)`` boxes of what was not taken apart, each once, also where tiles are unknown."""


def open_evidence(library: "Library", evidence: str) -> Evidence:
    """The explanation of an id, or the difference of two, ``A~B``; some are held open.

    Raises:
        HiddenError: blind mode hides the slide.
        PathologyError: it is damaged.
        UnknownIdError: there is none.
        ValueError: two that cannot be subtracted.
    """
    # Asked each time: what is open may have become hidden.
    entries = [library.entry(part) for part in evidence.split(MINUS, 1)]
    parts = [
        library.open_evidence.get(entry.id, lambda entry=entry: Explained(entry))  # type: ignore[misc]
        for entry in entries
    ]
    if len(parts) == 1:
        return parts[0]
    return library.open_evidence.get(evidence, lambda: Difference(*parts))


class Explained:
    """A stored explanation.

    Args:
        entry: of the library.

    Raises:
        PathologyError: it is damaged.
    """

    tiles_note = None

    def __init__(self, entry: "EvidenceEntry") -> None:
        self.id = entry.id
        self.slide = entry.slide
        self.entries = (entry,)
        explanation = entry.explanation
        self.target = explanation.target
        self.title = f"{explanation.target}, {entry.run.name}"
        self.ledger = explanation.ledger
        self.record: Mapping[str, Any] = explanation.record
        self._explanation = explanation

    @cached_property
    def maps(self) -> Mapping[str, EvidenceMap]:
        folder, names = self._explanation.folder, self._explanation.maps
        if "heatmap" not in names:
            raise PathologyError(f"{folder}: no map in it; explain the slide again")
        return {
            name: OneMap(name, StoredMap(folder / f"{name}{MAP}"), self.record)
            for name in sorted(names, key=_order)
        }

    @cached_property
    def tiles(self) -> Tiles:
        return Tiles.read(
            self._explanation.folder / "tiles.parquet",
            undivided=self.ledger.undivided is not None,
        )

    @property
    def undivided(self) -> Floats:
        return self.tiles.boxes[self.tiles.undivided]


class Difference:
    """One explanation of a slide minus another.

    Args:
        first: the explanation.
        second: what is subtracted.

    Raises:
        PathologyError: one is damaged.
        ValueError: they are of different slides, or their maps lie on different grids.
    """

    def __init__(self, first: Evidence, second: Evidence) -> None:
        if first.slide is not second.slide:
            raise ValueError(
                "a difference is of one slide, these are of"
                f" {first.slide.name!r} and {second.slide.name!r}"
            )
        files = [part.record.get("settings", {}).get("slide") for part in (first, second)]
        if None not in files and files[0] != files[1]:
            raise ValueError(
                f"{first.title} and {second.title} were made of different files of slide"
                f" {first.slide.name!r}; explain it again to subtract them"
            )
        self.id = f"{first.id}{MINUS}{second.id}"
        self.slide = first.slide
        self.entries = (*first.entries, *second.entries)
        same = first.target == second.target
        self.target = first.target if same else f"({first.target}) \N{MINUS SIGN} ({second.target})"
        self.title = f"{first.title} \N{MINUS SIGN} {second.title}"
        self.ledger = ledger_difference(first.ledger, second.ledger)
        self.record: Mapping[str, Any] = {
            name: {
                key: value
                for key, value in first.record.get(name, {}).items()
                if second.record.get(name, {}).get(key) == value
            }
            for name in ("settings", "provenance")
        } | {"coefficients": _coefficients(first, second)}
        self._parts = first, second
        # What cannot be subtracted is refused now.
        self.maps: Mapping[str, EvidenceMap] = {
            name: DifferenceMap(each, second.maps[name])
            for name, each in first.maps.items()
            if name in second.maps and not name.startswith(LAYER)
        }

    @cached_property
    def tiles(self) -> Tiles | None:
        first, second = (part.tiles for part in self._parts)
        return None if first is None or second is None else first.minus(second)

    @property
    def tiles_note(self) -> str | None:
        if self.tiles is not None:
            return None
        return "the two were made of different tiles, which do not subtract; their maps do"

    @cached_property
    def undivided(self) -> Floats:
        return np.unique(np.concatenate([part.undivided for part in self._parts]), axis=0)


def ledger_difference(first: Ledger, second: Ledger) -> Ledger:
    """The ledger of a difference: every entry subtracted, both tolerances together.

    Tiles that one of the two left undivided are counted once for each.
    """
    names = dict.fromkeys([*first.constants, *second.constants])
    whole = [each.undivided for each in (first, second)]
    signs = (1.0, -1.0)
    return Ledger(
        score=first.score - second.score,
        bias=first.bias - second.bias,
        map_sum=first.map_sum - second.map_sum,
        cut_off=first.cut_off - second.cut_off,
        tolerance=first.tolerance + second.tolerance,
        constants={
            name: first.constants.get(name, 0.0) - second.constants.get(name, 0.0) for name in names
        },
        undivided=Undivided(
            tiles=sum(part.tiles for part in whole if part),
            net=math.fsum(s * part.net for s, part in zip(signs, whole, strict=True) if part),
            absolute=math.fsum(part.absolute for part in whole if part),
        )
        if any(whole)
        else None,
    )


def _coefficients(first: Evidence, second: Evidence) -> dict[str, float]:
    """Of each class's logit in a difference of targets; of two models it has none."""
    one, other = (part.entries[0].run for part in (first, second))
    told = [part.record.get("coefficients", {}) for part in (first, second)]
    if one is not other or not all(told):
        return {}
    names = dict.fromkeys([*told[0], *told[1]])
    differences = {name: told[0].get(name, 0.0) - told[1].get(name, 0.0) for name in names}
    return {name: number for name, number in differences.items() if number}


def _order(name: str) -> tuple[bool, bool, str]:
    """The additive map first, then the others, layers last."""
    return name.startswith(LAYER), name != "heatmap", name
