"""Mask images over a slide."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from pathology.annotations import Classes, read_regions
from pathology.errors import AnnotationError, SlideOpenError
from tests.pathology.annotations.made import Source

SLIDE = Source(1600, 1200, 0.5)
INDICES = {"tumour": 2, "normal": 1}
COLOURS = {"tumour": ["#ff0000"], "normal": ["#00ff00"], "ignore": ["#ffffff"]}


def painted():
    """60 x 80 px of 20 level-0 px: 0, and 1, 2 and 3 in halves of the rest."""
    raster = np.zeros((60, 80), np.uint8)
    raster[:30, :40], raster[:30, 40:], raster[30:, 40:] = 1, 2, 3
    return raster


QUARTERS = np.array([[x, y, 800, 600] for y in (0, 600) for x in (0, 800)], float)


def shares(path, mapping=INDICES, source=SLIDE):
    regions = read_regions(path, source, Classes.of(mapping))
    return [*regions.covered(QUARTERS).round(9).tolist(), regions.annotated(QUARTERS).tolist()]


EXPECTED = [[0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1]]


def tiff(path, raster, **options):
    photometric = "rgb" if raster.ndim == 3 else "minisblack"
    options = {"photometric": photometric, "metadata": None, "compression": "zlib"} | options
    tifffile.imwrite(path, raster, **options)
    return path


def png(path, raster, mode=None):
    Image.fromarray(raster).save(path) if mode is None else Image.fromarray(raster).convert(
        mode
    ).save(path)
    return path


@pytest.mark.parametrize("enlarge", [1, 3, 20])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 17}, {}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_tiff_of_any_size(tmp_path, enlarge, layout, dtype):
    raster = np.kron(painted(), np.ones((enlarge, enlarge), np.uint8)).astype(dtype)
    assert shares(tiff(tmp_path / "mask.tif", raster, **layout)) == EXPECTED


def test_the_plane_at_about_4_um_is_read(tmp_path):
    fine = np.kron(painted(), np.ones((10, 10), np.uint8))  # 1 um
    options = {"tile": (64, 64), "metadata": None, "photometric": "minisblack"}
    with tifffile.TiffWriter(tmp_path / "mask.tif") as tif:
        tif.write(np.zeros_like(fine), **options)
        tif.write(fine[::3, ::3], subfiletype=1, **options)  # 3 um
        tif.write(np.zeros((60, 80), np.uint8), subfiletype=1, **options)  # 10 um
    np.testing.assert_allclose(shares(tmp_path / "mask.tif"), EXPECTED, atol=0.01)


def test_a_plane_filled_up_to_whole_tiles_is_not_read(tmp_path):
    fine = np.kron(painted(), np.ones((10, 10), np.uint8))
    padded = np.pad(fine[::3, ::3], ((0, 56), (0, 53)))
    options = {"tile": (64, 64), "metadata": None, "photometric": "minisblack"}
    with tifffile.TiffWriter(tmp_path / "mask.tif") as tif:
        tif.write(fine, **options)
        tif.write(padded, subfiletype=1, **options)
    assert shares(tmp_path / "mask.tif") == EXPECTED


def test_png(tmp_path):
    assert shares(png(tmp_path / "mask.png", painted())) == EXPECTED
    assert shares(png(tmp_path / "mask16.PNG", painted().astype(np.uint16) * 300),
                  {"tumour": 600, "normal": 300}) == EXPECTED  # fmt: skip
    palette = Image.fromarray(painted())
    palette.putpalette([0, 0, 0, 9, 9, 9, 200, 10, 10, 77, 77, 77])
    assert palette.mode == "P"
    palette.save(tmp_path / "palette.png")
    assert shares(tmp_path / "palette.png") == EXPECTED
    binary = Image.fromarray(painted() == 2)
    binary.save(tmp_path / "binary.png")
    assert shares(tmp_path / "binary.png", {"tumour": 1})[0] == EXPECTED[0]


@pytest.mark.parametrize("write", [tiff, png])
@pytest.mark.parametrize("others", ["zero", "same"])
def test_indices_in_the_first_of_three_channels(tmp_path, write, others):
    """As PANDA's masks are, and grey images that were saved as colour."""
    index = painted()
    rest = np.zeros_like(index) if others == "zero" else index
    path = tmp_path / ("mask.tiff" if write is tiff else "mask.png")
    assert shares(write(path, np.stack([index, rest, rest], axis=2))) == EXPECTED


