"""TileSpec: what was asked for when a slide was cut into tiles."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from pathology.slides.colour import ColourSpace
from pathology.tissue import ARTEFACTS, FINDERS

Align = Literal["bounds", "file"]
Placement = Literal["grid", "random", "jittered", "annotated"]
GIVEN = "given"
COUNTED = ("random", "annotated")


@dataclass(frozen=True, slots=True)
class TileSpec:
    """Size, scale, place and choice of tiles: everything that decides which tiles a slide has.

    Args:
        size_px: side of a tile, in pixels at ``mpp``.
        mpp: micrometres per pixel of the tiles.
        overlap_px: how much neighbours share, in pixels at ``mpp``; of a grid's tiles.
        min_tissue: least fraction of a tile's area that is tissue, 0 to 1.
        keep_edges: keep tiles that reach over the slide's right and bottom edges.
        align: where a grid begins. ``"bounds"``: at the upper left corner of what was scanned.
            ``"file"``: on the tiles that the file itself is made of, so that none is decoded for
            a part of it; a tile must then cover a whole number of them (and with ``keep_edges``
            the first begins where the stored one does, before the corner).
        placement: ``"grid"``; ``"jittered"``: a grid whose tiles are moved at random by up to half
            a stride; ``"random"``: ``count`` places of a slide, each as likely as any other;
            ``"annotated"``: ``count`` tiles for each annotated class, centred inside its regions.
        count: tiles of each slide, or of each class; for the last two.
        seed: of the random placements. What is drawn depends on it and the slide's content only.
        tissue: name of what finds the tissue (:data:`pathology.tissue.FINDERS`), or ``"given"``
            where it came from elsewhere.
        exclude: artefacts that do not count as tissue (:data:`pathology.tissue.ARTEFACTS`).
        colour: the pixels that tiles show: as stored, or by the slide's ICC profile in sRGB.

    Raises:
        TypeError: ``size_px``, ``overlap_px``, ``count`` or ``seed`` is not a whole number.
        ValueError: a number outside of its range, an unknown name, or settings that exclude each
            other.
    """

    size_px: int = 224
    mpp: float = 0.5
    overlap_px: int = 0
    min_tissue: float = 0.5
    keep_edges: bool = False
    align: Align = "bounds"
    placement: Placement = "grid"
    count: int | None = None
    seed: int = 0
    tissue: str = "colour"
    exclude: tuple[str, ...] = ARTEFACTS
    colour: ColourSpace = "stored"

    def __post_init__(self) -> None:
        self._check_numbers()
        for name, known in (
            ("align", get_args(Align)),
            ("placement", get_args(Placement)),
            ("tissue", (*FINDERS, GIVEN)),
            ("colour", get_args(ColourSpace)),
        ):
            if getattr(self, name) not in known:
                wanted = ", ".join(known)
                raise ValueError(f"{name} must be one of {wanted}; got {getattr(self, name)!r}")
        if isinstance(self.exclude, str) or (unknown := set(self.exclude) - set(ARTEFACTS)):
            got = repr(self.exclude) if isinstance(self.exclude, str) else sorted(unknown)
            raise ValueError(f"exclude lists some of {', '.join(ARTEFACTS)}; got {got}")
        # In one order, whatever the caller's: the same artefacts are the same specification.
        in_order = tuple(name for name in ARTEFACTS if name in self.exclude)
        object.__setattr__(self, "exclude", in_order)
        self._check_placement()

    def _check_numbers(self) -> None:
        for name in ("size_px", "overlap_px", "count", "seed"):
            value = getattr(self, name)
            if name == "count" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be a whole number, got {value!r}")
        if self.size_px < 1:
            raise ValueError(f"size_px must be at least 1, got {self.size_px}")
        if not math.isfinite(self.mpp) or self.mpp <= 0:
            raise ValueError(f"mpp must be finite micrometres per pixel above 0, got {self.mpp}")
        if not 0 <= self.overlap_px < self.size_px:
            raise ValueError(
                f"overlap_px must be in [0, size_px) = [0, {self.size_px}), got {self.overlap_px}"
            )
        if not 0 <= self.min_tissue <= 1:
            raise ValueError(f"min_tissue must be in [0, 1], got {self.min_tissue}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")

    def _check_placement(self) -> None:
        if self.placement in COUNTED:
            if self.count is None or self.count < 1:
                raise ValueError(
                    f"placement {self.placement} needs count, the number of tiles,"
                    f" at least 1; got {self.count}"
                )
            if self.overlap_px:
                raise ValueError(
                    f"overlap_px is of a grid; placement {self.placement} has no neighbours"
                )
        elif self.count is not None:
            raise ValueError(
                f"count is for placement {' and '.join(COUNTED)}, a {self.placement} has as many"
                f" tiles as fit; got {self.count}"
            )
        if self.align == "file" and self.placement != "grid":
            raise ValueError(f"align file is for placement grid, got {self.placement}")
        if self.tissue == GIVEN and self.exclude:
            raise ValueError(
                "tissue given is taken as it is: exclude must be empty, got"
                f" {', '.join(self.exclude)}"
            )

    @property
    def stride_px(self) -> int:
        """From one tile to the next, in pixels at ``mpp``."""
        return self.size_px - self.overlap_px

    def with_given_tissue(self) -> Self:
        """The same tiles where the tissue comes from elsewhere."""
        return dataclasses.replace(self, tissue=GIVEN, exclude=())

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, as JSON has them."""
        return dataclasses.asdict(self) | {"exclude": list(self.exclude)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The spec of :meth:`to_dict`.

        Raises:
            TypeError: a name that is no argument.
            ValueError: a number outside of its range.
        """
        return cls(**{**values, "exclude": tuple(values.get("exclude", ARTEFACTS))})

    def digest(self) -> str:
        """SHA-256 of all values; equal for specs that are equal, ``mpp=1`` and ``mpp=1.0`` too."""
        values = self.to_dict()
        values |= {"mpp": float(self.mpp), "min_tissue": float(self.min_tissue)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
