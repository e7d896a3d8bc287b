"""JPEG files made of a TIFF's tiles, and their damage."""

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from pathology.errors import SlideOpenError
from pathology.geometry import Box
from pathology.slides.jpeg_tiles import JpegTiles, jpeg_tiles
from pathology.slides.tiff import TiffSlide
from tests.pathology.slides.jpeg_slides import (
    abbreviated,
    overwrite,
    segments,
    stored_tile,
    tissue,
    write_slide,
)


def encoded(colours: str, subsampling: str | None = None) -> bytes:
    array = tissue(128, 128)
    return imagecodecs.jpeg8_encode(
        array if colours != "Gray" else np.ascontiguousarray(array[..., 0]),
        level=85,
        outcolorspace=None if colours == "Gray" else colours.lower(),
        subsampling=subsampling,
    )


@pytest.mark.parametrize(
    ("colours", "subsampling"),
    [("RGB", None), ("YCbCr", "420"), ("YCbCr", "422"), ("YCbCr", "444"), ("Gray", None)],
)
def test_a_tile_without_tables_and_colours_becomes_a_file(
    colours: str, subsampling: str | None
) -> None:
    whole = encoded(colours, subsampling)
    expected = imagecodecs.jpeg8_decode(whole)
    tile, tables = abbreviated(whole)
    jpeg = JpegTiles(colours, tables, (128, 128)).complete(tile)
    with Image.open(io.BytesIO(jpeg)) as image:
        np.testing.assert_array_equal(np.asarray(image), expected)
    pixels = JpegTiles(colours, tables, (128, 128)).decode(tile)
    np.testing.assert_array_equal(pixels, expected.reshape(pixels.shape))


def test_what_a_tile_says_of_its_colours_is_replaced() -> None:
    tiles = JpegTiles("RGB", None, None)
    exif = b"\xff\xe1\x00\x08Exif\0\0"
    whole = encoded("RGB")
    tile = whole[:2] + exif + whole[2:]
    markers = [marker for marker, _ in segments(tiles.complete(tile))]
    assert markers[:3] == [0xEE, 0xE1, 0xDB]  # once, and the other application's segment stays
    assert tiles.complete(tiles.complete(tile)) == tiles.complete(tile)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda jpeg: b"", "without data"),
        (lambda jpeg: b"\0" * 100, "is no JPEG"),
        (lambda jpeg: jpeg[:2], None),
        (lambda jpeg: jpeg[:40], None),
        (lambda jpeg: jpeg[: len(jpeg) // 2], "Premature end"),
        (lambda jpeg: b"\xff\xd8\xff\xe1\xff\xff", None),
    ],
)
def test_damage_is_an_error(change, match: str | None) -> None:
    tiles = JpegTiles("YCbCr", None, (128, 128))
    with pytest.raises(ValueError, match=match):
        tiles.decode(change(encoded("YCbCr", "420")))


def test_a_tile_of_another_size_or_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="128 x 128 px YCbCr, not as its page says"):
        JpegTiles("YCbCr", None, (256, 256)).decode(encoded("YCbCr", "420"))
    with pytest.raises(ValueError, match="Gray, not as its page says"):
        JpegTiles("YCbCr", None, (128, 128)).decode(encoded("Gray"))


@pytest.mark.parametrize("colours", ["RGB", "YCbCr"])
def test_pages(tmp_path: Path, colours: str) -> None:
    path = write_slide(tmp_path / "slide.svs", tissue(300, 300), side=128, colours=colours)
    with tifffile.TiffFile(path) as tif:
        found = jpeg_tiles(tif.pages[0])
    assert found is not None
    assert (found.colours, found.sides) == (colours, (128, 128))
    assert found.tables is not None


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib", "tile": (64, 64)},
        {"compression": "jpeg2000", "tile": (64, 64)},
        {"compression": "jpeg", "tile": (64, 64), "planarconfig": "separate"},
    ],
)
def test_other_pages(tmp_path: Path, options: dict) -> None:
    array = tissue(100, 120)
    if "planarconfig" in options:
        array = np.ascontiguousarray(array.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "page.tif", array, photometric="rgb", **options)
    with tifffile.TiffFile(tmp_path / "page.tif") as tif:
        assert jpeg_tiles(tif.pages[0]) is None


@pytest.mark.parametrize("colours", ["RGB", "YCbCr"])
@pytest.mark.parametrize("shared", [True, False])
def test_tifffiles_slides_are_decoded_the_same(tmp_path: Path, colours: str, shared: bool) -> None:
    path = write_slide(
        tmp_path / "slide.tif", tissue(300, 420), downs=(1,), side=128, colours=colours,
        shared=shared, aperio=False,
    )  # fmt: skip
    with TiffSlide(path) as slide, tifffile.TiffFile(path) as tif:
        assert slide.levels[0].tile == (128, 128)
        whole = tif.pages[0].asarray()
        np.testing.assert_array_equal(slide.read(Box(0, 0, 420, 300), slide.mpp.x), whole)
        jpeg = slide.encoded(Box(128, 128, 128, 128), slide.mpp.x)
        assert jpeg is not None
        with Image.open(io.BytesIO(jpeg)) as image:
            np.testing.assert_array_equal(np.asarray(image), whole[128:256, 128:256])


@pytest.mark.parametrize("layout", [{"tile": (128, 128)}, {"rowsperstrip": 64}])
@pytest.mark.parametrize("grey", [False, True])
def test_damage_in_tifffiles_slides_is_an_error(tmp_path: Path, layout: dict, grey: bool) -> None:
    array = tissue(300, 420)
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, array[..., 0] if grey else array, compression="jpeg", metadata=None,
        photometric="minisblack" if grey else "rgb",
        resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **layout,
    )  # fmt: skip
    with TiffSlide(path) as slide, tifffile.TiffFile(path) as tif:
        whole = tif.pages[0].asarray()
        whole = np.stack([whole] * 3, axis=2) if grey else whole
        np.testing.assert_array_equal(slide.read(Box(0, 0, 420, 300), 0.25), whole)
        if grey:
            assert slide.encoded(Box(128, 128, 128, 128), 0.25) is None
    offset, count = stored_tile(path, 0)
    overwrite(path, offset + count // 2, bytes(count - count // 2))
    with TiffSlide(path) as slide:
        with pytest.raises(SlideOpenError, match=r"cannot be read: \(10, 10\).*Premature end"):
            slide.read(Box(10, 10, 20, 20), 0.25)
        assert slide.encoded(Box(0, 0, 128, 128), 0.25) is None
        np.testing.assert_array_equal(
            slide.read(Box(200, 200, 100, 100), 0.25), whole[200:300, 200:300]
        )
