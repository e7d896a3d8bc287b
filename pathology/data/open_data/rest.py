"""Tissue that no annotation covers, as a class of its own.

Where all lesions were drawn, what lies outside of them is known too. It has to be said slide by
slide: elsewhere, where nothing is drawn nothing is known.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

OUTSIDE = "outside of annotations"  # what the rectangle over a whole slide is called


@dataclass(frozen=True)
class Rest:
    """What the rest of a slide is.

    Args:
        name: its class.
        applies: which rows of a table were annotated exhaustively, or hold nothing to annotate.
    """

    name: str
    applies: Callable[[pd.DataFrame], "pd.Series[bool]"]


def with_rest(regions: Mapping[str, Any], rest: Rest) -> dict[str, Any]:
    """``regions.json`` with a class for what the other classes do not include."""
    drawn = [key for one in regions.values() for key in one["include"]]
    # Made of rectangles from level 0's corner, whatever QuPath would count from.
    return {**regions, rest.name: {"include": [OUTSIDE], "exclude": drawn}, "origin": "slide"}


def write_rest(
    table: pd.DataFrame,
    rest: Rest,
    folder: Path,
    progress: Callable[..., Iterable[Any]],
) -> pd.DataFrame:
    """Write GeoJSON of each slide's annotations and of a rectangle over all of it.

    Args:
        table: slides, with ``regions``.
        rest: what the rectangle means.
        folder: for ``<slide_id>.geojson``.
        progress: wraps the slides, with ``desc`` and ``total``.

    Returns:
        The table with ``regions`` of the slides to which it applies replaced.

    Raises:
        AnnotationError: an annotation cannot be read.
        SlideOpenError: a slide cannot be opened.
        OutputError: a file cannot be written.
    """
    from shapely import box

    from pathology.annotations import Annotation, read_annotations, write_geojson
    from pathology.errors import MissingResolutionError
    from pathology.slides import open_slide

    table = table.copy()
    rows = table.index[rest.applies(table)]
    for i in progress(rows, desc="drawing", total=len(rows)):
        try:
            slide = open_slide(table["path"][i])
        except MissingResolutionError:
            slide = open_slide(table["path"][i], mpp=1.0)  # only its size in pixels is asked for
        with slide:
            width, height = slide.size
        drawn = list(read_annotations(table["regions"][i]).drawn) if table["regions"][i] else []
        drawn.append(Annotation((OUTSIDE,), box(0, 0, width, height), "added"))
        path = folder / f"{table['slide_id'][i]}.geojson"
        write_geojson(path, drawn)
        table.loc[i, "regions"] = str(path)
    return table
