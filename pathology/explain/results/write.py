"""A slide's explanation on disk: a folder of files that stand by themselves, and its stamp."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from pathology.errors import SlideError, StampMismatchError
from pathology.explain.results.figure import Panel, SlideFigure, write_figure
from pathology.explain.results.overlay import overlay_png
from pathology.explain.results.qupath_script import write_qupath_script
from pathology.explain.results.report import Report, write_report
from pathology.explain.results.stored import RECORD, SLIDE
from pathology.explain.results.tile_features import write_tile_features
from pathology.explain.results.tile_table import write_tile_table
from pathology.explain.results.view import SlideView
from pathology.explain.slide import SlideExplanation
from pathology.maps import parametric_map
from pathology.maps.extras import imported
from pathology.maps.ome_tiff import write_ome_tiff
from pathology.maps.ome_zarr import write_ome_zarr
from pathology.maps.pyramid import Level, Levels
from pathology.maps.shown_unit import is_per_pixel
from pathology.maps.slide_map import SlideMap
from pathology.maps.value_range import value_range
from pathology.slides import Slide

FORMATS = {"ome-zarr": ("zarr", "zarr"), "dicom": ("dicom", "highdicom")}
"""Formats that are written when asked for: the extra that they come with, and its package."""

_Map = tuple[str, SlideMap, Levels, NDArray[Any] | None]
"""Name, map, what its levels hold, and what its pixels weigh when it is reduced."""


def check_formats(formats: Sequence[str]) -> None:
    """Refuse formats that there are not, or whose packages are missing, before any work.

    Raises:
        MissingExtraError: a package is missing; says what to install.
        ValueError: no such format.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"formats must be of {', '.join(FORMATS)}; got {name!r}")
        extra, module = FORMATS[name]
        imported(module, extra)


def check_source(slide: Slide, formats: Sequence[str]) -> None:
    """Refuse formats that a slide cannot have, before any work.

    Raises:
        SlideError: a parametric map of a slide that is not DICOM, or does not say where it lies.
    """
    if "dicom" not in formats:
        return
    if slide.path is None or slide.properties.get("openslide.vendor") != "dicom":
        raise SlideError(
            "is no DICOM slide, and only those have parametric maps; leave dicom out of --formats",
            slide.path,
        )
    parametric_map.check_source(slide.path)


def write_results(
    result: SlideExplanation,
    slide: Slide,
    folder: Path,
    settings: dict[str, Any],
    provenance: dict[str, str],
    formats: Sequence[str] = (),
) -> None:
    """Write everything there is to know about an explanation.

    To look at: ``report.html``, ``overlay.png``, and for papers ``figure.pdf`` and ``figure.png``;
    ``slide.jpg`` is the slide below them. To compute with: ``heatmap.ome.tif`` (additive map in
    logits per pixel, the sum kept on every level), ``density.ome.tif`` (the tiles' own logits per
    mm2, averaged where they overlap, the same height on every level) and ``tiles.parquet`` (one row
    per tile). For QuPath: ``tiles.geojson.gz`` and ``heatmap.groovy``, which puts the map in its
    place. ``explanation.json`` holds ledger, settings, provenance and how far each map's values
    reach, which every other file carries in its metadata, too.

    Asked for, there are ``heatmap.ome.zarr`` and its like, and ``heatmap.dcm``, the additive map.

    Layers, where there are any, are maps in ``layers/``: reduced levels hold means of what full
    pixels say. Of pixels in stain space there is also each stain's part of the additive map, as
    ``heatmap_STAIN.ome.tif`` and, in the colours of ``overlay.png``, ``overlay_STAIN.png``.

    Args:
        result: the explanation; its scratch map must still exist.
        slide: the slide.
        folder: an existing folder.
        settings: what decides the numbers, JSON values by name; see :func:`check_record`.
        provenance: what a reader of the report should know, printed in this order.
        formats: further formats, see :data:`FORMATS`.

    Raises:
        OutputError: a file cannot be written.
        SlideError: see :func:`check_source`.
    """
    check_source(slide, formats)
    result = replace(result, settings=settings, provenance=provenance)
    view = result.view or SlideView.of(slide)
    record = _record(result, view, slide, formats)
    limit = _write_pictures(result, view, folder, record)
    _write_maps(result, folder, record, formats)
    if "dicom" in formats and slide.path is not None:
        parametric_map.write_parametric_map(
            result.contributions, folder / "heatmap.dcm", slide.path, record
        )
    _write_tiles(result, slide, folder, record)
    write_qupath_script(
        folder / "heatmap.groovy",
        slide,
        result.contributions,
        target=result.target,
        limit=limit,
        metadata=record,
    )
    share = (result.tiles["weight"] * result.tiles["contribution"]).fillna(0.0)
    report = Report(
        slide_id=result.slide_id,
        target=result.target,
        slide_size=view.size,
        slide_mpp=view.mpp,
        thumbnail=view.thumbnail,
        slide_map=result.contributions,
        ledger=result.ledger,
        tile_contributions=share.to_numpy(),
        tiles_for=result.tiles_for,
        tiles_against=result.tiles_against,
        provenance=provenance,
        limit=limit,
        depth=result.depth,
        layers=result.layers,
    )
    write_report(folder / "report.html", report)
    (folder / RECORD).write_text(json.dumps(record, indent=2))


