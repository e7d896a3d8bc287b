"""Opening files: what is refused and how, and what is told apart."""

import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import imagecodecs
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
from tests.pathology.slides.jpeg_slides import leave_out

JPEG_TILES = {
    "tile": (64, 64),
    "compression": "jpeg",
    "compressionargs": {"outcolorspace": "rgb"},
}
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


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("suffix", ["svs", "tif", "mrxs", "png", "dat"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (encoded("PNG"), "a PNG picture"),
        (encoded("JPEG"), "a JPEG picture"),
        (b"PK\3\4" + bytes(300), "a ZIP archive; unpack it"),
        (b"\x1f\x8b\x08" + bytes(300), "a gzip archive; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of git-lfs"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "a web page"),
        (b"slide_id,path,label and so on", "it is text"),
        (bytes(128) + b"DICM" + bytes(300), "it is DICOM, but no intact whole-slide image"),
    ],
)
def test_other_files_are_called_by_their_name(
    tmp_path: Path, content: bytes, kind: str, suffix: str
) -> None:
    path = tmp_path / f"slide.{suffix}"
    path.write_bytes(content)
    with pytest.raises(SlideOpenError, match="no slide format that OpenSlide knows") as caught:
        open_slide(path)
    assert kind in one_line(caught.value, path)


def aperio(path: Path, mpp: str = "0.25") -> Path:
    description = f"Aperio Image Library v11.2.1 \r\n400x300 (64x64) JPEG/RGB|MPP = {mpp}"
    layout = {"tile": (64, 64), "photometric": "ycbcr", "compression": "jpeg"}
    tifffile.imwrite(path, picture(), metadata=None, description=description, **layout)
    return path


def test_a_slide_is_known_by_its_content(tmp_path: Path) -> None:
    path = aperio(tmp_path / "slide.svs")
    other = shutil.copy(path, tmp_path / "slide.dat")
    with open_slide(path) as slide, open_slide(other) as renamed:
        assert renamed.properties["openslide.vendor"] == "aperio"
        box = Box(30, 40, 200, 100)
        np.testing.assert_array_equal(renamed.read(box, 0.25), slide.read(box, 0.25))


@pytest.mark.parametrize("name", ["Fall 1 (neu).tif", "Präparat ä切片é.tif", "a'b\"c%20#?.tif"])
@pytest.mark.parametrize("backend", ["openslide", "tifffile", "auto"])
def test_any_path(tmp_path: Path, name: str, backend: str) -> None:
    folder = tmp_path / "Schränke mit Leerzeichen"
    folder.mkdir()
    path = tiled(folder / name)
    with open_slide(path, backend=backend) as slide:
        assert slide.slide_id == path.stem
        np.testing.assert_array_equal(slide.read(Box(0, 0, 400, 300), 0.25), picture())
    with open_slide(str(path)) as slide:
        assert slide.path == path


@pytest.mark.parametrize(("mpp", "said"), [("0.0", "0 x 0"), ("1000", "1000 x 1000")])
def test_absurd_mpp_in_the_file(tmp_path: Path, mpp: str, said: str) -> None:
    path = aperio(tmp_path / "slide.svs", mpp)
    with pytest.raises(MissingResolutionError) as caught:
        open_slide(path)
    assert f"aperio says {said}" in one_line(caught.value, path)
    with open_slide(path, mpp=(0.25, 0.26)) as slide:
        assert (slide.mpp, slide.mpp_source) == ((0.25, 0.26), "given")


@contextmanager
def as_nobody() -> Iterator[None]:
    """What follows has the rights of any user; those of root would read everything."""
    if not hasattr(os, "geteuid"):
        pytest.skip("no user ids on this system")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("lock", ["file", "folder"])
def test_no_permission(tmp_path: Path, lock: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = tiled(folder / "slide.tif")
    locked = path if lock == "file" else folder
    mode = locked.stat().st_mode
    locked.chmod(0)
    try:
        with pytest.raises(SlideOpenError, match="Permission denied") as caught, as_nobody():
            open_slide(path)
    finally:
        locked.chmod(mode)
    one_line(caught.value, path)


def test_folders_of_slides_name_the_file(tmp_path: Path) -> None:
    mirax = tmp_path / "case"
    mirax.mkdir()
    (tmp_path / "case.mrxs").touch()
    with pytest.raises(SlideOpenError, match=r"folder, not a slide; name the file .* case\.mrxs"):
        open_slide(mirax)
    dicom = tmp_path / "dicom"
    dicom.mkdir()
    for name in ("2.dcm", "1.dcm"):
        (dicom / name).touch()
    with pytest.raises(SlideOpenError, match=r"name one of its files, for example 1\.dcm"):
        open_slide(dicom)


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


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
def test_truncated_aperio(tmp_path: Path, keep: float) -> None:
    content = aperio(tmp_path / "whole.svs").read_bytes()
    cut = tmp_path / "cut.svs"
    cut.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(SlideOpenError) as caught, open_slide(cut, mpp=0.25) as slide:
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


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), 1000, (0.25, 0)])
def test_impossible_mpp(tmp_path: Path, mpp: float) -> None:
    with pytest.raises(ValueError, match="mpp must be"):
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


