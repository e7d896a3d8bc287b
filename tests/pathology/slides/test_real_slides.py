"""Known facts about real slides."""

import io
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from PIL import Image, ImageCms

from pathology.errors import MissingResolutionError, SlideOpenError
from pathology.geometry import Box, Size
from pathology.slides import open_slide

DATA = Path(os.environ.get("BCOS_PATHOLOGY_DATA", Path(__file__).parents[4] / "shared" / "data"))


def real_slide(name: str) -> Path:
    path = DATA / "slides" / name
    if not path.exists():
        pytest.skip(f"slides/{name} is not under BCOS_PATHOLOGY_DATA")
    return path


def test_aperio() -> None:
    path = real_slide("CMU-1-Small-Region.svs")
    with open_slide(path) as slide:
        assert slide.size == Size(2220, 2967)
        assert slide.mpp == (0.499, 0.499)
        assert slide.mpp_source == "openslide"
        assert slide.slide_id == "CMU-1-Small-Region"
        assert sorted(slide.associated) == ["label", "macro", "thumbnail"]
        assert slide.associated["label"].shape == (463, 387, 3)
        with pytest.raises(KeyError):
            slide.associated["nothing"]
        pixels = slide.read(Box(700, 900, 448, 448), 0.499)
    with openslide.OpenSlide(path) as raw:
        expected = np.asarray(raw.read_region((700, 900), 0, (448, 448)))[..., :3]
    np.testing.assert_array_equal(pixels, expected)


