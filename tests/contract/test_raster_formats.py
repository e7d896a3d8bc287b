"""Every raster format of a slide map, seen by readers that share no code with its writer.

Whatever reads it: the same numbers bit by bit, the same sum on every level, every pixel in its
place on the slide, the ledger in the file.
"""

import json
import resource
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import highdicom as hd
import numpy as np
import ome_types
import openslide
import pydicom
import pytest
import tifffile
import zarr
from ome_zarr_models.v04.image import Image

from pathology.errors import OutputError, SlideOpenError
from pathology.geometry import Box, Mpp
from pathology.maps.ome_tiff import write_ome_tiff
from pathology.maps.ome_zarr import write_ome_zarr
from pathology.maps.parametric_map import write_parametric_map
from pathology.maps.slide_map import SlideMap
from pathology.slides import open_slide

from .dicom_slide import write_dicom_slide

with warnings.catch_warnings():
    # cffi's own way of declaring functions; nothing of ours
    warnings.simplefilter("ignore")
    import pyvips

# An awkward scale (31.64 level-0 pixels along x), sides that are odd on several levels, an offset.
SLIDE_MPP = Mpp(0.2528, 0.25)
SLIDE_SIZE = (5750, 2400)  # width, height
SHAPE = 75, 180
BOX = Box(37.5, 12.25, 180 * 31.64, 75 * 31.5)
METADATA = {
    "slide_id": "case <1> & Söhne",
    "target": "tumour - normal",
    "ledger": {"score": 1.5, "bias": -0.25, "map_sum": 1.75, "gap": 1e-9},
}
BLOCK = 16


class Seen(NamedTuple):
    """What a reader finds: levels, and where the centre of a pixel lies, in level-0 pixels."""

    levels: list[np.ndarray]
    centre: Callable[[int, int, int], tuple[float, float]]
    record: dict[str, Any]


@pytest.fixture(scope="module")
def slide_map() -> SlideMap:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(SHAPE).astype(np.float32)
    values[rng.random(SHAPE) < 0.2] = np.nan
    values[20:60, 30:90] = np.nan
    values[0, 0] = np.float32(1e-38)  # the smallest survive, too
    return SlideMap(values, BOX, SLIDE_MPP, "logit")