RGBA = np.dstack([picture(), np.random.default_rng(3).integers(0, 256, (300, 400, 1), np.uint8)])
MULTIPLIED = np.dstack([RGBA[..., :3] * (RGBA[..., 3:] / 255), RGBA[..., 3:]]).astype(np.uint8)
LAYOUTS = [{"tile": (64, 64)}, {"rowsperstrip": 50}]


@pytest.mark.parametrize(
    ("array", "kind"),
    [(RGBA, "unassalpha"), (MULTIPLIED, "assocalpha"), (MULTIPLIED, "unspecified")],
)
def test_half_transparent_is_mixed_with_white(tmp_path: Path, array: np.ndarray, kind: str) -> None:
    alpha = RGBA[..., 3:] / 255
    expected = array[..., :3] * (alpha if kind == "unassalpha" else 1) + 255 * (1 - alpha)
    for layout in LAYOUTS:
        path = write_tiff(tmp_path / "slide.tif", array, extrasamples=[kind], **layout)
        with open_slide(path) as slide:
            pixels = slide.read(Box(0, 0, 400, 300), slide.mpp.x)
        # OpenSlide multiplies, divides and multiplies again, each time in whole numbers: where
        # little is left of the colour, the rounding of the first step is most of it.
        assert np.abs(pixels - expected).max() <= 2


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_in_every_layout(tmp_path: Path, photometric: str, layout: dict[str, Any]) -> None:
    grey = picture()[..., 0]
    path = write_tiff(tmp_path / "slide.tif", grey, photometric=photometric, **layout)
    shown = grey if photometric == "minisblack" else 255 - grey
    with open_slide(path) as slide:
        pixels = slide.read(Box(0, 0, 400, 300), slide.mpp.x)
    np.testing.assert_array_equal(pixels, np.stack([shown] * 3, axis=2))


PALETTE = np.random.default_rng(4).integers(0, 2**16, (3, 256), dtype=np.uint16)


# OpenSlide reads most of these, as something else: 16 bits by their upper half, inks by a rule of
# thumb, a fifth channel as transparency.
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("array", "options", "match"),
    [
        (picture().astype(np.uint16), {}, "8-bit grey, RGB or RGBA pixels, got 3 x uint16"),
        (picture()[..., 0].astype(np.uint16), {"photometric": "minisblack"}, "got 1 x uint16"),
        (picture().astype(np.int8), {}, "got 3 x int8"),
        (picture().astype(np.float32), {}, "got 3 x float32"),
        (picture()[..., 0] > 128, {"photometric": "minisblack"}, "got 1 x bool"),
        (RGBA[..., :2].copy(), {"photometric": "minisblack", "extrasamples": [2]}, "got 2 x uint8"),
        (np.dstack([RGBA, RGBA[..., 0]]), {"extrasamples": [0, 0]}, "got 5 x uint8"),
        (picture()[..., 0], {"photometric": "palette", "colormap": PALETTE}, "got palette"),
        (RGBA, {"photometric": "separated"}, "got separated"),
        (picture(), {"photometric": "cielab"}, "got cielab"),
    ],
    ids=["16", "16 grey", "int8", "float", "bool", "grey alpha", "5", "palette", "cmyk", "lab"],
)
def test_other_pixels_are_refused(
    tmp_path: Path, array: np.ndarray, options: dict[str, Any], match: str, layout: dict[str, Any]
) -> None:
    path = write_tiff(tmp_path / "slide.tif", array, **(layout | options))
    for backend in ("auto", "openslide", "tifffile"):
        with pytest.raises(SlideOpenError) as caught:
            open_slide(path, backend=backend)
        message = one_line(caught.value, path)
        assert match in message or (backend == "openslide" and "rowsperstrip" in layout)


