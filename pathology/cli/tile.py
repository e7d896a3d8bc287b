"""``pathology tile``: from slides to tables of tiles."""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pathology.cli.run_function import run_function
from pathology.errors import ManifestError, NoTissueError, OutputError, StampMismatchError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pathology.annotations import Classes, Regions
    from pathology.slides import Slide
    from pathology.tiling import TileGrid, TileSpec
    from pathology.tissue import Survey

PICTURE_PX = 1200
TILE_COLOUR = (30, 30, 30, 120)
SETTINGS, FAILURES, QUALITY = "tile.yaml", "failures.csv", "quality.html"


def tile(
    slides: Path,
    out: Path,
    size_px: int = 224,
    tile_mpp: float = 0.5,
    overlap_px: int = 0,
    min_tissue: float = 0.5,
    keep_edges: bool = False,
    align: Literal["bounds", "file"] = "bounds",
    placement: Literal["grid", "random", "jittered", "annotated"] = "grid",
    count: int | None = None,
    seed: int = 0,
    tissue: str = "colour",
    exclude: str = "all",
    colour: Literal["stored", "srgb"] = "stored",
    mpp: float | None = None,
    label_fraction: float = 0.75,
    recursive: bool = False,
    workers: int = 0,
    overwrite: bool = False,
    keep_going: bool = False,
) -> int:
    """Find tissue on slides and cut it into tiles.

    For each slide: a table of its tiles (.parquet), a picture of tissue, artefacts and tiles (.png)
    and what was found in numbers (.json). For all of them: quality.html to look through, the
    settings (tile.yaml, which --config takes), and failures.csv if any failed.

    Tiles are labelled when the manifest has a `regions` column (files of annotations) and a
    `regions.json` beside it says which annotations make which class.

    A run that was stopped goes on where it was, and labels are always made from the regions as
    they are. A slide without enough tissue for one tile has
    failed: nothing can be trained on or said about it.

    Args:
        slides: manifest (slides.csv), folder that holds nothing but slides, or one slide.
        out: folder for the tables.
        size_px: side of a tile in pixels at tile_mpp.
        tile_mpp: micrometres per pixel of the tiles.
        overlap_px: how much neighbours share, in pixels at tile_mpp.
        min_tissue: least fraction of a tile that is tissue.
        keep_edges: keep tiles that reach over the slide's right and bottom edges.
        align: begin the grid at the scanned part's corner (bounds), or on the tiles that the file
            is made of (file), of which a tile must then cover a whole number.
        placement: a grid; jittered, a grid whose tiles are moved by up to half a stride; random,
            count places per slide; annotated, count tiles centred in the regions of each class.
        count: tiles per slide (random) or per class (annotated).
        seed: of random placements; a slide's tiles depend on it and the slide alone.
        tissue: what finds the tissue: colour, density or combined.
        exclude: artefacts that are not tissue: all, none, or some of pen,fold,blur,edge,black.
            Leave out pen where tissue is stained blue or green (trichrome, Alcian blue).
        colour: pixels as stored, or by the slide's ICC profile in sRGB.
        mpp: micrometres per pixel of slides that do not say it themselves.
        label_fraction: least fraction of a tile's annotated area that its label covers.
        recursive: look for slides in the folder's folders, too.
        workers: processes to work in; 0 works in this one.
        overwrite: replace tables made by another specification.
        keep_going: list slides that fail at the end (exit code 3) rather than stop.
    """
    settings = {name: _plain(value) for name, value in locals().items()}
    from pathology.annotations import read_classes
    from pathology.cli.cohort import each_slide
    from pathology.cli.slide_list import list_slides
    from pathology.outputs import remove_drafts, writable_folder
    from pathology.tiling import TileSpec
    from pathology.tiling.spec import GIVEN
    from pathology.tissue import ARTEFACTS

    if tissue == GIVEN:
        raise ValueError("--tissue needs the name of a finder")
    if not 0 <= label_fraction <= 1:  # said now, not after the first slide was looked at
        raise ValueError(f"label_fraction must be in [0, 1], got {label_fraction}")
    excluded = {"all": ARTEFACTS, "none": ()}.get(exclude)
    if excluded is None:
        excluded = tuple(name.strip() for name in exclude.split(","))
    spec = TileSpec(
        size_px, tile_mpp, overlap_px, min_tissue, keep_edges, align, placement, count, seed,
        tissue, excluded, colour,
    )  # fmt: skip
    settings["exclude"] = ",".join(spec.exclude) or "none"
    table = list_slides(slides, mpp, recursive)
    classes = read_classes(slides.parent / "regions.json") if "regions" in table else None
    if placement == "annotated" and classes is None:
        raise ManifestError(
            f"{slides}: --placement annotated needs a manifest with a `regions` column"
        )
    writable_folder(out)
    _write_settings(out / SETTINGS, settings, overwrite or not any(out.glob("*.parquet")))
    results = [f"{name}{end}" for name in table["slide_id"] for end in Tiler.ENDS]
    remove_drafts(out, [SETTINGS, FAILURES, QUALITY, *results])
    work = Tiler(out, spec, classes, label_fraction, overwrite)
    try:
        return each_slide(table, work, "tiling", keep_going, workers, out / FAILURES)
    finally:
        _write_quality(out, table)


