"""``pathology tile``: from slides to tables of tiles."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pathology.cli.run_function import run_function
from pathology.cli.tile_slide import Tiler, found_numbers
from pathology.errors import ManifestError, StampMismatchError
from pathology.store.store import is_url

if TYPE_CHECKING:
    import pandas as pd

    from pathology.annotations import Classes
    from pathology.store.place import Place

SETTINGS, QUALITY = "tile.yaml", "quality.html"


def tile(
    slides: str | Path,
    out: str | Path,
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
    part: str | None = None,
    workers: int = 0,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    retries: int = 1,
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
        slides: manifest (slides.csv), folder that holds nothing but slides, or one slide; here or
            by URL (s3://, gs://).
        out: folder or URL for the tables.
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
        mpp: micrometres per pixel of slides whose row does not say it, whatever their files say.
        label_fraction: least fraction of a tile's annotated area that its label covers.
        recursive: look for slides in the folder's folders, too.
        part: 3/16 takes the third of every 16 slides, so that 16 jobs share the work.
        workers: processes to work in; 0: this one, and with ray as many as there is place for.
        engine: local, processes of this machine, or ray, those of a cluster.
        address: of the cluster that this machine belongs to, with ray: auto or host:port; a cluster
            of this machine alone when omitted.
        retries: how often a slide is tried again whose worker died.
        overwrite: replace tables made by another specification.
        keep_going: list slides that fail at the end (exit code 3) rather than stop.
    """
    settings = {name: _plain(value) for name, value in locals().items() if name not in _HOW}
    from pathology.cli.on_cohort import OnCohort, Results, named_as_kept
    from pathology.cohort.engine import Needs
    from pathology.data.slide_list import list_slides
    from pathology.outputs import remove_drafts
    from pathology.store.place import output_place
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
    cohort = OnCohort(engine, address, workers, retries, part, keep_going)
    table = list_slides(slides, mpp, recursive)
    classes = _classes(slides) if "regions" in table else None
    if placement == "annotated" and classes is None:
        raise ManifestError(
            f"{slides}: --placement annotated needs a manifest with a `regions` column"
        )
    with output_place(out) as place, named_as_kept(place):
        _claim(place, settings, overwrite)
        files = [f"{name}{end}" for name in table["slide_id"] for end in Tiler.ENDS]
        drafts = [SETTINGS, cohort.failures, QUALITY, *files]
        remove_drafts(place.folder, drafts)
        work = Tiler(place.folder, spec, classes, label_fraction, overwrite)
        results = Results(
            "tile", "tiling", Tiler.ENDS, work.key, columns=("regions",), again=overwrite
        )
        try:
            return cohort.each_slide(table, work, results, place, Needs())
        finally:
            _let_go(place, settings)
            _write_quality(place, table)
            # Again: workers of a run that was killed may have outlived it until now.
            remove_drafts(place.folder, drafts)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


# How a run works, which its settings do not repeat.
_HOW = {
    "part", "workers", "engine", "address", "retries", "overwrite", "keep_going",
}  # fmt: skip
# What else does not decide which tiles there are, only on what a run works.
_FREE = {"slides", "out", "mpp", "label_fraction", "recursive"}


def _classes(slides: str | Path) -> "Classes | None":
    """What regions beside a manifest mean."""
    from pathology.annotations import read_classes
    from pathology.cli.on_cohort import named_as_kept
    from pathology.store.place import input_place

    folder = str(slides).rpartition("/")[0] if is_url(slides) else Path(slides).parent
    with input_place(folder) as beside, named_as_kept(beside):
        beside.fetch(["regions.json"])
        return read_classes(beside.folder / "regions.json")


def _claim(place: "Place", settings: dict[str, Any], overwrite: bool) -> None:
    """Keep the settings of the run; those of a folder's tiles may not differ.

    Of several runs that begin at once the first decides.

    Raises:
        ManifestError: those that are there cannot be read.
        StampMismatchError: the folder holds, or will hold, tiles made with others (unless
            ``overwrite``).
    """
    text = _as_text(settings)
    if not overwrite and place.store.write(SETTINGS, text, only_if_absent=True):
        return
    if not overwrite:
        place.fetch([SETTINGS])
        _check_settings(place, settings)
    place.store.write(SETTINGS, text)


def _let_go(place: "Place", settings: dict[str, Any]) -> None:
    """A run that has made nothing leaves the settings to the next.

    Another that began with the same at the same time says them again when it has made something.
    """
    if _has_tiles(place):
        place.store.write(SETTINGS, _as_text(settings), only_if_absent=True)
    else:
        place.store.remove(SETTINGS)


def _has_tiles(place: "Place") -> bool:
    return any(name.endswith(".parquet") for name in place.store.names(deep=False))


def _as_text(settings: dict[str, Any]) -> bytes:
    import yaml

    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode()


def _check_settings(place: "Place", settings: dict[str, Any]) -> None:
    """Refuse to add to tiles that were made, or are being made, with other settings."""
    import yaml

    path = place.folder / SETTINGS
    try:
        before = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise ManifestError(f"{path}: not the settings of a run: {error}") from error
    changed = [
        f"{name} {before.get(name)}, wanted {value}"
        for name, value in settings.items()
        if name not in _FREE and before.get(name, value) != value
    ]
    if not changed:
        return
    if _has_tiles(place):
        raise StampMismatchError(
            f"{path.parent}: holds tiles made with {'; '.join(changed)}; use another --out, or"
            " --overwrite to make them anew"
        )
    raise StampMismatchError(
        f"{path.parent}: a run began there with {'; '.join(changed)}, and has made no tiles yet;"
        " use another --out, or --overwrite if it is not at work any more"
    )


def _write_quality(place: "Place", table: "pd.DataFrame") -> None:
    """One page about all slides that were looked at or failed, by whichever run."""
    from pathology.cohort.records import Records
    from pathology.tissue import write_sheet

    place.fetch(f"{name}.json" for name in table["slide_id"])
    records = Records(place.store, "tile").all(damaged=lambda _name, _why: None)
    rows = []
    for name in table["slide_id"]:
        row = found_numbers(place.folder / f"{name}.json") or {}
        record = records.get(name)
        if record is not None and record.state == "failed":
            row["problem"] = record.message
        if row:
            rows.append(row | {"slide_id": name})
    write_sheet(rows, place.folder / QUALITY)
    place.publish([QUALITY])


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(tile, arguments)