def test_aperio_at_half_scale_is_the_mean() -> None:
    with open_slide(real_slide("CMU-1-Small-Region.svs")) as slide:
        native = slide.read(Box(700, 900, 448, 448), 0.499).astype(float)
        half = slide.read(Box(700, 900, 448, 448), 0.998)
        between = slide.read(Box(700.001, 900, 448, 448), 0.998)
    mean = native.reshape(224, 2, 224, 2, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(half, np.rint(mean))
    assert np.abs(between - mean).mean() < 1.5  # the filter, which has to know of the pixels around


@pytest.mark.parametrize(
    ("name", "mpp"), [("CMU-1-Small-Region.svs", 0.499), ("her2st_C2.tif", 0.69)]
)
def test_tiles_decoded_directly_are_openslides(name: str, mpp: float) -> None:
    path = real_slide(name)
    with open_slide(path, mpp) as slide, open_slide(path, mpp, backend="openslide") as reference:
        assert set(slide.decoders) == {"jpeg tiles"}
        assert slide.size.width > 2000
        part = Box(slide.size.width - 2000, slide.size.height - 2000, 2050, 2050)
        np.testing.assert_array_equal(slide.read(part, mpp), reference.read(part, mpp))
        width, height = slide.levels[0].tile
        box = Box(5 * width, 6 * height, width, height)
        with Image.open(io.BytesIO(slide.encoded(box, mpp))) as image:
            np.testing.assert_array_equal(np.asarray(image), reference.read(box, mpp))


def test_pickled_real_slide_reads_the_same() -> None:
    with open_slide(real_slide("CMU-1-Small-Region.svs")) as slide:
        box = Box(700.5, 900, 300, 300)
        expected = slide.read(box, 0.7)
        with pickle.loads(pickle.dumps(slide)) as copy:
            np.testing.assert_array_equal(copy.read(box, 0.7), expected)


def test_planes_of_a_real_pyramid_lie_on_each_other() -> None:
    with open_slide(real_slide("her2st_C2.tif"), mpp=0.69) as slide:
        assert slide.mpp_source == "given"
        box = Box(3000, 4800, 2400, 2400)
        native = slide.read(box, 0.69)
        for factor in (2, 4, 8, 16):
            coarse = slide.read(box, 0.69 * factor).astype(float)
            side = 2400 // factor
            mean = native.reshape(side, factor, side, factor, 3).mean(axis=(1, 3))
            shifts = {
                (i, j): np.abs(np.roll(coarse, (i, j), (0, 1)) - mean)[2:-2, 2:-2].mean()
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
            }
            assert min(shifts, key=lambda shift: shifts[shift]) == (0, 0)


# Mean and standard deviation of red, green and blue, as OpenSlide 4.0.1 and libjpeg-turbo gave them
# on 25 November 2026, JPEG tiles decoded directly; where it says so, OpenSlide alone does the same.
GOLDEN = [
    ("CMU-1-Small-Region.svs", None, (700, 900, 448, 448), 0.499, True,
     (200.103, 166.128, 188.344), (55.346, 75.959, 57.146)),
    ("CMU-1-Small-Region.svs", None, (700.5, 900.25, 448, 448), 0.7, True,
     (200.011, 165.981, 188.243), (52.717, 73.800, 55.534)),
    ("CMU-1-Small-Region.svs", None, (2100, 2900, 300, 300), 1.0, True,
     (254.018, 253.947, 253.948), (3.164, 3.371, 3.368)),
    ("her2st_C2.tif", 0.69, (3000, 4800, 1024, 1024), 0.69, True,
     (188.329, 175.045, 199.116), (65.161, 66.762, 46.225)),
    ("her2st_C2.tif", 0.69, (3000, 4800, 4096, 4096), 2.76, False,
     (175.094, 167.896, 194.514), (62.912, 63.174, 43.737)),
    ("her2st_C2.tif", 0.69, (3001.5, 4801.5, 2000, 2000), 2.0, False,
     (158.384, 146.759, 181.924), (59.453, 56.513, 40.718)),
    ("her2st_C3.tif", 0.69, (3000, 4800, 1024, 1024), 0.69, True,
     (198.954, 180.986, 208.279), (60.254, 53.731, 41.061)),
    ("her2st_C3.tif", 0.69, (1000, 2000, 4000, 4000), 5.52, False,
     (179.049, 162.252, 195.105), (56.515, 54.873, 42.764)),
    ("camelyon_jpeg.dcm", 28.97, (400, 200, 300, 300), 28.97, True,
     (205.225, 188.848, 213.362), (36.306, 50.685, 23.184)),
    ("camelyon_jpeg.dcm", 28.97, (0, 0, 1152, 700), 100.0, True,
     (207.299, 192.577, 215.097), (36.051, 51.088, 22.741)),
    ("openslide_fixtures/boxes.tiff", 0.5, (0, 0, 300, 250), 0.5, True,
     (159.089, 163.509, 191.502), (123.525, 122.309, 110.273)),
    ("openslide_fixtures/boxes_0.dcm", None, (0, 0, 16, 16), 0.499, True,
     (238.152, 233.945, 236.816), (19.601, 25.478, 17.114)),
    ("openslide_fixtures/small.svs", None, (0, 0, 16, 16), 0.499, True,
     (238.152, 233.945, 236.816), (19.601, 25.478, 17.114)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "mpp", "box", "at", "same", "mean", "spread"), GOLDEN)
def test_golden_regions(
    name: str,
    mpp: float | None,
    box: tuple[float, ...],
    at: float,
    same: bool,
    mean: tuple[float, ...],
    spread: tuple[float, ...],
) -> None:
    with open_slide(real_slide(name), mpp) as slide:
        pixels = slide.read(Box(*box), at)
    np.testing.assert_allclose(pixels.mean((0, 1)), mean, atol=1e-3)
    np.testing.assert_allclose(pixels.std((0, 1)), spread, atol=1e-3)
    with open_slide(real_slide(name), mpp, backend="openslide") as slide:
        plain = slide.read(Box(*box), at)
    if same:
        np.testing.assert_array_equal(plain, pixels)
    else:
        # OpenSlide interpolates between the pixels of these planes: softer, but nothing else.
        np.testing.assert_allclose(plain.mean((0, 1)), pixels.mean((0, 1)), atol=0.3)
        assert (plain.std((0, 1)) < pixels.std((0, 1))).all()


@pytest.mark.parametrize(
    ("name", "mpp"), [("CMU-1-Small-Region.svs", None), ("her2st_C2.tif", 0.69)]
)
def test_tifffile_reads_the_same(name: str, mpp: float | None) -> None:
    with (
        open_slide(real_slide(name), mpp) as slide,
        open_slide(real_slide(name), mpp, backend="tifffile") as other,
    ):
        assert other.mpp == slide.mpp
        assert [level[:3] for level in other.levels] == [level[:3] for level in slide.levels]
        for x, y in ((100.5, 200), (1500, 2500), (slide.size.width - 90, slide.size.height - 70)):
            for scale in (1, 1.7, 4.1):
                box, at = Box(x, y, 300, 300), scale * slide.mpp.x
                np.testing.assert_array_equal(other.read(box, at), slide.read(box, at))


def test_associated_images() -> None:
    with open_slide(real_slide("CMU-1-Small-Region.svs")) as slide:
        means = {name: image.mean((0, 1)) for name, image in slide.associated.items()}
    np.testing.assert_allclose(means["label"], (145.735, 104.170, 57.554), atol=1e-3)
    np.testing.assert_allclose(means["macro"], (177.896, 180.664, 178.589), atol=1e-3)
    np.testing.assert_allclose(means["thumbnail"], (213.848, 194.597, 207.666), atol=1e-3)
    with open_slide(real_slide("openslide_fixtures/boxes_0.dcm")) as slide:
        assert {name: image.shape for name, image in slide.associated.items()} == {
            "thumbnail": (16, 16, 3)
        }


def test_colours_of_a_real_profile() -> None:
    path = real_slide("openslide_fixtures/boxes_0.dcm")
    box = Box(0, 0, 16, 16)
    with open_slide(path) as stored, open_slide(path, colour="srgb") as srgb:
        before, after = stored.read(box, 0.499), srgb.read(box, 0.499)
    with openslide.OpenSlide(path) as raw:
        profile = raw.color_profile
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
    wanted = ImageCms.profileToProfile(
        Image.fromarray(before), profile, ImageCms.createProfile("sRGB"), intent
    )
    np.testing.assert_array_equal(after, np.asarray(wanted))
    with pytest.raises(SlideOpenError, match="no colour profile"):
        open_slide(real_slide("CMU-1-Small-Region.svs"), colour="srgb")


def test_dicom() -> None:
    path = real_slide("camelyon_jpeg.dcm")
    with pytest.raises(MissingResolutionError, match=r"28\.969"):
        open_slide(path)
    with open_slide(path, mpp=28.97) as slide:
        assert slide.size == Size(1152, 700)
        assert slide.bounds == Box(0, 0, 1152, 700)
        assert slide.thumbnail(200).shape == (122, 200, 3)


def test_dicom_kept_in_several_files(tmp_path: Path) -> None:
    for name in ("boxes_0.dcm", "boxes_1.dcm"):  # a level and a thumbnail of one slide
        shutil.copyfile(real_slide(f"openslide_fixtures/{name}"), tmp_path / name)
    with pytest.raises(SlideOpenError, match=r"name one of its files, for example boxes_0\.dcm"):
        open_slide(tmp_path)
    with open_slide(tmp_path / "boxes_0.dcm") as one, open_slide(tmp_path / "boxes_1.dcm") as other:
        box = Box(0, 0, 16, 16)
        np.testing.assert_array_equal(one.read(box, 0.499), other.read(box, 0.499))
        assert list(one.associated) == list(other.associated) == ["thumbnail"]


WHOLE_SLIDE, PHOTOGRAPH = b"1.2.840.10008.5.1.4.1.1.77.1.6", b"1.2.840.10008.5.1.4.1.1.77.1.4"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: data.replace(WHOLE_SLIDE, PHOTOGRAPH), "DICOM, but no intact whole-slide"),
        (lambda data: data[:300], "DICOM, but no intact whole-slide"),
        (lambda data: data[: len(data) // 2], "cannot be read"),
    ],
    ids=["another kind", "cut in its header", "cut in its pixels"],
)
def test_dicom_that_openslide_rejects(tmp_path: Path, change: Any, match: str) -> None:
    path = tmp_path / "slide.dcm"
    path.write_bytes(change(real_slide("camelyon_jpeg.dcm").read_bytes()))
    with pytest.raises(SlideOpenError, match=match) as caught, open_slide(path, 28.97) as slide:
        slide.read(Box(0, 0, 1152, 700), 28.97)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("keep", [0.001, 0.3, 0.7, 0.99])
def test_real_slide_cut_short(tmp_path: Path, keep: float) -> None:
    content = real_slide("CMU-1-Small-Region.svs").read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(content[: int(len(content) * keep)])
    # From half on all pixels are there; what is missing are the images that follow them.
    with pytest.raises(SlideOpenError, match=r"cut short: its directory \d ends at") as caught:
        open_slide(path, 0.499)
    assert "\n" not in str(caught.value)


def test_unreadable() -> None:
    path = real_slide("openslide_fixtures/unreadable.svs")
    with pytest.raises(SlideOpenError, match="cannot be"), open_slide(path) as slide:
        slide.read(Box(0, 0, 16, 16), 0.499)


def test_unopenable() -> None:
    with pytest.raises(SlideOpenError, match="unknown compression"):
        open_slide(real_slide("openslide_fixtures/unopenable.tiff"))


def test_72_dpi_fixture() -> None:
    path = real_slide("openslide_fixtures/boxes.tiff")
    with pytest.raises(MissingResolutionError, match=r"352\.778"):
        open_slide(path)
    with open_slide(path, mpp=0.5) as slide:
        assert len(slide.levels) == 4
