"""Conversion by ICC profiles, against Little CMS asked directly."""

import io
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pathology.errors import SlideOpenError
from pathology.geometry import Box
from pathology.slides import MemorySlide, Slide, open_slide
from pathology.slides import colour as colour_module
from pathology.slides.colour import SrgbConversion


def swapped_profile() -> bytes:
    """A valid RGB profile that is not sRGB: sRGB with its red and green primaries exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    count = int.from_bytes(profile[128:132])
    end = 132 + 12 * count
    table = profile[132:end].replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ")
    return profile[:132] + table.replace(b"????", b"gXYZ") + profile[end:]


PROFILE = swapped_profile()


def picture() -> NDArray[np.uint8]:
    rng = np.random.default_rng(2)
    return np.kron(rng.integers(0, 256, (30, 40, 3)), np.ones((10, 10, 1))).astype(np.uint8)


def converted(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    stored = ImageCms.ImageCmsProfile(io.BytesIO(PROFILE))
    srgb = ImageCms.createProfile("sRGB")
    image = Image.fromarray(pixels)
    return np.asarray(ImageCms.profileToProfile(image, stored, srgb, ImageCms.Intent.PERCEPTUAL))


def write(path: Path, profile: bytes | None = PROFILE, **layout) -> Path:
    options = {"photometric": "rgb", "metadata": None, "compression": "zlib", "iccprofile": profile}
    unit = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, picture(), **(options | unit | (layout or {"tile": (64, 64)})))
    return path


@pytest.fixture(params=["memory", "openslide", "tifffile", "strips"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Slide, Slide]:
    """The slide as stored and in sRGB."""
    if request.param == "memory":
        return tuple(
            MemorySlide(picture(), 0.25, colour=colour, profile=PROFILE)
            for colour in ("stored", "srgb")
        )
    layout = {"rowsperstrip": 50} if request.param == "strips" else {"tile": (64, 64)}
    path = write(tmp_path / "slide.tif", **layout)
    backend = "auto" if request.param == "strips" else request.param
    return tuple(open_slide(path, colour=colour, backend=backend) for colour in ("stored", "srgb"))


BOXES = [(Box(0, 0, 400, 300), 0.25), (Box(10.5, 20, 200, 150), 0.7), (Box(64, 64, 64, 64), 0.25)]


@pytest.mark.parametrize(("box", "mpp"), BOXES)
def test_is_the_conversion_of_what_is_stored(
    both: tuple[Slide, Slide], box: Box, mpp: float
) -> None:
    stored, srgb = both
    assert (stored.colour, srgb.colour) == ("stored", "srgb")
    pixels = stored.read(box, mpp)
    np.testing.assert_array_equal(srgb.read(box, mpp), converted(pixels))
    assert np.abs(converted(pixels).astype(int) - pixels).mean() > 20  # it is no small matter


def test_thumbnail_is_converted(both: tuple[Slide, Slide]) -> None:
    stored, srgb = both
    np.testing.assert_array_equal(srgb.thumbnail(100), converted(stored.thumbnail(100)))


def test_background_stays() -> None:
    options = {"background": (200, 40, 90), "profile": PROFILE}
    srgb = MemorySlide(picture(), 0.25, colour="srgb", **options)
    stored = MemorySlide(picture(), 0.25, **options)
    box = Box(-20, -10, 100, 60)
    pixels = srgb.read(box, 0.25)
    assert (pixels[:10] == (200, 40, 90)).all()
    assert (pixels[:, :20] == (200, 40, 90)).all()
    np.testing.assert_array_equal(pixels[10:, 20:], converted(stored.read(box, 0.25)[10:, 20:]))


def test_no_tile_is_passed_on_undecoded(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", compression="jpeg", photometric="ycbcr", tile=(64, 64))
    box = Box(64, 64, 64, 64)
    with open_slide(path) as stored, open_slide(path, colour="srgb") as srgb:
        assert stored.encoded(box, stored.mpp.x) is not None
        assert srgb.encoded(box, srgb.mpp.x) is None
        expected = converted(stored.read(box, stored.mpp.x))
        np.testing.assert_array_equal(srgb.read(box, srgb.mpp.x), expected)


def test_pickled_and_in_threads(both: tuple[Slide, Slide]) -> None:
    slide = both[1]
    box = Box(5.5, 6.5, 100, 100)
    expected = slide.read(box, 0.4)
    copy = pickle.loads(pickle.dumps(slide))
    assert copy.colour == "srgb"
    np.testing.assert_array_equal(copy.read(box, 0.4), expected)
    with ThreadPoolExecutor(4) as pool:
        for read in pool.map(lambda _: slide.read(box, 0.4), range(20)):
            np.testing.assert_array_equal(read, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_forked(both: tuple[Slide, Slide]) -> None:
    slide, box = both[1], Box(5.5, 6.5, 100, 100)
    receiving, sending = multiprocessing.Pipe(duplex=False)
    work = multiprocessing.get_context("fork").Process(
        target=lambda: sending.send(slide.read(box, 0.4))
    )
    work.start()
    assert receiving.poll(20), "the child does not answer"
    np.testing.assert_array_equal(receiving.recv(), slide.read(box, 0.4))
    work.join(20)


def test_large_images_are_converted_band_by_band(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SrgbConversion(PROFILE, None)(picture())
    monkeypatch.setattr(colour_module, "BAND_PX", 7 * 400)
    np.testing.assert_array_equal(SrgbConversion(PROFILE, None)(picture()), whole)


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 50}])
def test_without_a_profile_it_is_an_error(tmp_path: Path, layout: dict) -> None:
    path = write(tmp_path / "slide.tif", profile=None, **layout)
    with pytest.raises(SlideOpenError, match="holds no colour profile") as caught:
        open_slide(path, colour="srgb")
    assert str(caught.value).startswith(f"{path}: ")
    assert "colour='stored'" in str(caught.value)
    open_slide(path).close()


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 50}])
@pytest.mark.parametrize("profile", [b"rubbish" * 40, PROFILE[:200]], ids=["rubbish", "cut"])
def test_damaged_profile(tmp_path: Path, profile: bytes, layout: dict) -> None:
    path = write(tmp_path / "slide.tif", profile=profile, **layout)
    with pytest.raises(SlideOpenError, match="colour profile cannot be") as caught:
        open_slide(path, colour="srgb")
    assert "\n" not in str(caught.value)
    open_slide(path).close()  # as stored, nobody asks for it


def test_profile_of_other_colours_than_rgb(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with pytest.raises(SlideOpenError, match="colour profile cannot be used"):
        open_slide(write(tmp_path / "slide.tif", profile=lab), colour="srgb")


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 50}])
def test_profile_that_names_no_known_intent(tmp_path: Path, layout: dict) -> None:
    profile = PROFILE[:64] + (9).to_bytes(4) + PROFILE[68:]
    with pytest.raises(SlideOpenError, match="9 is not a valid Intent") as caught:
        open_slide(write(tmp_path / "slide.tif", profile=profile, **layout), colour="srgb")
    assert "\n" not in str(caught.value)


def test_unknown_colour(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="colour must be one of stored, srgb, got 'sRGB'"):
        open_slide(write(tmp_path / "slide.tif"), colour="sRGB")
