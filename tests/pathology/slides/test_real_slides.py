"""Known facts about real slides."""

import os
import pickle
from pathlib import Path

import numpy as np
import openslide
import pytest

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
    mean = native.reshape(224, 2, 224, 2, 3).mean(axis=(1, 3))
    assert half.shape == (224, 224, 3)
    assert np.abs(half - mean).mean() < 1.5


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


def test_dicom() -> None:
    path = real_slide("camelyon_jpeg.dcm")
    with pytest.raises(MissingResolutionError, match=r"28\.969"):
        open_slide(path)
    with open_slide(path, mpp=28.97) as slide:
        assert slide.size == Size(1152, 700)
        assert slide.thumbnail(200).shape == (122, 200, 3)


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
