"""Tiles of an explanation as QuPath's tile objects: GeoJSON, written as a stream.

QuPath shows measurements with two decimals, and a tile's share of a slide's score is often a
millionth of a logit: every measurement has a unit in which two decimals are enough, and says it in
its name. The table ``tiles.parquet`` holds the numbers as they are.
"""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bcos_vit.stain_space import STAINS
from pathology.annotations.export import write_features
from pathology.geometry import Box

Origin = Literal["bounds", "slide"]

PLACES = ["x", "y", "width", "height"]
CHUNK = 4096
"""Tiles whose text is made at once."""
DECIMALS = 3
"""Of coordinates: a thousandth of a level-0 pixel."""
DIGITS = 7
"""Of measurements, about those of float32."""

# What is weighed by the tile's weight in the slide's score, in micrologits.
SHARES = {"contribution": "share", "positive": "share for", "negative": "share against"}
# The tile's own numbers, in millilogits.
OWN = {"contribution": "contribution", "positive": "for", "negative": "against"}
# Other columns: name with unit, and what a value is multiplied by.
OTHERS = {
    "removal_effect": ("removal effect [\u00b5logit]", 1e6),
    "weight": ("weight [ppm]", 1e6),
    "attention": ("attention [ppm]", 1e6),
}
# Shown under other names, or of the arithmetic and not of the slide.
LEFT_OUT = {*PLACES, *OWN, *STAINS, *OTHERS, "tissue", "bias", "gap"}

IDENTITIES = uuid.UUID("6f0c1a52-3c0d-5d7e-9a43-2b8f1c7d4e60")
"""The name space of tile identities."""


@dataclass(frozen=True)
class Measurement:
    """A number that QuPath shows.

    Args:
        name: with its unit.
        values: ``(n,)``, NaN where a tile has none.
    """

    name: str
    values: NDArray[np.float64]


def write_tile_features(
    tiles: pd.DataFrame,
    path: str | Path,
    *,
    slide_id: str,
    target: str,
    bounds: Box,
    metadata: Mapping[str, Any],
    origin: Origin = "bounds",
) -> int:
    """Write tiles as QuPath reads them (drag and drop, or File, Import objects).

    Measurements are, where the table has what it takes: the tile's share of the slide's score,
    i.e. weight times contribution, with what is for and against and each stain's part, in
    micrologits; the tile's own contribution in millilogits, where weights are not all 1; its
    logits; attention and weight in ppm, tissue in percent, removal effect in micrologits. Other
    numbers come under the name and in the unit of their column. A number that is not finite makes
    no measurement.

    Equal tiles give equal bytes. A tile's identity follows from slide, target and place, so that a
    second import can replace the first.

    Args:
        tiles: one row per tile, see :class:`~pathology.explain.slide.SlideExplanation`.
        path: a ``.geojson`` or ``.geojson.gz``; an existing one is replaced.
        slide_id: the slide's name.
        target: what is explained; part of the measurements' names, so that several targets can be
            imported into one image.
        bounds: the scanned part of the slide in level-0 pixels.
        metadata: the explanation's record, kept as the collection's member ``bcos_pathology``,
            which QuPath passes over.
        origin: where coordinates count from: ``"bounds"``, the corner of the scanned part, as in
            QuPath, which crops slides to it; ``"slide"``, the corner of level 0.

    Returns:
        How many tiles were written.

    Raises:
        OutputError: the file cannot be written.
        ValueError: columns are missing, an unknown origin, or metadata that JSON cannot hold.
    """
    if missing := [name for name in (*PLACES, "weight", "contribution") if name not in tiles]:
        raise ValueError(f"tiles need the columns {', '.join(missing)}")
    if origin not in ("bounds", "slide"):
        raise ValueError(f'origin must be "bounds" or "slide", got {origin!r}')
    corner = (bounds.x, bounds.y) if origin == "bounds" else (0.0, 0.0)
    shown = measurements(tiles, target)
    members = {
        "bcos_pathology": {
            **metadata,
            "tiles": {"origin": list(corner), "unit": "level-0 px", "count": len(tiles)},
        }
    }
    features = _features(tiles, shown, corner, uuid.uuid5(IDENTITIES, f"{slide_id}\n{target}"))
    return write_features(Path(path), features, members)


def measurements(tiles: pd.DataFrame, target: str) -> list[Measurement]:
    """What QuPath shows of tiles, in the order in which it shows them.

    Args:
        tiles: see :func:`write_tile_features`.
        target: what is explained.
    """
    weight = tiles["weight"].to_numpy(np.float64)
    found = []

    def add(column: str, name: str, scale: float | NDArray[np.float64]) -> None:
        if column in tiles:
            values = tiles[column].to_numpy(np.float64) * scale
            found.append(Measurement(f"{target}: {name}", values))

    for column, name in SHARES.items():
        add(column, f"{name} [\u00b5logit]", 1e6 * weight)
    for stain in STAINS:
        add(stain, f"share of {stain} [\u00b5logit]", 1e6 * weight)
    if not np.isin(weight, (0.0, 1.0)).all():  # otherwise the shares once more
        for column, name in OWN.items():
            add(column, f"{name} [mlogit]", 1e3)
    for column, (name, scale) in OTHERS.items():
        add(column, name, scale)
    if "tissue" in tiles:
        found.append(Measurement("tissue [%]", tiles["tissue"].to_numpy(np.float64) * 1e2))
    for column in tiles.columns.difference(list(LEFT_OUT), sort=False):
        # A logit is one of the tile, whatever is explained.
        name = str(column)
        is_logit = name.startswith("logit_")
        if pd.api.types.is_numeric_dtype(tiles[column]):
            label = f"logit of {name.removeprefix('logit_')}" if is_logit else f"{target}: {name}"
            found.append(Measurement(label, tiles[column].to_numpy(np.float64)))
    return found


def _features(
    tiles: pd.DataFrame, shown: list[Measurement], corner: tuple[float, float], names: uuid.UUID
) -> Iterator[dict[str, Any]]:
    x, y, width, height = (tiles[name].to_numpy(np.float64) for name in PLACES)
    # Both edges are rounded, not the sides, so that neighbours keep their common edge.
    edges = [x - corner[0], y - corner[1], x - corner[0] + width, y - corner[1] + height]
    sides = np.round(np.column_stack(edges), DECIMALS) + 0.0  # no minus zero
    # Members that are averaged may have tiles in one and the same place.
    repeats = tiles.groupby(PLACES, sort=False).cumcount().to_numpy()
    for start in range(0, len(tiles), CHUNK):
        part = slice(start, start + CHUNK)
        rows = np.column_stack([each.values[part] for each in shown]) + 0.0  # no minus zero
        is_number = np.isfinite(rows)
        places = zip(x[part], y[part], width[part], height[part], repeats[part], strict=True)
        for i, ((left, top, right, bottom), place) in enumerate(
            zip(sides[part].tolist(), places, strict=True)
        ):
            ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
            values = {
                shown[k].name: float(f"{rows[i, k]:.{DIGITS}g}")
                for k in np.flatnonzero(is_number[i])
            }
            yield {
                "type": "Feature",
                "id": str(uuid.uuid5(names, " ".join(f"{number:.6f}" for number in place))),
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "tile", "measurements": values},
            }