def test_separate_colours(tmp_path: Path) -> None:
    options = {"planarconfig": "separate", "photometric": "rgb"}
    planes = picture().transpose(2, 0, 1).copy()
    path = write_tiff(tmp_path / "strips.tif", planes, rowsperstrip=50, **options)
    with pytest.raises(SlideOpenError, match="side by side") as caught:
        open_slide(path)
    one_line(caught.value, path)
    with open_slide(write_tiff(tmp_path / "tiles.tif", planes, tile=(64, 64), **options)) as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, 400, 300), slide.mpp.x), picture())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_stored_ycbcr_never_passes_for_rgb(
    tmp_path: Path, layout: dict[str, Any], compression: str | None
) -> None:
    stored = np.asarray(Image.fromarray(picture()).convert("YCbCr"))
    options = {"photometric": "ycbcr", "compression": compression} | layout
    path = write_tiff(tmp_path / "slide.tif", stored, **options)
    with pytest.raises(SlideOpenError, match="needs colours in RGB, got YCbCr in") as caught:
        open_slide(path, backend="tifffile")
    one_line(caught.value, path)
    if "tile" in layout:  # which libtiff converts
        with open_slide(path) as slide:
            pixels = slide.read(Box(0, 0, 400, 300), slide.mpp.x)
        # YCbCr of 8 bits cannot hold all of RGB: noise is the worst case.
        assert np.abs(pixels.astype(int) - picture()).mean() < 1
    else:
        with pytest.raises(SlideOpenError, match="got YCbCr"):
            open_slide(path)


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_aperios_jpeg_2000_in_ycbcr_is_openslides(tmp_path: Path, photometric: str) -> None:
    stored = np.asarray(Image.fromarray(np.full((64, 64, 3), (200, 90, 150), np.uint8)))
    tile = imagecodecs.jpeg2k_encode(
        np.asarray(Image.fromarray(stored).convert("YCbCr")), codecformat="j2k", mct=False
    )
    path = tmp_path / "slide.svs"
    tifffile.imwrite(
        path,
        iter([tile]),
        shape=stored.shape,
        dtype=np.uint8,
        tile=(64, 64),
        photometric=photometric,
        compression=33003,
        metadata=None,
        software=False,
        description="Aperio Image Library v12\r\n|AppMag = 40|MPP = 0.25",
    )
    with open_slide(path) as slide:
        np.testing.assert_allclose(
            slide.read(Box(0, 0, 64, 64), 0.25)[5, 5], (200, 90, 150), atol=3
        )
    with pytest.raises(SlideOpenError, match="got YCbCr in APERIO_JP2000_YCBC"):
        open_slide(path, backend="tifffile")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("metadata", [None, {"axes": "CYX"}])
@pytest.mark.parametrize("name", ["slide.tif", "slide.ome.tif"])
def test_one_channel_never_passes_for_the_slide(
    tmp_path: Path, layout: dict[str, Any], metadata: dict[str, Any] | None, name: str
) -> None:
    channels = picture().transpose(2, 0, 1).copy()
    options = {"photometric": "minisblack", "metadata": metadata} | layout
    path = write_tiff(tmp_path / name, channels, **options)
    for backend in ("auto", "tifffile"):
        with pytest.raises(SlideOpenError, match="needs one image, got 3 grey ones") as caught:
            open_slide(path, backend=backend)
        one_line(caught.value, path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_largest_image_is_the_slide(tmp_path: Path, layout: dict[str, Any]) -> None:
    path = tmp_path / "slide.ome.tif"
    sizes = {"macro": 30.0, "slide": 0.25, "label": 20.0}
    images = {"macro": picture(128, 64), "slide": picture(), "label": picture(100, 100)}
    with tifffile.TiffWriter(path, ome=True) as tif:
        for name, image in images.items():
            sides = {"PhysicalSizeX": sizes[name], "PhysicalSizeY": sizes[name]}
            metadata = {"axes": "YXS", "Name": name} | sides
            tif.write(image, photometric="rgb", metadata=metadata, **layout)
    with open_slide(path) as slide:
        assert slide.size == (400, 300)
        assert slide.mpp == (0.25, 0.25)
        np.testing.assert_array_equal(slide.read(Box(0, 0, 400, 300), 0.25), picture())


@pytest.mark.parametrize("other", [(128, 128), (75, 150)], ids=["padded", "macro"])
def test_a_plane_of_another_shape_is_never_read(tmp_path: Path, other: tuple[int, int]) -> None:
    path = tmp_path / "slide.tif"
    plain = np.full((300, 400, 3), (200, 100, 150), np.uint8)
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(plain, **options, **QUARTER_UM)
        tif.write(plain[::2, ::2], subfiletype=1, **options)
        tif.write(np.zeros((*other, 3), np.uint8), subfiletype=1, **options)
    with open_slide(path) as slide:
        assert len(slide.levels) == 3
        for mpp in (0.5, 1, 2, 4):
            assert (slide.read(Box(0, 0, 400, 300), mpp) == (200, 100, 150)).all()


@pytest.mark.parametrize("stated", ["", "0.25 micron", "?"])
def test_an_ome_header_that_makes_no_sense_says_nothing(tmp_path: Path, stated: str) -> None:
    path = tmp_path / "slide.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": stated, "PhysicalSizeY": 0.25}
    tifffile.imwrite(path, picture(), photometric="rgb", metadata=metadata)
    with pytest.raises(MissingResolutionError, match="no micrometres per pixel") as caught:
        open_slide(path)
    one_line(caught.value, path)


