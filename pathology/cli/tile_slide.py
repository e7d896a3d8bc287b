"""What ``pathology tile`` does for one slide: its table, its picture, and its numbers."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.cohort.counting import count
from pathology.errors import ManifestError, NoTissueError, OutputError, StampMismatchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pathology.annotations import Classes, Regions
    from pathology.slides import Slide
    from pathology.tiling import TileGrid, TileSpec
    from pathology.tissue import Survey

PICTURE_PX = 1200
TILE_COLOUR = (30, 30, 30, 120)


@dataclass(frozen=True)
class Tiler:
    """What is done for each slide; may be sent to another process.

    Args:
        out: folder for the results.
        spec: size, scale and choice of tiles.
        classes: which annotations make which class; ``None`` where nothing is annotated.
        label_fraction: see ``pathology tile``.
        overwrite: make tables anew that cannot be used.
    """

    out: Path
    spec: "TileSpec"
    classes: "Classes | None" = None
    label_fraction: float = 0.75
    overwrite: bool = False

    ENDS = (".png", ".json", ".parquet")

    @property
    def key(self) -> str:
        """All that decides results, but the slide and its regions."""
        from pathology.tiling.grid import FORMAT

        values = [FORMAT, self.spec.to_dict(), self._classes, self.label_fraction]
        return json.dumps(values, sort_keys=True)

    @property
    def _classes(self) -> Any:
        """Which annotations make which class, as JSON has it."""
        if self.classes is None:
            return None
        classes = [(name, one.include, one.exclude) for name, one in self.classes.items()]
        return [classes, self.classes.origin]

    def __call__(self, row: dict[str, Any]) -> str:
        """Tile the slide of one row of a manifest; returns a line about it."""
        from pathology.data.slide_list import slide_mpp
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
            count(tiles=len(grid))
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
        with Path(row["regions"]).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(json.dumps(self._classes).encode())
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
    if taken and found_numbers(numbers) is None:
        raise OutputError(
            f"{taken[0]}: is there already and was not written by `pathology tile`; use another"
            " --out, or --overwrite to replace it"
        )


def found_numbers(path: Path) -> dict[str, Any] | None:
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
