"""A slide map as a DICOM Parametric Map, in the frame of reference of the slide it lies on.

The one format in which a viewer knows by itself where the map belongs. It needs the slide as DICOM:
patient, study, specimen, orientation and origin come from there. Values are float32 in tiles, one
level, not compressed (DICOM compresses no floats); NaN is "nothing measured".

Positions in DICOM are those of the *centre* of a pixel. With the source's origin ``o``, directions
``e_x``, ``e_y`` of its rows and columns, spacing ``s`` and the map's first pixel beginning at
level-0 pixel ``b`` and ``d`` of them wide::

    origin = o + e_x s_x (b_x + (d_x - 1) / 2) + e_y s_y (b_y + (d_y - 1) / 2),  spacing = d s
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bcos_vit
from pathology.errors import SlideError, SlideOpenError
from pathology.geometry import Box, Mpp
from pathology.maps.description import describe, sentence
from pathology.maps.extras import imported
from pathology.maps.pyramid import Level
from pathology.maps.slide_map import SlideMap
from pathology.maps.value_range import value_range
from pathology.outputs import complete_file

CREATOR = "bcos-pathology"
RECORD_GROUP = 0x0071
FLOAT_PIXEL_DATA = 0x7FE0, 0x0008
LARGEST_ELEMENT = 2**32 - 2
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


def write_parametric_map(
    slide_map: SlideMap,
    path: str | Path,
    source: str | Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    tile_px: int = 512,
) -> Path:
    """Write a slide map as a tiled float32 DICOM Parametric Map, a tile at a time.

    The file appears under its name when it is complete.

    Args:
        slide_map: the map; its values may lie on disk. A unit such as ``"logit/mm2"`` becomes
            ``{logit}/mm2`` in UCUM, where names in braces have no dimension.
        path: file to write; an existing one is replaced.
        source: the DICOM slide: one of its files, or the folder that holds them and no other slide.
        metadata: anything JSON holds (ledger, slide, stamp); kept as text in a private element
            (group 0071, creator "bcos-pathology"), next to the map's own placement. ``"target"``
            names the series. NaN and infinity are refused.
        tile_px: side of a stored tile.

    Returns:
        ``path``.

    Raises:
        MissingExtraError: highdicom is not installed.
        OutputError: the file cannot be written.
        SlideOpenError: ``source`` is no DICOM slide.
        SlideError: the slide's header lacks what places a map on it.
        ValueError: the map reaches over the slide, or is larger than DICOM can hold (4 GiB), a tile
            side that is not positive, or metadata that JSON cannot hold.

    Source:
        DICOM PS3.3 A.75, Parametric Map; header made by highdicom, Bridge et al., J Digit Imaging
        2022.
    """
    imported("highdicom", "dicom")
    pydicom = imported("pydicom", "dicom")
    path, source = Path(path), Path(source)
    if tile_px <= 0:
        raise ValueError(f"tile_px must be positive, got {tile_px}")
    record = describe(slide_map, None, metadata or {})
    height, width = slide_map.values.shape
    tiles = -(-height // tile_px) * -(-width // tile_px)
    size = tiles * tile_px**2 * 4
    if size > LARGEST_ELEMENT:
        raise ValueError(
            f"{path}: {width} x {height} pixels take {size / 2**30:.1f} GiB and DICOM holds 4 in an"
            " image; use larger pixels, or another format"
        )
    slide = _finest_plane(source, pydicom)
    header = _header(slide, slide_map, record, tile_px, source)
    _check_on_slide(slide_map, slide, source)
    header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns = height, width
    header.NumberOfFrames = tiles
    with complete_file(path) as draft, draft.open("wb") as file:
        pydicom.dcmwrite(file, header, enforce_file_format=True)
        file.write(struct.pack("<HH2sHI", *FLOAT_PIXEL_DATA, b"OF", 0, size))
        for tile in Level(slide_map.values, None, "sum").tiles(tile_px):
            file.write(tile.astype("<f4").data)
    return path


def check_source(source: str | Path) -> None:
    """Refuse a slide that no parametric map can lie on; for before the work, not after it.

    Args:
        source: as for :func:`write_parametric_map`.

    Raises:
        MissingExtraError: highdicom is not installed.
        SlideOpenError: ``source`` is no DICOM slide.
        SlideError: the slide's header lacks what places a map on it.
    """
    slide = _finest_plane(Path(source), imported("pydicom", "dicom"))
    pixel = SlideMap(np.zeros((1, 1)), Box(0.0, 0.0, 1.0, 1.0), Mpp(1.0, 1.0))
    _header(slide, pixel, describe(pixel, None, {}), 1, Path(source))


def _finest_plane(source: Path, pydicom: Any) -> Any:
    """The header of the slide's finest plane, as any reader of whole slides would choose it."""
    hint = "only a slide that is DICOM has parametric maps; choose another format for this one"
    if source.is_dir():
        folder, series = source, None
    elif not source.is_file():
        raise SlideOpenError("there is no such file", source)
    elif not pydicom.misc.is_dicom(source):
        raise SlideOpenError(f"is no DICOM file, and {hint}", source)
    else:
        folder, series = source.parent, _summary(source, pydicom).get("SeriesInstanceUID", "none")
    planes = []
    for file in sorted(folder.iterdir()):
        if file.is_file() and pydicom.misc.is_dicom(file):
            plane = _summary(file, pydicom)
            uid, columns = plane.get("SeriesInstanceUID"), plane.get("TotalPixelMatrixColumns")
            is_plane = plane.get("SOPClassUID") == WHOLE_SLIDE and uid and columns
            if is_plane and "VOLUME" in plane.get("ImageType", []) and series in (None, uid):
                planes.append((columns, file, uid))
    if not planes:
        raise SlideOpenError(f"holds no plane of a DICOM slide, and {hint}", source)
    if len({uid for _, _, uid in planes}) > 1:
        raise SlideOpenError("holds several slides; name a file of the one that is meant", source)
    return pydicom.dcmread(max(planes)[1], stop_before_pixels=True)


