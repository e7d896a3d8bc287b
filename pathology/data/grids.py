"""The tile tables of a manifest's slides, and whether they are of the files that are there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathology.errors import ManifestError, StampMismatchError
from pathology.slides import Slide, open_slide
from pathology.slides.stamp import stamp_file
from pathology.tiling import GridSource, TileGrid

LOOKING = 8  # threads that check the files of a cohort: it is waiting, not work


def grid_path(tiles: str | Path, record: Mapping[Any, Any]) -> Path:
    """Where the tile table of a manifest's row is."""
    return Path(tiles) / f"{record['slide_id']}.parquet"


def load_grid(path: Path, record: Mapping[Any, Any]) -> TileGrid:
    """A slide's tile table, without opening the slide.

    Raises:
        ManifestError: it is missing or damaged.
        StampMismatchError: it was made of another file.
        SlideOpenError: the slide's file cannot be read.
    """
    if not path.is_file():
        raise ManifestError(
            f"{path}: no tile table for slide {record['slide_id']!r};"
            " run `pathology tile` on this manifest first"
        )
    grid = TileGrid.load(path)
    check_stamp(path, grid.source, stamp_file(Path(record["path"])))
    return grid


def opening_mpp(
    record: Mapping[Any, Any], source: GridSource
) -> float | tuple[float, float] | None:
    """The mpp to open a slide with: the manifest's, or what was said when tiling."""
    mpp = record.get("mpp")
    if mpp is not None and not pd.isna(mpp):
        return float(mpp)
    if source.mpp_source != "given":
        return None  # the file knows
    return source.mpp.x if source.mpp.x == source.mpp.y else (source.mpp.x, source.mpp.y)


def open_tiled(record: Mapping[Any, Any], grid: TileGrid) -> Slide:
    """A manifest's slide in the scale and colour that its tiles were cut in.

    Raises:
        SlideError: it cannot be opened.
        StampMismatchError: it is not the slide that was tiled.
    """
    mpp = opening_mpp(record, grid.source)
    slide = open_slide(record["path"], mpp, colour=grid.spec.colour)
    check_source(slide, grid.source)
    return slide


def check_stamp(where: object, source: GridSource, stamp: str) -> None:
    """Refuse tiles of another file.

    Raises:
        StampMismatchError: naming both.
    """
    if stamp != source.stamp:
        raise StampMismatchError(
            f"{where}: tiles are of slide {source.slide_id} with stamp {source.stamp[:12]}, the"
            f" file has {stamp[:12]}; tile the slide anew"
        )


def check_source(slide: Slide, source: GridSource) -> None:
    """Refuse a slide that is not the one whose tiles are at hand.

    Raises:
        StampMismatchError: another file, or another size or mpp than when it was tiled.
    """
    check_stamp(slide.path, source, slide.stamp())
    got, wanted = (slide.size, slide.mpp), (source.size, source.mpp)
    if got != wanted:
        raise StampMismatchError(
            f"{slide.path}: opened as {got[0]} at {got[1]}, tiled as {wanted[0]} at {wanted[1]};"
            " tile the slide anew"
        )


def same_rule(
    where: object, rule: Mapping[str, Any] | None, others: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """How labels of one slide and those of others were chosen; ``None`` where nobody says.

    Raises:
        StampMismatchError: by different fractions.
    """
    if rule and others and dict(rule) != dict(others):
        raise StampMismatchError(
            f"{where}: tiles are labelled by {_words(rule)}, others by {_words(others)}; run"
            " `pathology tile` on all slides with one --label-fraction"
        )
    return others or rule


def _words(rule: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in rule.items())


def label_codes(labels: NDArray[Any], classes: Sequence[str]) -> NDArray[np.int16]:
    """Place of each label in ``classes``, -1 for any other."""
    codes: NDArray[np.int16] = (
        pd.Index(list(classes)).get_indexer(pd.Index(labels)).astype(np.int16)
    )
    return codes
