"""RasterRegions: regions that were painted, as values of a map or of a mask image."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pathology.annotations.classes import REST, Classes, Key, colour_value
from pathology.annotations.regions import check_names
from pathology.errors import AnnotationError
from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap

BAND_PX = 2**22  # pixels of a mask held at once


class Raster(Protocol):
    """Values on a slide, of which some rows can be had."""

    @property
    def what(self) -> str:
        """Its file, for messages."""

    @property
    def is_colour(self) -> bool:
        """Values are colours, ``0xrrggbb``."""

    @property
    def box(self) -> Box:
        """The level-0 rectangle that it covers."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        """``(bottom - top, width)`` values."""


class MapRaster:
    """A map whose values are indices; NaN is zero."""

    what = "map"
    is_colour = False

    def __init__(self, values: SlideMap) -> None:
        self.box = values.box
        self.shape = values.values.shape[0], values.values.shape[1]
        self._values = values.values

    def rows(self, top: int, bottom: int) -> NDArray[Any]:
        return np.nan_to_num(self._values[top:bottom])


class RasterRegions:
    """Classes of a slide by the values of a mask.

    A pixel is annotated when its value is in a class or is not zero, unless it is ignored: values
    that no class mentions count as annotated, as something else. Of colours this cannot be meant
    (a border's blend of two would count); they must all be mentioned, black aside.

    Areas are exact for the plane that is read.

    Args:
        raster: the values.
        classes: which values make which class.

    Raises:
        AnnotationError: the classes name no values, or (later, when it is read) a colour is in
            none of them.
    """

    def __init__(self, raster: Raster | SlideMap, classes: Classes) -> None:
        self._raster: Raster = MapRaster(raster) if isinstance(raster, SlideMap) else raster
        self._names = tuple(classes)
        self._values = {name: self._known(one.include) for name, one in classes.items()}
        self._rest = [name for name, one in classes.items() if REST in one.include]
        self._ignored = self._known(classes.ignore)
        excluded = self._known(key for one in classes.values() for key in one.exclude)
        included = [value for values in self._values.values() for value in values]
        self._mentioned = [0, *included, *excluded, *self._ignored]
        self._ignores_rest = REST in classes.ignore
        self._last: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = None
        self.notes: Mapping[str, int] = {}
        if not included and not self._rest:
            kind = 'colours as "#rrggbb"' if self._raster.is_colour else "whole numbers"
            raise AnnotationError(
                f"{self._raster.what}: classes {', '.join(classes)} name no values of a mask;"
                f" list {kind} for each"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def covered(
        self, boxes: NDArray[np.float64], names: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        names = check_names(self._names, names)
        return self._shares(boxes)[0][[self._names.index(name) for name in names]]

    def annotated(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._shares(boxes)[1].copy()

    def points(self, name: str, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        (name,) = check_names(self._names, [name])
        bands = _rows_of_bands(self._raster)
        pixels = np.array([self._mask(name, *band).sum() for band in bands])
        if not pixels.any():
            raise ValueError(f"class {name!r} has no area on this slide, no points can lie in it")
        found = [np.empty((0, 2), int)]
        for band, share in zip(bands, rng.multinomial(count, pixels / pixels.sum()), strict=True):
            if share:
                y, x = np.nonzero(self._mask(name, *band))
                chosen = rng.integers(len(x), size=share)
                found.append(np.stack([x[chosen], y[chosen] + band[0]], axis=1))
        # Bands were filled one after the other, which the order must not show.
        corners = rng.permutation(np.concatenate(found))
        (height, width), box = self._raster.shape, self._raster.box
        scale = np.array([box.width / width, box.height / height])
        places: NDArray[np.float64] = (corners + rng.random((count, 2))) * scale
        return places + np.array([box.x, box.y])

    def _known(self, keys: Iterable[Key]) -> list[int]:
        """The values that keys stand for in this mask."""
        if self._raster.is_colour:
            return [value for key in keys if (value := colour_value(key)) is not None]
        return [key for key in keys if isinstance(key, int)]

    def _mask(self, name: str, top: int, bottom: int) -> NDArray[np.bool_]:
        return self._masks(self._raster.rows(top, bottom))[0][name]

    def _masks(self, rows: NDArray[Any]) -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.bool_]]:
        """The pixels of each class, and those that are annotated."""
        masks = {name: np.isin(rows, values) for name, values in self._values.items()}
        annotated = rows != 0
        if self._ignored:
            annotated &= ~np.isin(rows, self._ignored)
        if self._rest or self._ignores_rest or self._raster.is_colour:
            rest = ~np.isin(rows, self._mentioned)
            for name in self._rest:
                masks[name] |= rest
            if self._ignores_rest:
                annotated &= ~rest
            elif not self._rest and rest.any():
                raise AnnotationError(self._unknown(rows[rest]))
        for mask in masks.values():  # a class may be zero
            annotated |= mask
        return masks, annotated

    def _unknown(self, colours: NDArray[Any]) -> str:
        most = Counter(colours.tolist()).most_common(4)
        listed = ", ".join(f'"#{value:06x}" ({count} px)' for value, count in most)
        return (
            f"{self._raster.what}: no class mentions the colours {listed}; add them to one, or to"
            ' "ignore"'
        )

    def _shares(self, boxes: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Covered fractions ``(classes, n)`` and annotated ones ``(n,)``.

        Those of the last boxes are kept: who asks for one mostly asks for the other too, and a
        mask can be gigabytes to decode.
        """
        if self._last is None or not np.array_equal(self._last[0], boxes):
            covered, annotated = np.zeros((len(self._names), len(boxes))), np.zeros(len(boxes))
            for band, which in self._bands_under(boxes):
                masks, any_mask = self._masks(band.values)
                for i, mask in enumerate(masks.values()):
                    covered[i, which] += _means(mask, band, boxes[which])
                annotated[which] += _means(any_mask, band, boxes[which])
            self._last = boxes.copy(), covered.clip(0, 1), annotated.clip(0, 1)
        return self._last[1], self._last[2]

    def _bands_under(
        self, boxes: NDArray[np.float64]
    ) -> Iterator[tuple[SlideMap, NDArray[np.intp]]]:
        """Parts of the mask, and indices of the boxes that reach into each."""
        box, height = self._raster.box, self._raster.shape[0]
        first = (boxes[:, 1] - box.y) / box.height * height
        last = first + boxes[:, 3] / box.height * height
        for top, bottom in _rows_of_bands(self._raster):
            which = np.flatnonzero((first < bottom) & (last > top))
            if len(which):
                y, down = box.y + top / height * box.height, (bottom - top) / height * box.height
                part = Box(box.x, y, box.width, down)
                yield SlideMap(self._raster.rows(top, bottom), part, Mpp(1, 1)), which


def value_counts(raster: Raster) -> dict[int, int]:
    """How many pixels of a mask have which value, zero left out."""
    counts: Counter[int] = Counter()
    for top, bottom in _rows_of_bands(raster):
        values, found = np.unique(raster.rows(top, bottom), return_counts=True)
        counts.update(dict(zip(values.tolist(), found.tolist(), strict=True)))
    return {value: count for value, count in sorted(counts.items()) if value}


def _rows_of_bands(raster: Raster) -> list[tuple[int, int]]:
    """First row and the one behind the last, of parts that fit into memory."""
    height, width = raster.shape
    step = max(1, BAND_PX // width)
    return [(top, min(top + step, height)) for top in range(0, height, step)]


def _means(mask: NDArray[np.bool_], band: SlideMap, boxes: NDArray[np.float64]) -> NDArray[Any]:
    return SlideMap(mask, band.box, band.slide_mpp).box_means(boxes)