def test_a_decimal_comma_in_an_ome_header(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": "0,25", "PhysicalSizeY": "0,5"}
    tifffile.imwrite(path, picture(), photometric="rgb", metadata=metadata)
    with open_slide(path) as slide:
        assert slide.mpp == (0.25, 0.5)


@pytest.mark.parametrize(
    ("kind", "value", "mpp"),
    [("f", 40_000.0, 0.25), ("H", 40_000, 0.25), ("d", 20_000.0, 0.5), ("s", "40000", None)],
)
def test_resolution_tags_of_other_types(
    tmp_path: Path, kind: str, value: Any, mpp: float | None
) -> None:
    path = write_tiff(tmp_path / "slide.tif", picture(), rowsperstrip=50)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for name in ("XResolution", "YResolution"):
            tif.pages.first.tags[name].overwrite(value, dtype=kind)
    if mpp is None:
        with pytest.raises(MissingResolutionError, match="no micrometres per pixel") as caught:
            open_slide(path)
        one_line(caught.value, path)
    else:
        with open_slide(path) as slide:
            assert slide.mpp == pytest.approx((mpp, mpp))


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg"])
@pytest.mark.parametrize("photometric", ["rgb", "minisblack", "miniswhite"])
def test_a_tile_left_out_is_background_in_every_backend(
    tmp_path: Path, compression: str | None, photometric: str
) -> None:
    array = picture() if photometric == "rgb" else picture()[..., 0]
    options = {"photometric": photometric, "compression": compression, "tile": (64, 64)}
    if compression == "jpeg" and photometric == "rgb":
        options["compressionargs"] = {"outcolorspace": "rgb"}
    path = write_tiff(tmp_path / "slide.tif", array, **options)
    leave_out(path, 0)
    for backend in ("auto", "openslide", "tifffile"):
        with open_slide(path, backend=backend) as slide:
            assert (slide.read(Box(0, 0, 64, 64), slide.mpp.x) == 255).all()
            assert slide.read(Box(64, 64, 64, 64), slide.mpp.x).std() > 10


def test_a_tile_left_out_has_the_value_that_the_file_names(tmp_path: Path) -> None:
    tags = [(42113, "s", 0, "17", True)]
    path = tiled(tmp_path / "slide.tif", extratags=tags)
    leave_out(path, 0)
    with open_slide(path, backend="tifffile") as slide:
        assert (slide.read(Box(0, 0, 64, 64), slide.mpp.x) == 17).all()


def test_backend_that_cannot_read_says_so(tmp_path: Path) -> None:
    strips = write_tiff(tmp_path / "strips.tif", picture(), rowsperstrip=50)
    with pytest.raises(SlideOpenError, match="OpenSlide knows; leave backend out") as caught:
        open_slide(strips, backend="openslide")
    one_line(caught.value, strips)
    png = tmp_path / "slide.png"
    png.write_bytes(encoded("PNG"))
    with pytest.raises(SlideOpenError, match="is no TIFF, so tifffile cannot read it"):
        open_slide(png, backend="tifffile")
    with pytest.raises(ValueError, match="backend must be one of auto, openslide, tifffile, cucim"):
        open_slide(strips, backend="bioformats")


def repeated_tile(path: Path, width: int, height: int) -> Path:
    """A TIFF of one level, all of whose tiles are the same few bytes of the file."""
    tile = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 256, 3)))
    jpeg = io.BytesIO()
    tile.save(jpeg, "JPEG", quality=95, subsampling=0)
    count = -(-width // 256) * -(-height // 256)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, 8),  # bits of three samples, right behind the header
        (259, 3, 1, 7),
        (262, 3, 1, 6),
        (277, 3, 1, 3),
        (282, 5, 1, 14),
        (283, 5, 1, 14),
        (296, 3, 1, 3),
        (322, 3, 1, 256),
        (323, 3, 1, 256),
        (324, 4, count, 22),
        (325, 4, count, 22 + 4 * count),
        (530, 3, 2, 1 | 1 << 16),
    ]
    start = 22 + 8 * count
    content = struct.pack("<3H", 8, 8, 8) + struct.pack("<2I", 40_000, 1)
    content += np.full(count, start, "<u4").tobytes()
    content += np.full(count, len(jpeg.getvalue()), "<u4").tobytes() + jpeg.getvalue()
    directory = 8 + len(content)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    header = struct.pack("<2sHI", b"II", 42, directory)
    path.write_bytes(header + content + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


def test_one_level_of_a_hundred_thousand_pixels(tmp_path: Path) -> None:
    with open_slide(repeated_tile(tmp_path / "square.tif", 100_000, 100_000)) as slide:
        assert slide.size == (100_000, 100_000)
        pixels = slide.read(Box(99_800, 99_840, 300, 256), slide.mpp.x)
        assert (pixels[:, 200:] == 255).all()
        np.testing.assert_array_equal(pixels[:160, 0, 0], np.arange(160))
    with open_slide(repeated_tile(tmp_path / "band.tif", 100_000, 768)) as slide:
        tracemalloc.start()
        thumbnail = slide.thumbnail(1000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert thumbnail.shape == (8, 1000, 3)
    assert thumbnail.std(axis=1).max() == 0
    assert thumbnail.mean() == pytest.approx(127.5, abs=2)
    assert peak < 150e6, f"{peak / 1e6:.0f} MB, where all of it would be 230"


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, JPEG_TILES, {"rowsperstrip": 50}])
@pytest.mark.parametrize("backend", ["auto", "openslide"])
def test_a_relative_path_stays_that_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, Any], backend: str
) -> None:
    for folder, array in (("here", picture()), ("there", 255 - picture())):
        (tmp_path / folder).mkdir()
        write_tiff(tmp_path / folder / "slide.tif", array, **layout)
    monkeypatch.chdir(tmp_path / "here")
    slide = open_slide("slide.tif", backend="auto" if "rowsperstrip" in layout else backend)
    assert slide.path == Path("slide.tif")
    before = slide.read(Box(0, 0, 128, 128), slide.mpp.x)
    monkeypatch.chdir(tmp_path / "there")
    for same in (slide, pickle.loads(pickle.dumps(slide))):
        np.testing.assert_array_equal(same.read(Box(0, 0, 128, 128), 0.25), before)
        same.read(Box(200, 150, 200, 150), 0.25)  # not in a cache
        assert same.stamp() == stamp_file(tmp_path / "here" / "slide.tif")
        same.close()


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


