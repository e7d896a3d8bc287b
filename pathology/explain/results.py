"""A slide's explanation on disk: a folder of files that stand by themselves, and its stamp."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pathology.errors import StampMismatchError
from pathology.explain.overlay import overlay_png
from pathology.explain.report import Report, write_report
from pathology.explain.slide import SlideExplanation
from pathology.maps.extras import imported
from pathology.maps.ome_tiff import write_ome_tiff
from pathology.slides import Slide

THUMBNAIL_PX = 2000
RECORD = "explanation.json"
FORMATS = {"ome-zarr": ("zarr", "zarr"), "dicom": ("dicom", "highdicom")}
"""Formats that are written when asked for: the extra that they come with, and its package."""


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


def write_results(
    result: SlideExplanation,
    slide: Slide,
    folder: Path,
    settings: dict[str, Any],
    provenance: dict[str, str],
    formats: Sequence[str] = (),
) -> None:
    """Write everything there is to know about an explanation.

    To look at: ``report.html`` and ``overlay.png``. To compute with: ``heatmap.ome.tif`` (additive
    map in logits per pixel, the sum kept on every level), ``density.ome.tif`` (the tiles' own
    logits per mm2, averaged where they overlap, the same height on every level) and
    ``tiles.parquet`` (one row per tile). ``explanation.json`` holds ledger, settings and
    provenance, which the maps and the table carry in their metadata too.

    Of pixels in stain space there is also each stain's part of the additive map, as
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
    """
    record = {
        "slide_id": result.slide_id,
        "target": result.target,
        "ledger": result.ledger.to_dict(),
        "stains": result.stain_sums,
        "settings": settings,
        "provenance": provenance,
        "formats": list(formats),
    }
    table = pa.Table.from_pandas(result.tiles, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), b"bcos_pathology": json.dumps(record).encode()}
    tiles = table.replace_schema_metadata(metadata)
    pq.write_table(tiles, folder / "tiles.parquet", compression="zstd")
    write_ome_tiff(result.contributions, folder / "heatmap.ome.tif", metadata=record)
    write_ome_tiff(
        result.stitched.density(),
        folder / "density.ome.tif",
        levels="mean",
        metadata=record,
        weights=result.stitched.coverage.values,
    )
    thumbnail = slide.thumbnail(THUMBNAIL_PX)
    draw = partial(
        overlay_png,
        thumbnail,
        slide_size=slide.size,
        slide_id=result.slide_id,
        score=result.logit,
        metadata=record,
    )
    limit = draw(result.contributions, folder / "overlay.png", target=result.target).limit
    for name, stitched in result.stains.items():
        write_ome_tiff(stitched.additive, folder / f"heatmap_{name}.ome.tif", metadata=record)
        words = f"{result.target}: part of {name}"
        draw(stitched.additive, folder / f"overlay_{name}.png", target=words, limit=limit)
    share = (result.tiles["weight"] * result.tiles["contribution"]).fillna(0.0)
    report = Report(
        slide_id=result.slide_id,
        target=result.target,
        slide_size=slide.size,
        slide_mpp=slide.mpp,
        thumbnail=thumbnail,
        slide_map=result.contributions,
        ledger=result.ledger,
        tile_contributions=share.to_numpy(),
        tiles_for=result.tiles_for,
        tiles_against=result.tiles_against,
        provenance=provenance,
        depth=result.depth,
    )
    write_report(folder / "report.html", report)
    (folder / RECORD).write_text(json.dumps(record, indent=2))


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
