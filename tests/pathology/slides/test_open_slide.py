"""Opening files: what is refused and how, and what is told apart."""

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from pathology.errors import MissingResolutionError, SlideOpenError
from pathology.geometry import Box
from pathology.slides import open_slide
from pathology.slides.openslide import OpenSlideSlide
from pathology.slides.stamp import stamp_file
from pathology.slides.tiff import TiffSlide

QUARTER_UM = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}


def picture(height: int = 300, width: int = 400) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_tiff(path: Path, array: np.ndarray, **options: Any) -> Path:
    options = {"photometric": "rgb", "metadata": None} | QUARTER_UM | options
    tifffile.imwrite(path, array, **options)
    return path


def tiled(path: Path, **options: Any) -> Path:
    return write_tiff(path, picture(), **({"tile": (64, 64), "compression": "zlib"} | options))


def one_line(error: BaseException, path: Path) -> str:
    message = str(error)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "gone.svs"
    with pytest.raises(SlideOpenError, match="no such file") as caught:
        open_slide(path)
    one_line(caught.value, path)
    assert caught.value.path == path


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(SlideOpenError, match="is a folder"):
        open_slide(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\0", bytes(range(256)) * 40, b"II*\0", b"II*\0" + bytes(range(256)) * 40]
)
@pytest.mark.parametrize("name", ["slide.svs", "slide.tif", "slide.mrxs", "slide.dcm"])
def test_rubbish(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SlideOpenError) as caught:
        open_slide(path, mpp=0.25)
    one_line(caught.value, path)


