"""Reading at any scale, against a slow filter written out pixel by pixel."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from pathology.geometry import Box
from pathology.slides import MemorySlide, reader
from pathology.slides.resample import REDUCING, mean_blocks, resample


def hamming(t: float) -> float:
    if abs(t) >= 1:
        return 0.0
    sinc = 1.0 if t == 0 else math.sin(math.pi * t) / (math.pi * t)
    return sinc * (0.54 + 0.46 * math.cos(math.pi * t))


def triangle(t: float) -> float:
    return max(0.0, 1 - abs(t))


def slow_axis(
    values: np.ndarray, start: float, ratio: float, count: int, kernel: Callable[[float], float]
) -> np.ndarray:
    """Resample along the first axis: the kernel stretched over each output pixel.

    Outside of the values the nearest one counts; the part of an output pixel that lies there is
    white.
    """
    out = []
    for i in range(count):
        centre = start + (i + 0.5) * ratio
        stretch = max(1.0, ratio)
        first, last = math.floor(centre - stretch) - 1, math.ceil(centre + stretch) + 1
        weights, total = 0.0, np.zeros(values.shape[1:])
        for j in range(first, last + 1):
            weight = kernel((j + 0.5 - centre) / stretch)
            total = total + weight * values[min(max(j, 0), len(values) - 1)]
            weights += weight
        begin, end = start + i * ratio, start + (i + 1) * ratio
        inside = max(0.0, min(end, len(values)) - max(begin, 0.0)) / ratio
        out.append(total / weights * inside + 255 * (1 - inside))
    return np.stack(out)


def slow_read(array: np.ndarray, box: Box, width: int, height: int) -> np.ndarray:
    ratio_x, ratio_y = box.width / width, box.height / height
    kernel = hamming if min(ratio_x, ratio_y) >= REDUCING else triangle
    rows = slow_axis(array.astype(float), box.y, ratio_y, height, kernel)
    return slow_axis(rows.swapaxes(0, 1), box.x, ratio_x, width, kernel).swapaxes(0, 1)


@pytest.fixture(scope="module")
def noisy() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (90, 120, 3), dtype=np.uint8)


@pytest.mark.parametrize("mpp0", [0.2528, 0.25, 0.499])
@pytest.mark.parametrize("mpp", [0.5, 0.333, 1.0, 0.2])
@pytest.mark.parametrize("corner", [(0.0, 0.0), (10.37, 20.81), (-5.5, -3.25), (95.2, 70.9)])
def test_read_is_the_filter_written_out(
    noisy: np.ndarray, mpp0: float, mpp: float, corner: tuple[float, float]
) -> None:
    box = Box(*corner, 41.3, 37.7)
    pixels = MemorySlide(noisy, mpp0).read(box, mpp)
    expected = slow_read(noisy, box, pixels.shape[1], pixels.shape[0])
    # Pillow rounds to whole grey levels after each of its two passes.
    np.testing.assert_allclose(pixels, expected, atol=1.6)


def test_x_and_y_are_scaled_apart(noisy: np.ndarray) -> None:
    slide = MemorySlide(noisy, (0.25, 0.5))
    box = Box(7.3, 4.9, 64, 32)
    pixels = slide.read(box, 0.5)
    assert pixels.shape == (32, 32, 3)
    np.testing.assert_allclose(pixels, slow_read(noisy, box, 32, 32), atol=1.6)


@pytest.mark.parametrize("mpp0", [0.2528, 0.25, 0.3])
@pytest.mark.parametrize("offset", [0.0, 0.3, 11.77])
def test_a_gradient_keeps_its_place(mpp0: float, offset: float) -> None:
    ramp = np.arange(240, dtype=np.uint8)
    slide = MemorySlide(np.repeat(np.tile(ramp, (60, 1))[..., None], 3, axis=2), mpp0)
    box = Box(20 + offset, 10, 180, 40)
    row = slide.read(box, 0.5)[5, :, 0]
    width = len(row)
    # Pixel i of the slide has value i and its centre at i + 0.5.
    centres = box.x + (np.arange(width) + 0.5) * box.width / width
    np.testing.assert_allclose(row, centres - 0.5, atol=1.1)


@pytest.mark.parametrize("corner", [(0.0, 0.0), (3.31, 7.77), (0.5, 0.25)])
def test_a_dot_keeps_its_place_and_its_mass(corner: tuple[float, float]) -> None:
    array = np.zeros((200, 200, 3), np.uint8)
    array[100:104, 60:64] = 255
    box = Box(*corner, 180, 180)
    pixels = MemorySlide(array, 0.2528).read(box, 0.5)[..., 0].astype(float)
    step = box.width / pixels.shape[1]
    i, j = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5
    mass = pixels.sum()
    # Four taps of a Hamming filter place a dot to a tenth of a level-0 pixel, no better.
    assert (pixels * j).sum() / mass * step + box.x == pytest.approx(62, abs=0.1)
    assert (pixels * i).sum() / mass * step + box.y == pytest.approx(102, abs=0.1)
    assert mass * step**2 == pytest.approx(16 * 255, rel=0.03)


def exact_mean(array: np.ndarray, across: int, down: int) -> np.ndarray:
    height, width = array.shape[0] // down, array.shape[1] // across
    out = np.empty((height, width, array.shape[2]), np.uint8)
    for i, j in np.ndindex(height, width):
        block = array[i * down : (i + 1) * down, j * across : (j + 1) * across].astype(int)
        out[i, j] = [round(value) for value in block.sum((0, 1)) / (across * down)]  # to even
    return out


@pytest.mark.parametrize("ratio", [2, 3, 4, 7, 17])
@pytest.mark.parametrize("corner", [(0, 0), (5, 3)])
def test_whole_blocks_are_read_as_their_mean(
    noisy: np.ndarray, ratio: int, corner: tuple[int, int]
) -> None:
    x, y = corner
    width, height = 110 // ratio * ratio, 80 // ratio * ratio
    pixels = MemorySlide(noisy, 0.25).read(Box(x, y, width, height), 0.25 * ratio)
    part = noisy[y : y + height, x : x + width]
    np.testing.assert_array_equal(pixels, exact_mean(part, ratio, ratio))


def test_x_and_y_may_make_other_blocks(noisy: np.ndarray) -> None:
    pixels = MemorySlide(noisy, (0.25, 0.5)).read(Box(8, 4, 96, 60), 1.0)
    np.testing.assert_array_equal(pixels, exact_mean(noisy[4:64, 8:104], 4, 2))
    pixels = MemorySlide(noisy, (0.25, 0.5)).read(Box(8, 4, 96, 60), 0.5)
    np.testing.assert_array_equal(pixels, exact_mean(noisy[4:64, 8:104], 2, 1))


def test_whole_blocks_of_a_coarser_plane(noisy: np.ndarray) -> None:
    slide = MemorySlide(noisy, 0.25, levels=(1, 2))
    plane = exact_mean(noisy, 2, 2)
    pixels = slide.read(Box(6, 4, 60, 48), 1.5)
    np.testing.assert_array_equal(pixels, exact_mean(plane[2:26, 3:33], 3, 3))


def test_whole_blocks_over_the_edge_mix_with_the_background(noisy: np.ndarray) -> None:
    slide = MemorySlide(noisy, 0.25, background=(0, 0, 0))
    pixels = slide.read(Box(-3, -2, 12, 12), 0.5)
    padded = np.pad(noisy, ((2, 0), (3, 0), (0, 0)), "edge")[:12, :12]
    inside = np.outer([0, 1, 1, 1, 1, 1], [0, 0.5, 1, 1, 1, 1])[..., None]
    np.testing.assert_allclose(pixels, exact_mean(padded, 2, 2) * inside, atol=0.51)


@pytest.mark.parametrize("off", [0.01, 0.5])
def test_between_pixels_it_is_the_filter(noisy: np.ndarray, off: float) -> None:
    box = Box(10 + off, 8, 60, 40)
    pixels = MemorySlide(noisy, 0.25).read(box, 0.5)
    np.testing.assert_allclose(pixels, slow_read(noisy, box, 30, 20), atol=1.6)


@pytest.mark.parametrize("x", [0, 0.5, -3])
@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.33, 0.2])
def test_what_is_read_is_the_callers(noisy: np.ndarray, x: float, mpp: float) -> None:
    slide = MemorySlide(noisy, 0.25)
    pixels = slide.read(Box(x, 0, 40, 40), mpp)
    before = pixels.copy()
    pixels[:] = 0
    np.testing.assert_array_equal(slide.read(Box(x, 0, 40, 40), mpp), before)


def test_two_halves_are_the_whole(noisy: np.ndarray) -> None:
    slide = MemorySlide(noisy, 0.25)
    whole = slide.read(Box(0.5, 0.5, 100, 80), 0.5)
    left, right = slide.read(Box(0.5, 0.5, 50, 80), 0.5), slide.read(Box(50.5, 0.5, 50, 80), 0.5)
    np.testing.assert_array_equal(np.concatenate([left, right], axis=1), whole)


@pytest.mark.parametrize("mpp", [0.25, 0.61, 2.0])
def test_blocks_leave_no_seam(
    noisy: np.ndarray, monkeypatch: pytest.MonkeyPatch, mpp: float
) -> None:
    slide, box = MemorySlide(noisy, 0.25), Box(-6, -7, 130, 101)
    whole = slide.read(box, mpp)
    monkeypatch.setattr(reader, "BLOCK_PX", 48**2)
    blocks = slide.read(box, mpp).astype(int)
    # Block edges go through 32-bit floats: at most a rounding apart.
    assert np.abs(blocks - whole).max() <= 1


def test_coarse_reads_take_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0

    class Watched(MemorySlide):
        def _read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
            nonlocal largest
            largest = max(largest, width * height)
            return super()._read_level(level, x, y, width, height)

    array = np.full((3000, 4000, 3), 200, np.uint8)
    monkeypatch.setattr(reader, "BLOCK_PX", 512**2)
    slide = Watched(array, 0.25)
    assert (slide.read(Box(0, 0, 4000, 3000), 8) == 200).all()
    assert 0 < largest <= 512**2


def test_coarse_reads_use_the_pyramid() -> None:
    read = []

    class Watched(MemorySlide):
        def _read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
            read.append(level)
            return super()._read_level(level, x, y, width, height)

    slide = Watched(np.zeros((640, 640, 3), np.uint8), 0.25, levels=(1, 4, 16))
    for mpp in (0.2, 0.25, 0.9, 1.0, 1.5, 4.0, 9.0):
        slide.read(Box(1, 1, 576, 576), mpp)
    assert read == [0, 0, 0, 1, 1, 2, 2]


def test_enormous_reduction_is_a_mean() -> None:
    array = np.zeros((1200, 1200, 3), np.uint8)
    array[:600] = 200
    pixels = MemorySlide(array, 0.25).read(Box(0, 0, 1200, 1200), 300)
    assert pixels.shape == (1, 1, 3)
    np.testing.assert_allclose(pixels, 100, atol=1)


def test_background_fills_what_was_not_scanned() -> None:
    slide = MemorySlide(np.zeros((10, 10, 3), np.uint8), 1.0, background=(10, 20, 30))
    assert (slide.read(Box(100, 100, 6, 6), 1.0) == (10, 20, 30)).all()
    assert (slide.read(Box(100.5, 100, 6, 6), 3.0) == (10, 20, 30)).all()


def test_a_cut_plane_leaves_no_seam_at_the_edge() -> None:
    # 103 px at 1/4 are 25.75: the plane has 25, the last 3 px of the slide are not on it.
    slide = MemorySlide(np.full((103, 103, 3), 80, np.uint8), 0.25, levels=(1, 4))
    assert slide.levels[1][:2] == (25, 25)
    assert (slide.read(Box(0, 0, 103, 103), 1.0) == 80).all()
    assert (slide.read(Box(0, 0, 104, 104), 1.0)[-1, -1] == round(255 - 175 * (3 / 4) ** 2)).all()
    assert (slide.thumbnail(25) == 80).all()


@pytest.mark.parametrize("shape", [(37, 53, 3), (200, 7, 1), (64, 64, 4), (3, 300, 3)])
@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 2), (3, 2), (1, 3), (7, 3)])
def test_mean_blocks_is_the_mean(shape: tuple[int, int, int], across: int, down: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(
        mean_blocks(pixels, across, down), exact_mean(pixels, across, down)
    )


def test_mean_blocks_of_many_and_of_views() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    np.testing.assert_array_equal(mean_blocks(pixels, 2), exact_mean(pixels, 2, 2))  # in strips
    view = pixels[3:203, 5:105:2]
    np.testing.assert_array_equal(mean_blocks(view, 2), exact_mean(view, 2, 2))
    white = np.full((600, 600, 3), 255, np.uint8)
    assert (mean_blocks(white, 300) == 255).all()  # sums need 32 bits
    huge = np.full((4200, 4200, 1), 255, np.uint8)
    assert mean_blocks(huge, 4200) == 255  # and these 64
    assert mean_blocks(white, 601).shape == (0, 0, 3)


def test_mean_blocks_cuts_what_does_not_fill_a_block() -> None:
    pixels = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    assert mean_blocks(pixels, 2).shape == (2, 2, 3)
    assert mean_blocks(pixels, 2)[0, 0, 0] == round((0 + 3 + 12 + 15) / 4)


def test_resample_of_whole_pixels_is_a_crop(noisy: np.ndarray) -> None:
    np.testing.assert_array_equal(resample(noisy, (5, 6, 25, 36), 20, 30), noisy[6:36, 5:25])


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"array": np.zeros((4, 4, 3))}, TypeError, "uint8"),
        ({"array": np.zeros((4, 4), np.uint8)}, ValueError, "height, width, 3"),
        ({"array": np.zeros((0, 4, 3), np.uint8)}, ValueError, "not empty"),
        ({"levels": (2, 4)}, ValueError, "levels must begin with 1"),
        ({"levels": (1, 5)}, ValueError, "stay within 4"),
        ({"mpp": 0.0}, ValueError, "mpp must be"),
        ({"mpp": (0.5, float("nan"))}, ValueError, "mpp must be"),
    ],
)
def test_memory_slide_refuses(change: dict, error: type[Exception], match: str) -> None:
    good = {"array": np.zeros((4, 4, 3), np.uint8), "mpp": 0.5}
    with pytest.raises(error, match=match):
        MemorySlide(**(good | change))