@pytest.mark.parametrize(
    ("change", "bounds"),
    [
        ({"openslide.bounds-width": "30"}, Box(10, 20, 30, 40)),
        ({"openslide.bounds-x": ""}, Box(0, 0, 100, 80)),
        ({"openslide.bounds-height": "0"}, Box(0, 0, 100, 80)),
        ({"openslide.bounds-x": "4000"}, Box(0, 0, 100, 80)),
    ],
    ids=["inside", "missing", "empty", "elsewhere"],
)
def test_bounds_that_make_no_sense_are_the_whole_slide(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: dict[str, str], bounds: Box
) -> None:
    class Changed(FakeHandle):
        properties = FakeHandle.properties | change

    monkeypatch.setattr(openslide, "OpenSlide", Changed)
    slide = OpenSlideSlide(tmp_path / "slide.mrxs")
    assert slide.bounds == bounds
    # Locations stay those of the whole slide, wherever the bounds begin.
    assert slide.size == (100, 80)
    assert (slide.read(Box(-10, 0, 20, 20), 0.25)[:, :10] == (10, 20, 30)).all()


def test_imports_no_torch() -> None:
    code = (
        "import sys, pathology.slides, pathology.tiling, pathology.slides.tiff\n"
        "heavy = {'torch', 'skimage', 'pandas', 'pyarrow', 'monai'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