@pytest.fixture(scope="module")
def files(slide_map: SlideMap, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rasters")
    slide = folder / "slide.dcm"
    pixels = np.zeros((SLIDE_SIZE[1], SLIDE_SIZE[0], 3), np.uint8)
    write_dicom_slide(slide, pixels, (SLIDE_MPP.x, SLIDE_MPP.y))
    paths = {name: folder / f"map.{name}" for name in ("ome.tif", "ome.zarr", "dcm")}
    write_ome_tiff(slide_map, paths["ome.tif"], metadata=METADATA, tile_px=BLOCK)
    write_ome_zarr(slide_map, paths["ome.zarr"], metadata=METADATA, chunk_px=BLOCK)
    write_parametric_map(slide_map, paths["dcm"], slide, METADATA, tile_px=BLOCK)
    return {**paths, "slide": slide}


def by_tifffile(files: dict[str, Path]) -> Seen:
    with tifffile.TiffFile(files["ome.tif"]) as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
        return Seen(levels, *ome_words(tiff.ome_metadata))


def by_zarr_through_tifffile(files: dict[str, Path]) -> Seen:
    with tifffile.imread(files["ome.tif"], aszarr=True) as store:
        group = zarr.open_group(store, mode="r")
        levels = [np.asarray(group[str(k)]) for k in range(len(list(group.keys())))]
    return Seen(levels, *ome_words(tifffile.tiffcomment(files["ome.tif"])))


def by_libvips(files: dict[str, Path]) -> Seen:
    base = pyvips.Image.new_from_file(files["ome.tif"])
    count = base.get("n-subifds")
    rest = [pyvips.Image.new_from_file(files["ome.tif"], subifd=k) for k in range(count)]
    for k, image in enumerate([base, *rest]):
        # Pixels per millimetre, from the TIFF's own resolution.
        assert 1000 / image.xres == pytest.approx(SLIDE_MPP.x * 31.64 * 2**k, rel=1e-6)
        assert 1000 / image.yres == pytest.approx(SLIDE_MPP.y * 31.5 * 2**k, rel=1e-6)
    return Seen(
        [image.numpy() for image in (base, *rest)], *ome_words(base.get("image-description"))
    )


def ome_words(xml: str) -> tuple[Callable[[int, int, int], tuple[float, float]], dict[str, Any]]:
    """Placement and record as ome-types, which validates, reads them from OME-XML."""
    ome = ome_types.from_xml(xml)
    pixels, comment = ome.images[0].pixels, ome.structured_annotations[0]
    plane = pixels.planes[0]
    assert ome.images[0].annotation_refs[0].id == comment.id
    units = {pixels.physical_size_x_unit, plane.position_x_unit, plane.position_y_unit}
    assert {unit.value for unit in units} == {"µm"}

    def centre(level: int, row: int, column: int) -> tuple[float, float]:
        x = plane.position_x + pixels.physical_size_x * 2**level * (column + 0.5)
        y = plane.position_y + pixels.physical_size_y * 2**level * (row + 0.5)
        return x / SLIDE_MPP.x, y / SLIDE_MPP.y

    return centre, json.loads(comment.value)


def by_zarr(files: dict[str, Path]) -> Seen:
    group = zarr.open_group(files["ome.zarr"], mode="r")
    attributes = dict(group.attrs)
    paths = [dataset["path"] for dataset in attributes["multiscales"][0]["datasets"]]
    return Seen([np.asarray(group[path])[0] for path in paths], *ngff_words(attributes))


def by_the_zarr_specification(files: dict[str, Path]) -> Seen:
    """Files of JSON and of zlib, as readers in other languages take them."""
    attributes = json.loads((files["ome.zarr"] / ".zattrs").read_text())
    levels = []
    for dataset in attributes["multiscales"][0]["datasets"]:
        folder = files["ome.zarr"] / dataset["path"]
        header = json.loads((folder / ".zarray").read_text())
        assert (header["zarr_format"], header["dimension_separator"]) == (2, "/")
        assert header["compressor"]["id"] == "zlib"
        assert header["filters"] is None
        (_, height, width), (_, tall, wide) = header["shape"], header["chunks"]
        rows, columns = -(-height // tall), -(-width // wide)
        level = np.empty((rows * tall, columns * wide), header["dtype"])
        for i in range(rows):
            for j in range(columns):
                raw = zlib.decompress((folder / "0" / str(i) / str(j)).read_bytes())
                chunk = np.frombuffer(raw, header["dtype"]).reshape(tall, wide)
                level[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide] = chunk
        levels.append(level[:height, :width])
    return Seen(levels, *ngff_words(attributes))


def by_ome_zarr_models(files: dict[str, Path]) -> Seen:
    """The published models of version 0.4, which refuse what does not follow it."""
    group = zarr.open_group(files["ome.zarr"], mode="r")
    image = Image.from_zarr(group)
    multiscale = image.attributes.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == ["c", "y", "x"]
    assert [axis.unit for axis in multiscale.axes[1:]] == ["micrometer", "micrometer"]
    window = image.attributes.omero.channels[0].window
    assert window.start == -window.end < 0
    assert window.min == -window.max <= window.start
    levels = [np.asarray(group[dataset.path])[0] for dataset in multiscale.datasets]
    dumped = image.attributes.model_dump(mode="json", exclude_none=True)
    return Seen(levels, *ngff_words({**dict(group.attrs), **dumped}))


def ngff_words(
    attributes: dict[str, Any],
) -> tuple[Callable[[int, int, int], tuple[float, float]], dict[str, Any]]:
    datasets = attributes["multiscales"][0]["datasets"]

    def centre(level: int, row: int, column: int) -> tuple[float, float]:
        scale, translation = datasets[level]["coordinateTransformations"]
        y, x = (
            scale["scale"][axis] * index + translation["translation"][axis]
            for axis, index in ((1, row), (2, column))
        )
        # An image of the slide without a translation has the centre of its first pixel at 0.
        return x / SLIDE_MPP.x + 0.5, y / SLIDE_MPP.y + 0.5

    return centre, attributes["bcos_pathology"]


def by_highdicom(files: dict[str, Path]) -> Seen:
    dataset, slide = pydicom.dcmread(files["dcm"]), pydicom.dcmread(files["slide"])
    found = hd.pm.ParametricMap.from_dataset(dataset)
    assert dataset.FrameOfReferenceUID == slide.FrameOfReferenceUID
    assert dataset.PatientID == slide.PatientID
    # Of the map by index, whose whole numbers are centres; of the slide by image coordinates, which
    # are 0 at the corner: just what the two ends of a placement mean here.
    on_glass = hd.spatial.PixelToReferenceTransformer.for_image(found, for_total_pixel_matrix=True)
    on_slide = hd.spatial.ReferenceToImageTransformer.for_image(slide, for_total_pixel_matrix=True)
    record = dataset.private_block(0x0071, "bcos-pathology")[0x01].value

    def centre(level: int, row: int, column: int) -> tuple[float, float]:
        glass = on_glass(np.array([[column, row]]))
        x, y, away = on_slide(glass)[0]
        assert away == pytest.approx(0.0, abs=1e-9)
        return float(x), float(y)

    return Seen([found.get_total_pixel_matrix(dtype=np.float32)], centre, json.loads(record))


READERS = {
    "tifffile": by_tifffile,
    "zarr through tifffile": by_zarr_through_tifffile,
    "libvips": by_libvips,
    "zarr": by_zarr,
    "zarr specification": by_the_zarr_specification,
    "ome-zarr-models": by_ome_zarr_models,
    "highdicom": by_highdicom,
}


@pytest.fixture(scope="module", params=READERS, ids=str)
def seen(request: pytest.FixtureRequest, files: dict[str, Path]) -> Seen:
    return READERS[request.param](files)


def test_numbers_come_back_bit_by_bit(seen: Seen, slide_map: SlideMap) -> None:
    assert seen.levels[0].dtype.itemsize == 4
    assert seen.levels[0].astype("<f4").tobytes() == slide_map.values.tobytes()


def test_every_level_has_the_sum(seen: Seen, slide_map: SlideMap) -> None:
    shapes = [(75, 180), (38, 90), (19, 45), (10, 23), (5, 12)]
    assert [level.shape for level in seen.levels] == shapes[: len(seen.levels)]
    assert len(seen.levels) in (1, 5)
    size = np.nansum(np.abs(slide_map.values), dtype=float)
    for level in seen.levels:
        # Each of at most 13 500 pixels is rounded once, by at most 2**-24 of itself.
        assert abs(np.nansum(level, dtype=float) - slide_map.sum()) < size * 2**-24


def test_pixels_lie_in_their_place(seen: Seen) -> None:
    for k, level in enumerate(seen.levels):
        for row, column in ((0, 0), (level.shape[0] - 1, 3), (2, level.shape[1] - 1)):
            x, y = seen.centre(k, row, column)
            # A millionth of a slide pixel; what a decimal of 16 characters leaves on glass.
            assert x == pytest.approx(BOX.x + 31.64 * 2**k * (column + 0.5), abs=1e-6)
            assert y == pytest.approx(BOX.y + 31.5 * 2**k * (row + 0.5), abs=1e-6)


def test_the_ledger_is_in_the_file(seen: Seen) -> None:
    assert seen.record["metadata"] == METADATA
    placed = seen.record["slide_map"]
    assert placed["box"] == [BOX.x, BOX.y, BOX.width, BOX.height]
    assert placed["unit"] == "logit"
    assert placed["levels"] == ("sum" if len(seen.levels) > 1 else None)


@pytest.mark.parametrize("name", ["ome.tif", "ome.zarr", "dcm"])
def test_a_full_disk_is_said_and_leaves_nothing(
    name: str, slide_map: SlideMap, files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / f"map.{name}"
    write = {
        "ome.tif": lambda: write_ome_tiff(slide_map, path, metadata=METADATA),
        "ome.zarr": lambda: write_ome_zarr(slide_map, path, metadata=METADATA),
        "dcm": lambda: write_parametric_map(slide_map, path, files["slide"], METADATA),
    }[name]
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, was[1]))
    try:
        with pytest.raises(OutputError, match=rf"map\.{name}: cannot be written") as error:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_openslide_is_no_way_to_look_at_a_heatmap(files: dict[str, Path]) -> None:
    """It sees one level of a plain TIFF and no pixels; opening one as a slide is one line."""
    with openslide.OpenSlide(files["ome.tif"]) as handle:
        assert handle.properties["openslide.vendor"] == "generic-tiff"
        assert handle.level_count == 1
        with pytest.raises(openslide.OpenSlideError, match="32-bit"):
            handle.read_region((0, 0), 0, (8, 8))
    with pytest.raises(SlideOpenError) as error:
        open_slide(files["ome.tif"])
    assert "\n" not in str(error.value)


def test_the_made_up_dicom_slide_is_one(files: dict[str, Path]) -> None:
    """Else the parametric map would be placed on something that only this test takes for one."""
    with open_slide(files["slide"]) as slide:
        assert slide.size == SLIDE_SIZE
        assert slide.mpp == pytest.approx(SLIDE_MPP)
