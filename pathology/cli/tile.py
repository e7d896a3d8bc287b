"""``pathology tile``: from slides to tables of tiles."""

import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.cli.run_function import run_function
from pathology.errors import ManifestError

if TYPE_CHECKING:
    from pathology.slides import Slide
    from pathology.tiling import TileGrid

PREVIEW_PX = 1200


def tile(
    slides: Path,
    out: Path,
    size_px: int = 224,
    tile_mpp: float = 0.5,
    overlap_px: int = 0,
    min_tissue: float = 0.5,
    keep_edges: bool = False,
    mpp: float | None = None,
    label_fraction: float = 0.75,
    keep_going: bool = False,
) -> int:
    """Find tissue on slides and cut it into tiles: a Parquet table and a preview per slide.

    Tiles are labelled when the manifest has a `regions` column (index images over the slides) and a
    `regions.json` beside it names the indices.

    Args:
        slides: manifest (slides.csv), folder that holds nothing but slides, or one slide.
        out: folder for the tables.
        size_px: side of a tile in pixels at tile_mpp.
        tile_mpp: micrometres per pixel of the tiles.
        overlap_px: how much neighbours share, in pixels at tile_mpp.
        min_tissue: least fraction of a tile that is tissue.
        keep_edges: keep tiles that reach over the slide's right and bottom edges.
        mpp: micrometres per pixel of slides that do not say it themselves.
        label_fraction: least fraction of a tile's annotated area that its label covers.
        keep_going: list slides that fail at the end (exit code 3) rather than stop.
    """
    import numpy as np

    from pathology.cli.slide_list import each_slide, list_slides, slide_mpp
    from pathology.outputs import writable_folder
    from pathology.slides import open_slide
    from pathology.tiling import OtsuTissue, TileGrid, TileSpec, label_tiles, tile_slide

    spec = TileSpec(size_px, tile_mpp, overlap_px, min_tissue, keep_edges)
    table = list_slides(slides, mpp)
    classes = _region_classes(slides) if "regions" in table else None
    writable_folder(out)

    def work(row: dict[str, Any]) -> str:
        path = out / f"{row['slide_id']}.parquet"
        with open_slide(row["path"], slide_mpp(row)) as slide:
            before = TileGrid.load(path, spec=spec, slide=slide) if path.exists() else None
            grid = before or tile_slide(slide, spec, OtsuTissue())
            if classes:
                # Always from the regions as they are now: labels are quick to make and go stale.
                if row["regions"]:
                    grid = label_tiles(grid, row["regions"], classes, label_fraction)
                else:
                    grid = grid.with_columns(label=np.full(len(grid), ""))
            line = f"{path}: {len(grid)} tiles{_counts(grid, classes)}"
            if before is not None and _labels(before) == _labels(grid):
                return f"{line}, made before by the same specification"
            if before is None:
                _preview(slide, grid, out / f"{row['slide_id']}.png")
            # The table comes last: where it stands, everything stands.
            grid.save(path)
        return line if before is None else f"{line}, labels made anew"

    return each_slide(table, work, "tiling", keep_going)


def _labels(grid: "TileGrid") -> list[str] | None:
    return list(grid.columns["label"]) if "label" in grid.columns else None


def _counts(grid: "TileGrid", classes: dict[str, int] | None) -> str:
    """How many tiles each class has, as words."""
    labels = _labels(grid) or []
    return "".join(f"; {name} {labels.count(name)}" for name in classes or {})


def _region_classes(slides: Path) -> dict[str, int]:
    path = slides.parent / "regions.json"
    try:
        classes = json.loads(path.read_text())
        return {str(name): operator.index(index) for name, index in classes.items()}
    except (OSError, json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ManifestError(
            f"{path}: cannot read the names of the regions ({error}); write it as"
            ' {"name": index, ...} or drop the manifest\'s regions column'
        ) from error


def _preview(slide: "Slide", grid: "TileGrid", path: Path) -> None:
    """The slide with its tiles drawn in, to look at."""
    from PIL import Image, ImageDraw

    from pathology.outputs import complete_file

    image = Image.fromarray(slide.thumbnail(PREVIEW_PX))
    draw = ImageDraw.Draw(image)
    scale_x, scale_y = image.width / slide.size.width, image.height / slide.size.height
    for x, y, width, height in grid.boxes():
        corners = (x * scale_x, y * scale_y, (x + width) * scale_x, (y + height) * scale_y)
        draw.rectangle(corners, outline=(0, 90, 200))
    with complete_file(path) as draft:
        image.save(draft, "PNG")


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(tile, arguments)