def write_numbers(result: SlideExplanation, slide: Slide, folder: Path) -> None:
    """Write what :class:`~pathology.explain.results.stored.StoredExplanation` reads, no more.

    The record, the maps, the tiles and ``slide.jpg``: for what shows it at once, in a moment.

    Args:
        result: the explanation; its scratch map must still exist.
        slide: the slide.
        folder: an existing folder.

    Raises:
        OutputError: a file cannot be written.
    """
    view = result.view or SlideView.of(slide)
    record = _record(result, view, slide, ())
    _write_maps(result, folder, record, ())
    write_tile_table(result.tiles, folder / "tiles.parquet", record)
    Image.fromarray(view.thumbnail).save(folder / SLIDE, quality=92)
    (folder / RECORD).write_text(json.dumps(record, indent=2))


def _record(
    result: SlideExplanation, view: SlideView, slide: Slide, formats: Sequence[str]
) -> dict[str, Any]:
    """What the explanation says of itself, and of its slide."""
    bounds = slide.bounds
    return {
        **result.record,
        "places": list(result.places),
        "ranges": {name: _range(values) for name, values, _, _ in _maps(result)},
        "view": {"size": list(view.size), "mpp": list(view.mpp)},
        "bounds": [bounds.x, bounds.y, bounds.width, bounds.height],
        "formats": list(formats),
    }


def _write_tiles(
    result: SlideExplanation, slide: Slide, folder: Path, record: dict[str, Any]
) -> None:
    """The table of the tiles, and the same as objects for QuPath."""
    write_tile_table(result.tiles, folder / "tiles.parquet", record)
    write_tile_features(
        result.tiles,
        folder / "tiles.geojson.gz",
        slide_id=result.slide_id,
        target=result.target,
        bounds=slide.bounds,
        metadata=record,
    )


def _maps(result: SlideExplanation) -> list[_Map]:
    """What there is to compute with."""
    sums = {"heatmap": result.stitched} | {f"heatmap_{k}": v for k, v in result.stains.items()}
    maps: list[_Map] = [(name, made.additive, "sum", None) for name, made in sums.items()]
    maps.append(("density", result.stitched.density(), "mean", result.stitched.coverage.values))
    return maps + [(f"layers/{name}", made, "mean", None) for name, made in result.layers.items()]


def _range(values: SlideMap) -> dict[str, float]:
    """How far a map's values reach, in the unit that a screen shows."""
    limit, largest = value_range(Level(values.values, None, "mean"))
    area = values.pixel_area_mm2 if is_per_pixel(values.unit) else 1.0
    return {"limit": limit / area, "largest": largest / area}


def _write_maps(
    result: SlideExplanation, folder: Path, record: dict[str, Any], formats: Sequence[str]
) -> None:
    """The maps, each with its levels."""
    for name, values, levels, weights in _maps(result):
        (folder / name).parent.mkdir(exist_ok=True)
        write_ome_tiff(values, folder / f"{name}.ome.tif", levels, record, weights=weights)
        if "ome-zarr" in formats:
            write_ome_zarr(values, folder / f"{name}.ome.zarr", levels, record, weights=weights)


def _write_pictures(
    result: SlideExplanation,
    view: SlideView,
    folder: Path,
    record: dict[str, Any],
) -> float:
    """What there is to look at; the density at which all its colours saturate."""
    draw = partial(
        overlay_png,
        view.thumbnail,
        slide_size=view.size,
        slide_id=result.slide_id,
        score=result.logit,
        metadata=record,
    )
    Image.fromarray(view.thumbnail).save(folder / SLIDE, quality=92)
    limit = draw(result.contributions, folder / "overlay.png", target=result.target).limit
    for name, stitched in result.stains.items():
        words = f"{result.target}: part of {name}"
        draw(stitched.additive, folder / f"overlay_{name}.png", target=words, limit=limit)
    figure = SlideFigure(
        result.slide_id,
        view.size,
        view.mpp,
        view.thumbnail,
        [Panel(result.target, result.ledger, result.contributions)],
        record["provenance"],
        limit,
    )
    write_figure([folder / "figure.pdf", folder / "figure.png"], figure, record)
    return limit


def stored_record(folder: Path) -> dict[str, Any]:
    """What the explanation in ``folder`` says of itself.

    Raises:
        StampMismatchError: it holds something else than an explanation.
    """
    try:
        record = dict(json.loads((folder / RECORD).read_text()))
        record["settings"] = dict(record["settings"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise StampMismatchError(
            f"{folder}: holds something else than an explanation; choose another --out"
        ) from error
    return record


def check_record(folder: Path, settings: dict[str, Any], formats: Sequence[str]) -> None:
    """Refuse a folder that holds an explanation made with other settings, or in fewer formats.

    Raises:
        StampMismatchError: naming the first setting that differs, or what is missing, or that it
            is no explanation.
    """
    record = stored_record(folder)
    # What was made before there were depths went down to pixels, of what the model said.
    stored = {"depth": "pixels", "calibration": None, "detail": 1.0, **record["settings"]}
    # Through JSON, so that tuples and lists compare equal.
    for name, value in json.loads(json.dumps(settings)).items():
        if stored.get(name) != value:
            raise StampMismatchError(
                f"{folder}: made with {name}={stored.get(name)!r}, asked for {value!r};"
                " choose another --out, or pass --overwrite"
            )
    missing = [name for name in formats if name not in record.get("formats", ())]
    if missing:
        raise StampMismatchError(
            f"{folder}: made without {', '.join(missing)}; choose another --out, or pass"
            " --overwrite"
        )