def _summary(file: Path, pydicom: Any) -> Any:
    tags = ["SOPClassUID", "ImageType", "SeriesInstanceUID", "TotalPixelMatrixColumns"]
    return pydicom.dcmread(file, specific_tags=tags, stop_before_pixels=True)


def _header(
    slide: Any, slide_map: SlideMap, record: dict[str, Any], tile_px: int, source: Path
) -> Any:
    """A parametric map without pixels; how many there are is for the caller to say."""
    try:
        return _made_header(slide, slide_map, record, tile_px)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise SlideError(f"its header does not place a map on it: {error}", source) from error


def _made_header(slide: Any, slide_map: SlideMap, record: dict[str, Any], tile_px: int) -> Any:
    hd = imported("highdicom", "dicom")
    coded = imported("pydicom.sr.coding", "dicom").Code
    reach = value_range(Level(slide_map.values, None, "sum"))
    limit, largest = (each or 1.0 for each in reach)
    unit, is_logit = slide_map.unit or "value", slide_map.unit.startswith("logit")
    name = _label(str(record["metadata"].get("target", ""))) or f"map [{unit}]"
    measures = slide.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    spacing, origin = _geometry(slide, measures, slide_map)
    header = hd.pm.ParametricMap(
        [slide],
        np.zeros((tile_px, tile_px), np.float32),
        series_instance_uid=hd.UID(),
        series_number=1,
        series_description=name,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=CREATOR,
        manufacturer_model_name=CREATOR,
        software_versions=bcos_vit.__version__,
        device_serial_number="none",
        contains_recognizable_visual_features=False,
        content_label="MAP",
        content_description=name,
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(
                lut_label=unit[:16],
                lut_explanation=f"stored values are {unit}"[:64],
                unit=coded(_ucum(slide_map.unit), "UCUM", slide_map.unit or "no units"),
                value_range=(-largest, largest),
                quantity_definition=coded("130402", "DCM", "Class activation")
                if is_logit
                else None,
            )
        ],
        # By default windows are of whole numbers: one narrower than 1 would turn the colours round.
        voi_lut_transformations=[
            hd.VOILUTTransformation(0.0, 2 * limit, voi_lut_function="LINEAR_EXACT")
        ],
        pixel_measures=hd.PixelMeasuresSequence(spacing, measures.get("SliceThickness")),
        # Anywhere but at the source's own origin, where highdicom wants all of its pixels; the
        # true place follows.
        plane_positions=[hd.PlanePositionSequence("SLIDE", origin + 1.0, (1, 1))],
        dimension_organization_type="TILED_FULL",
        tile_pixel_array=True,
        tile_size=(tile_px, tile_px),
        specific_character_set="ISO_IR 192",
    )
    del header.FloatPixelData
    place = header.TotalPixelMatrixOriginSequence[0]
    decimal = imported("pydicom.valuerep", "dicom").format_number_as_ds
    for axis, offset in zip("XYZ", origin, strict=True):
        setattr(place, f"{axis}OffsetInSlideCoordinateSystem", decimal(float(offset)))
    header.DerivationDescription = sentence(slide_map, None)
    block = header.private_block(RECORD_GROUP, CREATOR, create=True)
    block.add_new(0x01, "UT", json.dumps(record))
    return header