def coloured(alpha=None):
    palette = np.array([[255, 255, 255], [0, 255, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    rgb = palette[painted()]
    return rgb if alpha is None else np.concatenate([rgb, alpha[..., None]], axis=2)


@pytest.mark.parametrize("write", [tiff, png])
def test_colours(tmp_path, write):
    path = write(tmp_path / ("mask.tif" if write is tiff else "mask.png"), coloured())
    assert shares(path, {**COLOURS, "other": ["#0000ff"]}) == [
        *EXPECTED[:2],
        [0, 0, 0, 1],
        EXPECTED[2],
    ]
    assert shares(path, {**COLOURS, "other": ["*"]})[3] == EXPECTED[2]
    with pytest.raises(
        AnnotationError, match=r'no class mentions the colours "#0000ff" \(1200 px\)'
    ):
        shares(path, COLOURS)
    with pytest.raises(AnnotationError, match=r'mask of colours.* write their values as "#rrggbb"'):
        shares(path, INDICES)


def test_transparent_is_not_annotated(tmp_path):
    alpha = np.where(painted() == 1, 0, 255).astype(np.uint8)
    path = png(tmp_path / "mask.png", coloured(alpha))
    assert shares(path, {**COLOURS, "other": ["*"]})[1] == [0, 0, 0, 0]


def test_one_channel_has_indices_though_colours_are_listed_too(tmp_path):
    mixed = {"tumour": [2, "#ff0000"], "normal": [1, "#00ff00"]}
    assert shares(png(tmp_path / "mask.png", painted()), mixed) == EXPECTED


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_refuses_what_does_not_fit(tmp_path, suffix):
    write = tiff if suffix == "tif" else png
    with pytest.raises(AnnotationError, match="80 x 20 px does not have the shape of slide case"):
        shares(write(tmp_path / f"a.{suffix}", painted()[:20]))
    # Stretched over the slide, what was padded to whole tiles would lie elsewhere.
    padded = np.pad(np.kron(painted(), np.ones((9, 9), np.uint8)), ((0, 8), (0, 0)))
    with pytest.raises(AnnotationError, match="cut off what was added at its edges"):
        shares(write(tmp_path / f"padded.{suffix}", padded))
    shares(write(tmp_path / f"rounded.{suffix}", padded[:-6]))
    (tmp_path / f"b.{suffix}").write_bytes(b"II*\0rubbish")
    (tmp_path / f"c.{suffix}").write_bytes(b"")
    for name in ("b", "c", "gone"):
        with pytest.raises(SlideOpenError, match="annotation of case"):
            shares(tmp_path / f"{name}.{suffix}")
    whole = write(tmp_path / f"d.{suffix}", np.kron(painted(), np.ones((9, 9), np.uint8)))
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(SlideOpenError):
        shares(whole)


def test_refuses_types_that_are_no_indices(tmp_path):
    with pytest.raises(AnnotationError, match="needs one channel of indices"):
        shares(tiff(tmp_path / "float.tif", painted().astype(np.float32)))
    with pytest.raises(AnnotationError, match="needs one channel of indices"):
        shares(tiff(tmp_path / "rgb16.tif", coloured().astype(np.uint16)))
    grey_alpha = Image.fromarray(painted()).convert("LA")
    grey_alpha.save(tmp_path / "la.png")
    with pytest.raises(AnnotationError, match="needs one channel of indices"):
        shares(tmp_path / "la.png")


def test_refuses_jpeg_in_tiff(tmp_path):
    path = tiff(tmp_path / "mask.tif", painted(), compression="jpeg", tile=(64, 64))
    with pytest.raises(AnnotationError, match="JPEG compression, which does not keep values"):
        shares(path)


def test_refuses_a_png_too_large_for_memory(tmp_path, monkeypatch):
    path = png(tmp_path / "mask.png", painted())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # warns at 3000, refuses at 6000
    assert shares(path) == EXPECTED
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(AnnotationError, match=r"too large to be decoded at once.*tiled TIFF"):
        shares(path)


def test_a_jpeg_is_no_mask(tmp_path):
    Image.fromarray(painted()).save(tmp_path / "mask.jpg")
    with pytest.raises(AnnotationError, match="not a file of annotations; known are"):
        shares(tmp_path / "mask.jpg")
