"""What every slide backend promises, on one made-up slide that all of them hold."""

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from pathology.geometry import Box, Size, pixel_count
from pathology.slides import MemorySlide, Slide, open_slide
from pathology.slides.resample import mean_blocks

MPP = 0.25
DOWNSAMPLES = (1, 2, 4)
BACKENDS = {
    "memory": "MemorySlide",
    "openslide": "OpenSlideSlide",
    "tiff_strips": "TiffSlide",
    "tiff_ome": "TiffSlide",
}


def made_up_array() -> NDArray[np.uint8]:
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (32, 48, 3)).astype(np.float64)
    fine = np.kron(coarse, np.ones((16, 16, 1))) + rng.normal(0, 12, (512, 768, 3))
    return fine.clip(0, 255).astype(np.uint8)


def write_slide(backend: str, folder: Path) -> Path:
    planes = [mean_blocks(made_up_array(), n) for n in DOWNSAMPLES]
    path = folder / f"{backend}.{'ome.tif' if backend == 'tiff_ome' else 'tif'}"
    # 40 000 pixels per centimetre are 0.25 um each.
    options = {"photometric": "rgb", "compression": "zlib"}
    unit = {"resolutionunit": "CENTIMETER"}
    layout = {"rowsperstrip": 48} if backend == "tiff_strips" else {"tile": (128, 128)}
    with tifffile.TiffWriter(path) as tif:
        if backend == "tiff_ome":
            metadata = {"axes": "YXS", "PhysicalSizeX": MPP, "PhysicalSizeY": MPP}
            tif.write(planes[0], subifds=len(planes) - 1, metadata=metadata, **options, **layout)
            for plane in planes[1:]:
                tif.write(plane, subfiletype=1, **options, **layout)
        else:
            for n, plane in zip(DOWNSAMPLES, planes, strict=True):
                density = 1e4 / MPP / n
                tif.write(
                    plane,
                    resolution=(density, density),
                    subfiletype=int(n > 1),
                    metadata=None,
                    **unit,
                    **options,
                    **layout,
                )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slides")


@pytest.fixture(scope="module", params=BACKENDS)
def slide(request: pytest.FixtureRequest, folder: Path) -> Iterator[Slide]:
    if request.param == "memory":
        yield MemorySlide(made_up_array(), MPP, levels=DOWNSAMPLES)
    else:
        with open_slide(write_slide(request.param, folder)) as slide:
            assert type(slide).__name__ == BACKENDS[request.param]
            yield slide


@pytest.fixture(scope="module")
def reference() -> Slide:
    return MemorySlide(made_up_array(), MPP, levels=DOWNSAMPLES)


BOXES = [
    (Box(0, 0, 768, 512), 0.25),
    (Box(128, 64, 224, 224), 0.25),
    (Box(100.5, 64.25, 224, 224), 0.25),
    (Box(13.7, 21.1, 443.04, 443.04), 0.5),
    (Box(0, 0, 768, 512), 1.0),
    (Box(3, 5, 500, 400), 1.7),
    (Box(-40, -30, 100, 90), 0.25),
    (Box(700.3, 480.9, 100, 90), 0.4),
    (Box(2000, 2000, 100, 90), 0.5),
    (Box(10.3, 10.1, 30.7, 20.2), 0.1),
    (Box(0, 0, 768, 512), 50.0),
]


def test_is_a_slide(slide: Slide) -> None:
    assert isinstance(slide, Slide)
    assert slide.size == Size(768, 512)
    assert slide.mpp == pytest.approx((MPP, MPP))
    assert slide.bounds == Box(0, 0, 768, 512)
    assert slide.background == (255, 255, 255)
    assert slide.levels[0][:3] == (768, 512, 1.0)
    assert dict(slide.associated) == {}


@pytest.mark.parametrize(("box", "mpp"), BOXES)
def test_all_backends_give_the_same_pixels(
    slide: Slide, reference: Slide, box: Box, mpp: float
) -> None:
    pixels = slide.read(box, mpp)
    assert pixels.dtype == np.uint8
    height, width = pixel_count(box.height, MPP, mpp), pixel_count(box.width, MPP, mpp)
    assert pixels.shape == (height, width, 3)
    np.testing.assert_array_equal(pixels, reference.read(box, mpp))


def test_native_read_returns_the_stored_pixels(slide: Slide) -> None:
    box = Box(131, 57, 224, 200)
    np.testing.assert_array_equal(slide.read(box, slide.mpp.x), made_up_array()[57:257, 131:355])


def test_native_read_over_an_edge_is_background_outside(slide: Slide) -> None:
    pixels = slide.read(Box(-3, 500, 10, 20), slide.mpp.x)
    np.testing.assert_array_equal(pixels[:12, 3:], made_up_array()[500:, :7])
    assert (pixels[12:] == 255).all()
    assert (pixels[:, :3] == 255).all()


def test_thumbnail(slide: Slide) -> None:
    assert slide.thumbnail(96).shape == (64, 96, 3)
    assert slide.thumbnail(1).shape == (1, 1, 3)
    np.testing.assert_array_equal(slide.thumbnail(5000), made_up_array())


def test_pixels_may_be_written_or_fail_loudly(slide: Slide) -> None:
    before = slide.read(Box(0, 0, 16, 16), MPP)
    copy = before.copy()
    if before.flags.writeable:
        before[:] = 0
    np.testing.assert_array_equal(slide.read(Box(0, 0, 16, 16), MPP), copy)


def test_stamp_is_stable_and_tells_slides_apart(slide: Slide) -> None:
    assert slide.stamp() == slide.stamp()
    assert slide.stamp() != MemorySlide(made_up_array()[:500], MPP).stamp()


def test_pickles_after_reading(slide: Slide) -> None:
    box = Box(5.5, 6.5, 100, 100)
    expected = slide.read(box, 0.5)
    copy = pickle.loads(pickle.dumps(slide))
    np.testing.assert_array_equal(copy.read(box, 0.5), expected)
    assert copy.mpp == slide.mpp
    assert copy.stamp() == slide.stamp()
    copy.close()
    slide.read(box, 0.5)


def test_threads_read_the_same(slide: Slide) -> None:
    boxes = [Box(x, y, 90, 90) for x in range(0, 600, 60) for y in range(0, 400, 80)]
    expected = [slide.read(box, 0.4) for box in boxes]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda box: slide.read(box, 0.4), boxes))
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_forked_child_reads_the_same(slide: Slide) -> None:
    box = Box(5.5, 6.5, 100, 100)
    expected = slide.read(box, 0.5)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sending.send(slide.read(box, 0.5)))
    child.start()
    assert receiving.poll(20), "the child does not answer"
    np.testing.assert_array_equal(receiving.recv(), expected)
    child.join(20)
    assert child.exitcode == 0


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf")])
def test_refuses_an_impossible_mpp(slide: Slide, mpp: float) -> None:
    with pytest.raises(ValueError, match="mpp must be finite"):
        slide.read(Box(0, 0, 10, 10), mpp)


def test_reading_after_close_is_an_error(slide: Slide) -> None:
    copy = pickle.loads(pickle.dumps(slide))
    with copy:
        pass
    copy.close()
    with pytest.raises(ValueError, match="is closed"):
        copy.read(Box(0, 0, 10, 10), 0.5)