def _geometry(slide: Any, measures: Any, slide_map: SlideMap) -> tuple[list[float], NDArray[Any]]:
    """Millimetres between the map's rows and columns, and where its first pixel's centre lies."""
    down_x, down_y = slide_map.downsample
    step_y, step_x = (float(length) for length in measures.PixelSpacing)
    cosines = np.array(slide.ImageOrientationSlide, dtype=np.float64)
    place = slide.TotalPixelMatrixOriginSequence[0]
    first = np.array(
        [
            float(place.XOffsetInSlideCoordinateSystem),
            float(place.YOffsetInSlideCoordinateSystem),
            float(place.get("ZOffsetInSlideCoordinateSystem", 0.0)),
        ]
    )
    along_row = cosines[:3] * step_x * (slide_map.box.x + (down_x - 1) / 2)
    along_column = cosines[3:] * step_y * (slide_map.box.y + (down_y - 1) / 2)
    return [down_y * step_y, down_x * step_x], first + along_row + along_column


def _check_on_slide(slide_map: SlideMap, slide: Any, source: Path) -> None:
    """Refuse a map that reaches over the slide by a pixel of its own: it is another slide's."""
    box, (down_x, down_y) = slide_map.box, slide_map.downsample
    width, height = slide.TotalPixelMatrixColumns, slide.TotalPixelMatrixRows
    left, top = -box.x / down_x, -box.y / down_y
    right, bottom = (box.right - width) / down_x, (box.bottom - height) / down_y
    if max(left, top, right, bottom) >= 1.0:
        raise ValueError(
            f"{source}: the map lies at {box.x:g}, {box.y:g} and is {box.width:g} x "
            f"{box.height:g} pixels of the slide, which has {width} x {height}; is it this slide's?"
        )


def _label(text: str) -> str:
    """``text`` as DICOM's descriptions can hold it: a line of 64 characters without backslash."""
    shown = "".join(c if c.isprintable() else " " for c in text.replace("\\", "/"))
    return " ".join(shown.split())[:64].strip()


def _ucum(unit: str) -> str:
    """``"logit/mm2"`` as ``{logit}/mm2``: a name without a dimension, and what it is divided by."""
    name, slash, per = unit.partition("/")
    return f"{{{name}}}{slash}{per}" if name else "1"
