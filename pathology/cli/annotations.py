"""``pathology annotations``: what was drawn on slides, and the way to QuPath."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pathology.annotations.classes import Classes, Origin, read_classes
from pathology.cli.run_function import run_function
from pathology.errors import AnnotationError

if TYPE_CHECKING:
    from pathology.annotations import Annotations
    from pathology.slides import Slide


def annotations(
    regions: Path | None = None,
    tiles: Path | None = None,
    slide: Path | None = None,
    classes: Path | None = None,
    out: Path | None = None,
    origin: Origin = "auto",
    out_origin: Literal["bounds", "slide"] = "bounds",
    mpp: float | None = None,
) -> int:
    """Say what a file of annotations holds; convert it, or tiles, to GeoJSON for QuPath.

    Reads GeoJSON of QuPath, XML of ASAP (CAMELYON) and Aperio ImageScope, and mask images. Of a
    manifest, the regions of every slide are checked, with the `regions.json` beside it.

    Args:
        regions: a file of annotations, or a manifest (slides.csv) with a `regions` column.
        tiles: a table of tiles (.parquet) to convert; its columns become measurements.
        slide: the slide they belong to; needed for mask images, for areas in mm2, and to convert.
        classes: mapping to classes (regions.json), to say what each class covers.
        out: a .geojson or .geojson.gz to write.
        origin: where coordinates of `regions` count from: slide, the corner of level 0; bounds,
            the corner of the scanned part, to which QuPath crops MRXS and SCN; auto, as the
            mapping says, else bounds for GeoJSON and slide for XML.
        out_origin: where those in `out` count from; bounds is what QuPath expects.
        mpp: micrometres per pixel of slides whose row does not say it, whatever their files say.
    """
    from pathology.slides import open_slide

    if (regions is None) == (tiles is None):
        raise ValueError("one of --regions and --tiles is needed")
    if regions is not None and regions.suffix.lower() == ".csv":
        if slide is not None or out is not None:
            raise ValueError("--slide and --out go with one file; a manifest names its slides")
        return _cohort(regions, classes, origin, mpp)
    if slide is None and (out is not None or tiles is not None):
        raise ValueError("--slide is needed: coordinates count from a corner that it knows")
    if out is None and tiles is not None:
        raise ValueError("--out is needed, a .geojson or .geojson.gz to write the tiles to")
    if out is not None and not out.name.lower().endswith((".geojson", ".geojson.gz")):
        raise ValueError(f"--out must end in .geojson or .geojson.gz, got {out.name}")
    mapping = _mapping(classes, origin)
    if slide is None:
        assert regions is not None
        print("\n".join(_report(regions, None, mapping, origin)))
        return 0
    with open_slide(slide, mpp) as opened:
        corner = (opened.bounds.x, opened.bounds.y) if out_origin == "bounds" else (0.0, 0.0)
        if regions is not None:
            print("\n".join(_report(regions, opened, mapping, origin)))
            if out is not None:
                print(f"{out}: {_write_areas(regions, opened, mapping, origin, out, corner)} areas")
        elif tiles is not None and out is not None:
            print(f"{out}: {_write_tiles(tiles, opened, out, corner)} tiles")
    return 0


def _mapping(path: Path | None, origin: Origin) -> Classes | None:
    from dataclasses import replace

    if path is None:
        return None
    classes = read_classes(path)
    return classes if origin == "auto" else replace(classes, origin=origin)


def _report(
    path: Path, slide: "Slide | None", classes: Classes | None, origin: Origin
) -> list[str]:
    """What a file holds, a line for each name, class and note."""
    from pathology.annotations.read import is_mask

    if is_mask(path):
        if slide is None:
            raise ValueError("--slide is needed: a mask image has no place without its slide")
        lines = _mask_lines(path, slide, classes)
    else:
        lines = _area_lines(_annotations(path, slide, classes, origin), slide)
    if slide is not None and classes is not None:
        lines += _class_lines(path, slide, classes)
    return lines


def _annotations(
    path: Path, slide: "Slide | None", classes: Classes | None, origin: Origin
) -> "Annotations":
    """The areas of a file, on the slide where there is one."""
    from pathology.annotations import read_annotations
    from pathology.annotations.read import origin_of

    drawn = read_annotations(path)
    if slide is None:
        return drawn
    origin = origin if classes is None else classes.origin
    return drawn.placed(slide, origin_of(slide, origin, drawn))


def _area_lines(drawn: "Annotations", slide: "Slide | None") -> list[str]:
    by_name: dict[str, list[float]] = {}
    for one in drawn.drawn:
        name = " or ".join(repr(name) for name in one.names)
        by_name.setdefault(name, []).append(one.geometry.area)
    lines = [f"{drawn.path}: {drawn.format}, {len(drawn.drawn)} areas"]
    for name, areas in sorted(by_name.items(), key=lambda item: -sum(item[1])):
        lines.append(f"  {name}: {len(areas)}, {_area(sum(areas), slide)}")
    return lines + [f"  {what}: {count}" for what, count in drawn.notes.items()]


def _mask_lines(path: Path, slide: "Slide", classes: Classes | None) -> list[str]:
    from pathology.annotations.masks import open_mask
    from pathology.annotations.rasters import value_counts

    mask = open_mask(path, slide, classes is not None and classes.has_colours)
    try:
        counts = value_counts(mask)
    except AnnotationError:
        if classes is not None:
            raise
        mask = open_mask(path, slide, True)
        counts = value_counts(mask)
    height, width = mask.shape
    pixel = mask.box.area / (height * width)
    lines = [f"{path}: mask, {width} x {height} px"]
    for value, count in sorted(counts.items(), key=lambda item: -item[1]):
        name = f"#{value:06x}" if mask.is_colour else str(value)
        lines.append(f"  {name}: {_area(count * pixel, slide)}")
    return lines


def _class_lines(path: Path, slide: "Slide", classes: Classes) -> list[str]:
    """What each class covers, overlaps counted once."""
    import numpy as np

    from pathology.annotations import read_regions

    regions = read_regions(path, slide, classes)
    whole = np.array([[0, 0, *slide.size]], np.float64)
    pixels = whole[0, 2] * whole[0, 3]
    shares = zip(regions.names, regions.covered(whole)[:, 0], strict=True)
    lines = [f"  class {name}: {_area(share * pixels, slide)}" for name, share in shares]
    return [*lines, f"  annotated: {_area(regions.annotated(whole)[0] * pixels, slide)}"]


def _area(pixels: float, slide: "Slide | None") -> str:
    if slide is None:
        return f"{pixels:.0f} px2"
    return f"{pixels * slide.mpp.x * slide.mpp.y * 1e-6:.4f} mm2"


def _write_areas(
    path: Path,
    slide: "Slide",
    classes: Classes | None,
    origin: Origin,
    out: Path,
    corner: tuple[float, float],
) -> int:
    from pathology.annotations import write_geojson
    from pathology.annotations.read import is_mask

    if is_mask(path):
        raise AnnotationError(f"{path}: a mask image has no outlines to write as GeoJSON")
    return write_geojson(out, _annotations(path, slide, classes, origin).drawn, corner)


def _write_tiles(path: Path, slide: "Slide", out: Path, corner: tuple[float, float]) -> int:
    from pathology.annotations import write_tiles
    from pathology.tiling import TileGrid

    grid = TileGrid.load(path, slide=slide)
    return write_tiles(out, grid.boxes(), {"tissue": grid.tissue, **grid.columns}, corner)


def _cohort(manifest: Path, classes: Path | None, origin: Origin, mpp: float | None) -> int:
    """Every slide of a manifest; one that fails is listed, and the others go on."""
    from tqdm import tqdm

    from pathology.data.slide_list import list_slides, slide_mpp
    from pathology.errors import ManifestError, PathologyError
    from pathology.slides import open_slide

    table = list_slides(manifest, mpp)
    if "regions" not in table:
        raise ManifestError(f"{manifest}: no column `regions`, so there is nothing to check")
    mapping = _mapping(classes or manifest.parent / "regions.json", origin)
    failures: list[str] = []
    states: Counter[str] = Counter()
    rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    for row in tqdm(rows, desc="annotations", unit="slide", disable=len(rows) < 2):
        if not row["regions"]:
            states["without regions"] += 1
            continue
        try:
            with open_slide(row["path"], slide_mpp(row)) as slide:
                tqdm.write("\n".join(_report(Path(row["regions"]), slide, mapping, origin)))
            states["in order"] += 1
        except (PathologyError, ValueError) as error:
            failures.append(f"{row['slide_id']}: {error}")
    print(", ".join(f"{count} slides {state}" for state, count in states.items()))
    if failures:
        print(f"{len(failures)} of {len(rows)} slides have regions that cannot be used:")
        print("\n".join(f"  {line}" for line in failures))
        return 3
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(annotations, arguments)