@dataclass(frozen=True)
class Tiler:
    """What is done for each slide; may be sent to another process.

    Args:
        out: folder for the results.
        spec: size, scale and choice of tiles.
        classes: which annotations make which class; ``None`` where nothing is annotated.
        label_fraction: see :func:`tile`.
        overwrite: make tables anew that cannot be used.
    """

    out: Path
    spec: "TileSpec"
    classes: "Classes | None" = None
    label_fraction: float = 0.75
    overwrite: bool = False

    ENDS = (".png", ".json", ".parquet")

    def __call__(self, row: dict[str, Any]) -> str:
        """Tile the slide of one row of a manifest; returns a line about it."""
        from pathology.cli.slide_list import slide_mpp
        from pathology.slides import open_slide
        from pathology.tiling import tile_slide
        from pathology.tissue import survey

        path = self._path(row, ".parquet")
        with open_slide(row["path"], slide_mpp(row), colour=self.spec.colour) as slide:
            regions = self._regions(row, slide)
            drawn = self._drawn(row)
            before = self._before(path, slide, drawn)
            grid, unjudged = before, ""
            if grid is None:
                found = survey(slide, self.spec.tissue, self.spec.exclude)
                try:
                    grid = tile_slide(slide, self.spec, found, regions)
                except NoTissueError:
                    self._show(row, slide, found, None)  # to see why
                    raise
                grid = grid.with_made(**drawn)
                self._show(row, slide, found, grid)
                unjudged = _unjudged(found)
            # Always from the regions as they are now: labels are quick to make and go stale.
            grid = self._labelled(grid, regions)
            line = (
                f"{path}: {len(grid)} tiles{_counts(grid, self.classes)}{_notes(regions)}{unjudged}"
            )
            if before is not None and _same_labels(before, grid):
                return f"{line}, made before by the same specification"
            # The table comes last: where it stands, everything stands.
            grid.save(path)
        return line if before is None else f"{line}, labels made anew"

    def _path(self, row: dict[str, Any], end: str) -> Path:
        return self.out / f"{row['slide_id']}{end}"

    def _before(self, path: Path, slide: "Slide", drawn: dict[str, str]) -> "TileGrid | None":
        """The table that is there already, if it can be used."""
        from pathology.tiling import TileGrid

        if not path.exists():
            return None
        try:
            grid = TileGrid.load(path, spec=self.spec, slide=slide)
            if drawn.items() <= grid.made.items():
                return grid
            raise StampMismatchError(
                f"{path}: tiles were drawn in other regions or classes than there are now; use"
                " another --out, or --overwrite to draw them anew"
            )
        except (ManifestError, StampMismatchError):
            if not self.overwrite:
                raise
        # Gone before its successor is made: where that fails, nothing of the old kind is left.
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(f"{path}: cannot be replaced: {error.strerror}") from error
        return None

    def _drawn(self, row: dict[str, Any]) -> dict[str, str]:
        """What places depend on besides the specification, as :attr:`TileGrid.made` says it."""
        if self.classes is None or self.spec.placement != "annotated":
            return {}
        classes = [(name, one.include, one.exclude) for name, one in self.classes.items()]
        with Path(row["regions"]).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(json.dumps([classes, self.classes.origin]).encode())
        return {"regions": digest.hexdigest()}

    def _regions(self, row: dict[str, Any], slide: "Slide") -> "Regions | None":
        from pathology.annotations import read_regions

        if self.classes is None or not row["regions"]:
            if self.spec.placement == "annotated":
                raise ManifestError(
                    f"slide {row['slide_id']!r} has no regions, which placement annotated needs"
                )
            return None
        return read_regions(row["regions"], slide, self.classes)

    def _labelled(self, grid: "TileGrid", regions: "Regions | None") -> "TileGrid":
        import numpy as np

        from pathology.tiling import label_tiles

        if self.classes is None:
            return grid
        if regions is None:
            return grid.with_columns(label=np.full(len(grid), ""))
        return label_tiles(grid, regions, min_fraction=self.label_fraction)

    def _show(
        self, row: dict[str, Any], slide: "Slide", found: "Survey", grid: "TileGrid | None"
    ) -> None:
        """Write the picture and the numbers of a slide."""
        from PIL import Image

        from pathology.outputs import complete_file

        picture, numbers = self._path(row, ".png"), self._path(row, ".json")
        if not self.overwrite:
            _check_free(picture, numbers)
        values = found.summary() | {"slide_id": row["slide_id"], "picture": picture.name}
        values["tiles"] = 0 if grid is None else len(grid)
        # The numbers first: a picture without them is somebody else's.
        with complete_file(numbers) as draft:
            text = json.dumps(values, indent=1, ensure_ascii=False)
            draft.write_text(text + "\n", encoding="utf-8")
        with complete_file(picture) as draft:
            Image.fromarray(_picture(slide, found, grid)).save(draft, "PNG")


