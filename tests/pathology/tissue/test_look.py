"""A survey: what is found, what is taken away, and what it costs."""

import json
import tracemalloc

import numpy as np
import pytest

from pathology.geometry import Box
from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide, Slide
from pathology.tissue import ARTEFACTS, FINDERS, OtsuTissue, survey
from pathology.tissue import picture as pictures

GREEN_INK = np.array([1.7, 0.55, 0.95])


def array(height: int = 480, width: int = 640, *, ink: bool = True) -> np.ndarray:
    """Tissue on the left half, a green stroke over its lower part; 2 um."""
    rng = np.random.default_rng(0)
    cells = np.kron(rng.uniform(0.3, 1.5, (height // 4, width // 4)), np.ones((4, 4)))
    optical = np.zeros((height, width, 3))
    optical[:, : width // 2] = cells[:, : width // 2, None] * (0.3, 0.7, 0.35)
    if ink:
        optical[3 * height // 4 :] += GREEN_INK
    light = 243 * np.exp(-optical) + rng.normal(0, 1, optical.shape)
    return light.round().clip(0, 255).astype(np.uint8)


def test_tissue_is_what_was_found_less_the_artefacts() -> None:
    looked = survey(MemorySlide(array(), 2.0))
    assert looked.tissue.values.dtype == np.float32
    pen = looked.artefacts["pen"].values
    expected = looked.found.values * (1 - pen)
    np.testing.assert_allclose(looked.tissue.values, expected)
    assert looked.tissue.values[:80, :70].mean() > 0.95
    assert not looked.tissue.values[95:].any()
    shares = looked.shares()
    area = 480 * 320 * 4e-6
    assert shares["tissue_mm2"] == pytest.approx(0.75 * area, rel=0.05)
    assert shares["pen"] == pytest.approx(1 - shares["tissue_mm2"] / shares["found_mm2"], abs=1e-4)
    for name in ("fold", "blur", "edge", "black"):
        assert shares[name] == pytest.approx(0, abs=0.01), name


def test_only_what_is_asked_for_is_taken_away() -> None:
    looked = survey(MemorySlide(array(), 2.0), exclude=["black"])
    assert list(looked.artefacts) == ["black"]
    np.testing.assert_array_equal(looked.tissue.values, looked.found.values)
    assert survey(MemorySlide(array(), 2.0), exclude=()).artefacts == {}


@pytest.mark.parametrize("name", FINDERS)
def test_a_blank_slide_has_no_tissue_and_no_shares(name: str) -> None:
    looked = survey(MemorySlide(np.full((400, 300, 3), 240, np.uint8), 1.0), name)
    assert looked.shares() == dict.fromkeys(["found_mm2", "tissue_mm2", *ARTEFACTS], 0.0)


def test_tissue_may_be_given() -> None:
    slide = MemorySlide(array(), 2.0)
    values = np.zeros((3, 4), np.float32)
    values[0, 0] = 0.5
    given = SlideMap(values, Box(0, 0, 640, 480), slide.mpp)
    looked = survey(slide, given, exclude=["pen"])
    assert looked.finder == "given"
    assert looked.shares()["found_mm2"] == pytest.approx(0.5 * 160 * 160 * 4e-6)
    assert looked.tissue.values.max() == 0.5


def test_a_finder_may_be_given() -> None:
    slide = MemorySlide(array(), 2.0)

    class Half:
        def find(self, slide: Slide) -> SlideMap:
            return SlideMap(np.array([[1.0, 0.0]]), Box(0, 0, 640, 480), slide.mpp)

    looked = survey(slide, Half(), exclude=())
    assert looked.finder == "Half"
    assert looked.shares()["found_mm2"] == pytest.approx(480 * 320 * 4e-6)
    coarse = survey(slide, OtsuTissue(mpp=16.0), exclude=())
    assert coarse.found.values.shape == looked.found.values.shape
    # Its window of texture reaches 32 um over the edge of tissue that is 640 um wide.
    assert coarse.shares()["found_mm2"] == pytest.approx(480 * 320 * 4e-6, rel=0.15)


def test_the_summary_is_json_and_says_what_could_not_be_judged() -> None:
    looked = survey(MemorySlide(array(), 8.0, slide_id="a/b"))
    summary = json.loads(json.dumps(looked.summary(), allow_nan=False))
    assert summary["slide_id"] == "a/b"
    assert summary["mpp"] == [8.0, 8.0]
    assert summary["mpp_source"] == "given"
    assert summary["size_px"] == [640, 480]
    assert summary["finder"] == "colour"
    assert list(summary["artefacts"]) == list(ARTEFACTS)
    assert summary["artefacts"]["blur"] is None
    assert looked.unjudged == ("blur",)
    assert summary["artefacts"]["pen"] > 0.2


@pytest.mark.parametrize("bad", [{"finder": "deep"}, {"exclude": ["dirt"]}])
def test_an_unknown_name_is_refused_before_anything_is_read(bad: dict[str, object]) -> None:
    slide = MemorySlide(array(), 2.0)
    slide.close()
    with pytest.raises(ValueError, match="is called"):
        survey(slide, **bad)  # type: ignore[arg-type]


def test_bounds_are_kept() -> None:
    slide = MemorySlide(array(), 2.0, bounds=Box(30, 50, 500, 400))
    looked = survey(slide)
    for slide_map in (looked.found, looked.tissue, *looked.artefacts.values()):
        assert (slide_map.box.x, slide_map.box.y) == (30, 50)
        assert slide_map.box.width >= 500
        assert slide_map.box.height >= 400


def test_the_slide_is_read_once_at_each_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    areas: dict[float, float] = {}
    read = MemorySlide.read

    def counted(self: MemorySlide, box: Box, mpp: float) -> np.ndarray:
        areas[mpp] = areas.get(mpp, 0.0) + box.area
        return read(self, box, mpp)

    monkeypatch.setattr(MemorySlide, "read", counted)
    survey(MemorySlide(array(), 2.0), "combined")
    assert set(areas) == {8.0, 2.0}
    assert areas[8.0] == 480 * 640
    # A block's halo and what it takes to fill whole cells.
    assert areas[2.0] < 1.2 * 480 * 640


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    slide = MemorySlide(array(), 2.0)
    whole = survey(slide)
    monkeypatch.setattr(pictures, "BAND_PX", 13 * 160)
    parts = survey(slide)
    np.testing.assert_array_equal(parts.tissue.values, whole.tissue.values)
    for name in ARTEFACTS:
        np.testing.assert_array_equal(parts.artefacts[name].values, whole.artefacts[name].values)


def test_memory_goes_with_the_picture_not_with_the_slide(monkeypatch: pytest.MonkeyPatch) -> None:
    # 8000 x 5000 level-0 pixels of 2 um: 120 MB as RGB. At 8 um 2.5 million pixels.
    monkeypatch.setattr(pictures, "BAND_PX", 2**17)
    strip = array(12, 8000, ink=False)[:1]
    slide = MemorySlide(np.broadcast_to(strip, (5000, 8000, 3)), 2.0)
    tracemalloc.start()
    looked = survey(slide)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert looked.found.values.mean() == pytest.approx(0.5, abs=0.05)
    # The picture, its measures and float32 maps, and what the reader and one block of blur need.
    assert peak < 36 * looked.found.values.size + 60e6


def test_ink_across_a_fold_does_not_hide_it() -> None:
    rng = np.random.default_rng(2)
    texture = 1 + 0.2 * rng.normal(0, 1, (300, 300, 1)).clip(-2, 2)
    optical = np.zeros((300, 300, 3))
    optical[50:250, 50:250] = (0.3, 0.6, 0.4)
    optical[60:240, 145:154] *= 2.5
    optical = optical * texture
    optical[130:170, 30:270] += GREEN_INK
    light = 243 * np.exp(-optical) + rng.normal(0, 1, optical.shape)
    slide = MemorySlide(light.round().clip(0, 255).astype(np.uint8), 8.0)
    looked = survey(slide, exclude=["fold", "pen"])
    assert list(looked.artefacts) == ["pen", "fold"]
    fold = looked.artefacts["fold"].values
    assert fold[65:120, 147:152].mean() > 0.9
    assert fold[180:235, 147:152].mean() > 0.9
    assert not fold[:, :135].any()