def test_random_bytes_with_a_slides_name(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(np.random.default_rng(0).bytes(100_000))
    with pytest.raises(SlideOpenError, match="no slide format"):
        open_slide(path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pictures_are_no_slides(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(picture()).save(path)
    with pytest.raises(SlideOpenError, match="no slide format"):
        open_slide(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 50}])
def test_truncated(tmp_path: Path, keep: float, layout: dict[str, Any]) -> None:
    path = write_tiff(tmp_path / "whole.tif", picture(), compression="zlib", **layout)
    content = path.read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(SlideOpenError) as caught, open_slide(cut) as slide:
        slide.read(Box(0, 0, 400, 300), 0.25)
    one_line(caught.value, cut)


def overwrite_tile(path: Path, index: int) -> None:
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        offset, count = page.dataoffsets[index], page.databytecounts[index]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 64}])
def test_a_damaged_tile_does_not_spoil_the_others(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = write_tiff(tmp_path / "slide.tif", picture(), compression="zlib", **layout)
    overwrite_tile(path, 0)
    with open_slide(path) as slide:
        for _ in range(2):  # OpenSlide's errors latch: the second read must not be poisoned
            with pytest.raises(SlideOpenError, match="cannot be read") as caught:
                slide.read(Box(0, 0, 20, 20), 0.25)
            one_line(caught.value, path)
            box = Box(200, 200, 50, 40)
            np.testing.assert_array_equal(slide.read(box, 0.25), picture()[200:240, 200:250])


def test_no_mpp(tmp_path: Path) -> None:
    path = tiled(tmp_path / "slide.tif", resolution=None, resolutionunit=None)
    with pytest.raises(MissingResolutionError, match=r"pass mpp= \(for example 0.25\)"):
        open_slide(path)
    with open_slide(path, mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source) == ((0.5, 0.5), "given")


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 50}])
def test_72_dpi(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = write_tiff(
        tmp_path / "slide.tif", picture(), resolution=(72, 72), resolutionunit="INCH", **layout
    )
    with pytest.raises(MissingResolutionError, match="no plausible"):
        open_slide(path)


@pytest.mark.parametrize("mpp", [0, -1, float("nan")])
def test_impossible_mpp(tmp_path: Path, mpp: float) -> None:
    with pytest.raises(ValueError, match="mpp must be finite"):
        open_slide(tiled(tmp_path / "slide.tif"), mpp=mpp)


@pytest.mark.parametrize(
    ("layout", "backend"),
    [({"tile": (64, 64)}, OpenSlideSlide), ({"rowsperstrip": 50}, TiffSlide), ({}, TiffSlide)],
)
def test_backend_of_a_tiff(tmp_path: Path, layout: dict[str, Any], backend: type) -> None:
    with open_slide(write_tiff(tmp_path / "slide.tif", picture(), **layout)) as slide:
        assert type(slide) is backend
        assert slide.slide_id == "slide"
        assert slide.mpp == pytest.approx((0.25, 0.25))
        np.testing.assert_array_equal(slide.read(Box(0, 0, 400, 300), slide.mpp.x), picture())


def test_ome_header_gives_mpp_and_planes(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": 250.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
    }
    with tifffile.TiffWriter(path) as tif:
        options = {"tile": (64, 64), "photometric": "rgb"}
        tif.write(picture(), subifds=1, metadata=metadata, **options)
        tif.write(picture()[::2, ::2], subfiletype=1, **options)
    with open_slide(path) as slide:
        assert slide.mpp_source == "ome"
        assert slide.mpp == pytest.approx((0.25, 0.5))
        assert [level[:2] for level in slide.levels] == [(400, 300), (200, 150)]


def test_grey_is_read_as_rgb(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    path = write_tiff(tmp_path / "slide.tif", grey, photometric="minisblack", rowsperstrip=50)
    with open_slide(path) as slide:
        pixels = slide.read(Box(0, 0, 400, 300), slide.mpp.x)
    np.testing.assert_array_equal(pixels, np.stack([grey] * 3, axis=2))


def test_white_is_zero_is_turned_round(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    path = write_tiff(tmp_path / "slide.tif", grey, photometric="miniswhite", rowsperstrip=50)
    with open_slide(path) as slide:
        assert slide.read(Box(5, 5, 1, 1), slide.mpp.x)[0, 0, 0] == 255 - grey[5, 5]


def test_transparent_is_white(tmp_path: Path) -> None:
    rgba = np.dstack([picture(), np.zeros((300, 400), np.uint8)])
    rgba[:, 200:, 3] = 255
    options = {"extrasamples": ["unassalpha"], "rowsperstrip": 50}
    with open_slide(write_tiff(tmp_path / "slide.tif", rgba, **options)) as slide:
        pixels = slide.read(Box(0, 0, 400, 300), slide.mpp.x)
    assert (pixels[:, :200] == 255).all()
    np.testing.assert_array_equal(pixels[:, 200:], picture()[:, 200:])


@pytest.mark.parametrize(
    ("array", "options", "match"),
    [
        (picture().astype(np.uint16), {}, "8-bit"),
        (picture().transpose(2, 0, 1), {"planarconfig": "separate"}, "side by side"),
    ],
)
def test_other_pixels_are_refused(
    tmp_path: Path, array: np.ndarray, options: dict[str, Any], match: str
) -> None:
    path = write_tiff(tmp_path / "slide.tif", array, rowsperstrip=50, **options)
    with pytest.raises(SlideOpenError, match=match) as caught:
        open_slide(path)
    one_line(caught.value, path)


def test_file_that_vanishes(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "slide.tif", picture(), rowsperstrip=50)
    slide = open_slide(path)
    path.unlink()
    with pytest.raises(SlideOpenError, match="cannot be read"):
        slide.read(Box(0, 0, 10, 10), 0.25)
    with pytest.raises(SlideOpenError, match="cannot be read"):
        slide.stamp()


def test_stamp_sees_size_and_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytes(300_000)
    stamps = set()
    for changed in (
        content,
        content + b"\0",
        b"\1" + content[1:],
        content[:-1] + b"\1",
        b"",
        b"short",
    ):
        path.write_bytes(changed)
        stamps.add(stamp_file(path))
    assert len(stamps) == 6


class FakeHandle:
    """An OpenSlide handle of a MIRAX-like slide: bounds, background, transparent outside."""

    level_dimensions = ((100, 80), (25, 20))
    dimensions = (100, 80)
    level_downsamples = (1.0, 4.0)
    associated_images: ClassVar[dict[str, Image.Image]] = {}
    properties: ClassVar[dict[str, str]] = {
        "openslide.vendor": "mirax",
        "openslide.mpp-x": "0.25",
        "openslide.mpp-y": "0.25",
        "openslide.background-color": "0A141E",
        "openslide.bounds-x": "10",
        "openslide.bounds-y": "20",
        "openslide.bounds-width": "500",
        "openslide.bounds-height": "40",
    }

    def __init__(self, path: Path) -> None:
        pass

    def read_region(
        self, location: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Image.Image:
        rgba = np.zeros((size[1], size[0], 4), np.uint8)
        rgba[..., :3] = 200
        rgba[:, size[0] // 2 :, 3] = 255
        return Image.fromarray(rgba)


def test_bounds_and_background(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(openslide, "OpenSlide", FakeHandle)
    slide = OpenSlideSlide(tmp_path / "slide.mrxs")
    assert slide.bounds == Box(10, 20, 90, 40)  # as far as it lies on the slide
    assert slide.background == (10, 20, 30)
    pixels = slide.read(Box(0, 0, 20, 20), 0.25)
    assert (pixels[:, :10] == (10, 20, 30)).all()
    assert (pixels[:, 10:] == 200).all()


def test_imports_no_torch() -> None:
    code = (
        "import sys, pathology.slides, pathology.tiling, pathology.slides.tiff\n"
        "heavy = {'torch', 'skimage', 'pandas', 'pyarrow', 'monai'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