def _check_free(picture: Path, numbers: Path) -> None:
    """Annotations and masks may have the same names, where slides and results share a folder."""
    taken = [path for path in (numbers, picture) if path.exists()]
    if taken and _numbers(numbers) is None:
        raise OutputError(
            f"{taken[0]}: is there already and was not written by `pathology tile`; use another"
            " --out, or --overwrite to replace it"
        )


def _numbers(path: Path) -> dict[str, Any] | None:
    """What was found on a slide, ``None`` where that is not in the file or there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) and "found_mm2" in values else None


def _picture(slide: "Slide", found: "Survey", grid: "TileGrid | None") -> "NDArray[Any]":
    """Tissue and artefacts, with the tiles drawn in."""
    import numpy as np
    from PIL import Image, ImageDraw

    from pathology.tissue import draw_survey

    pixels = draw_survey(slide, found, PICTURE_PX)
    if grid is None:
        return pixels
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image, "RGBA")
    box, mpp = found.found.box, slide.mpp
    # The picture's own scale: never finer than the slide.
    shown = max(*mpp, max(box.width * mpp.x, box.height * mpp.y) / PICTURE_PX)
    boxes = grid.boxes() - (box.x, box.y, 0, 0)
    boxes *= np.array([mpp.x, mpp.y, mpp.x, mpp.y]) / shown
    for x, y, width, height in boxes.tolist():
        draw.rectangle((x, y, x + width, y + height), outline=TILE_COLOUR)
    return np.asarray(image)


def _unjudged(found: "Survey") -> str:
    """The artefacts that nobody can see on a slide, and so were not taken away, as words."""
    if not found.unjudged:
        return ""
    mpp = max(found.slide_mpp)
    return (
        f"; {', '.join(found.unjudged)} not judged: at {mpp:g} um per pixel the slide is too coarse"
    )


def _notes(regions: "Regions | None") -> str:
    """What was repaired, cut or left out of the regions, as words."""
    notes = {} if regions is None else regions.notes
    return "".join(f"; regions {what}: {count}" for what, count in notes.items())


def _same_labels(one: "TileGrid", other: "TileGrid") -> bool:
    import numpy as np

    if one.made != other.made:
        return False
    labels = [grid.columns["label"] for grid in (one, other) if "label" in grid.columns]
    return not labels or (len(labels) == 2 and np.array_equal(labels[0], labels[1]))


def _counts(grid: "TileGrid", classes: "Classes | None") -> str:
    """How many tiles each class has, as words."""
    if classes is None:
        return ""
    labels = grid.columns["label"]
    return "".join(f"; {name} {(labels == name).sum()}" for name in classes)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


# What does not decide which tiles there are, only on what and how a run works.
_FREE = {
    "slides", "out", "mpp", "label_fraction", "recursive", "workers", "overwrite", "keep_going",
}  # fmt: skip


def _write_settings(path: Path, settings: dict[str, Any], replace: bool) -> None:
    """Keep the settings of the run; those of a folder's tiles may not differ.

    Raises:
        StampMismatchError: the folder holds tiles made with others (unless ``replace``).
    """
    import yaml

    from pathology.outputs import complete_file

    if path.exists() and not replace:
        try:
            before = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
            raise ManifestError(f"{path}: not the settings of a run: {error}") from error
        changed = [
            f"{name} {before.get(name)}, wanted {value}"
            for name, value in settings.items()
            if name not in _FREE and before.get(name, value) != value
        ]
        if changed:
            raise StampMismatchError(
                f"{path.parent}: holds tiles made with {'; '.join(changed)}; use another --out, or"
                " --overwrite to make them anew"
            )
    with complete_file(path) as draft:
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        draft.write_text(text, encoding="utf-8")


def _write_quality(out: Path, table: "pd.DataFrame") -> None:
    """One page about all slides that were looked at or failed."""
    from pathology.tissue import write_sheet

    problems: dict[str, str] = {}
    if (out / FAILURES).exists():
        with (out / FAILURES).open(newline="", encoding="utf-8") as file:
            problems = {row["slide_id"]: row["message"] for row in csv.DictReader(file)}
    rows = []
    for name in table["slide_id"]:
        row = _numbers(out / f"{name}.json") or {}
        if name in problems:
            row["problem"] = problems[name]
        if row:
            rows.append(row | {"slide_id": name})
    write_sheet(rows, out / QUALITY)


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(tile, arguments)
