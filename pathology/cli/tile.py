"""``pathology tile``: from slides to tables of tiles."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pathology.cli.run_function import run_function
from pathology.cli.tile_slide import Tiler, found_numbers
from pathology.errors import ManifestError, StampMismatchError

if TYPE_CHECKING:
    import pandas as pd

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
    from pathology.cohort.choice import make_engine
    from pathology.cohort.each_slide import each_slide
    from pathology.data.slide_list import list_slides
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
    drafts = [SETTINGS, FAILURES, QUALITY, *results]
    remove_drafts(out, drafts)
    work = Tiler(out, spec, classes, label_fraction, overwrite)
    try:
        return each_slide(
            table,
            work,
            "tiling",
            engine=make_engine(workers=workers),
            keep_going=keep_going,
            failures=out / FAILURES,
        )
    finally:
        _write_quality(out, table)
        # Again: workers of a run that was killed may have outlived it until now.
        remove_drafts(out, drafts)


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
        row = found_numbers(out / f"{name}.json") or {}
        if name in problems:
            row["problem"] = problems[name]
        if row:
            rows.append(row | {"slide_id": name})
    write_sheet(rows, out / QUALITY)


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(tile, arguments)
