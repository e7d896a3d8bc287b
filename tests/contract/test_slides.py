"""What every slide backend promises, on one made-up slide that all of them hold."""

import importlib.util
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pathology.errors import SlideOpenError
from pathology.geometry import Box, Size, pixel_count
from pathology.slides import MemorySlide, Slide, open_slide

from .cucim_slide import BOXES as CUCIM_BOXES
from .slide_files import DOWNSAMPLES, MPP, in_memory, made_up_array, write


class Way(NamedTuple):
    """A container, the backend asked for, the class that must come of it, and what decodes it."""

    container: str
    backend: str
    made: str
    decoder: str = ""


WAYS = {
    "memory": Way("memory", "auto", "MemorySlide"),
    "openslide": Way("tiles", "openslide", "OpenSlideSlide", "openslide"),
    "openslide jpeg": Way("jpeg", "openslide", "OpenSlideSlide", "openslide"),
    "openslide aperio": Way("aperio", "openslide", "OpenSlideSlide", "openslide"),
    "direct": Way("jpeg", "auto", "OpenSlideSlide", "jpeg tiles"),
    "direct aperio": Way("aperio", "auto", "OpenSlideSlide", "jpeg tiles"),
    "tifffile": Way("tiles", "tifffile", "TiffSlide"),
    "tifffile jpeg": Way("jpeg", "tifffile", "TiffSlide"),
    "tifffile aperio": Way("aperio", "tifffile", "TiffSlide"),
    "strips": Way("strips", "auto", "TiffSlide"),
    "bigtiff": Way("bigtiff", "auto", "TiffSlide"),
    "ome": Way("ome", "auto", "TiffSlide"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("slides")
    suffixes = {"ome": "ome.tif", "aperio": "svs"}
    paths = {
        container: folder / f"{container}.{suffixes.get(container, 'tif')}"
        for container in ("tiles", "bare", "strips", "bigtiff", "ome", "jpeg", "aperio")
    }
    for container, path in paths.items():
        write(container, path)
    return paths


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


def opened(way: Way, files: dict[str, Path], **options) -> Slide:
    if way.container == "memory":
        return MemorySlide(made_up_array(), options.get("mpp", MPP), levels=DOWNSAMPLES)
    return open_slide(files[way.container], backend=way.backend, **options)


@pytest.fixture(scope="module")
def slide(way: Way, files: dict[str, Path]) -> Iterator[Slide]:
    with opened(way, files) as slide:
        assert type(slide).__name__ == way.made
        if way.decoder:
            assert all(each.startswith(way.decoder) for each in slide.decoders)
        yield slide


@pytest.fixture(scope="module")
def reference(way: Way, files: dict[str, Path]) -> Slide:
    return in_memory(way.container, files.get(way.container, Path()))


BOXES = [
    (Box(0, 0, 768, 512), 0.25),
    (Box(128, 64, 224, 224), 0.25),
    (Box(100.5, 64.25, 224, 224), 0.25),
    (Box(13.7, 21.1, 443.04, 443.04), 0.5),
    (Box(0, 0, 768, 512), 1.0),
    (Box(4, 8, 512, 256), 2.0),
    (Box(3, 5, 500, 400), 1.7),
    (Box(-40, -30, 100, 90), 0.25),
    (Box(-40, -30, 1000, 700), 1.0),
    (Box(700.3, 480.9, 100, 90), 0.4),
    (Box(2000, 2000, 100, 90), 0.5),
    (Box(10.3, 10.1, 30.7, 20.2), 0.1),
    (Box(0, 0, 768, 512), 50.0),
]


def test_is_a_slide(slide: Slide, way: Way) -> None:
    assert isinstance(slide, Slide)
    assert slide.size == Size(768, 512)
    assert slide.mpp == pytest.approx((MPP, MPP))
    assert slide.bounds == Box(0, 0, 768, 512)
    assert slide.background == (255, 255, 255)
    assert slide.colour == "stored"
    assert [level[:3] for level in slide.levels] == [(768 // n, 512 // n, n) for n in DOWNSAMPLES]
    thumbnail = way.container == "aperio" and way.made == "OpenSlideSlide"
    assert list(slide.associated) == ["thumbnail"] * thumbnail


def test_levels_tell_the_tiles_of_the_file(slide: Slide, way: Way) -> None:
    tile = None if way.container in ("memory", "strips", "bigtiff") else (128, 128)
    assert {level.tile for level in slide.levels} == {tile}


@pytest.mark.parametrize(("box", "mpp"), BOXES)
def test_all_backends_give_the_same_pixels(
    slide: Slide, reference: Slide, box: Box, mpp: float
) -> None:
    pixels = slide.read(box, mpp)
    assert pixels.dtype == np.uint8
    height, width = pixel_count(box.height, MPP, mpp), pixel_count(box.width, MPP, mpp)
    assert pixels.shape == (height, width, 3)
    np.testing.assert_array_equal(pixels, reference.read(box, mpp))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    x=st.floats(-200, 900),
    y=st.floats(-200, 600),
    width=st.floats(1, 300),
    height=st.floats(1, 300),
    mpp=st.floats(0.1, 20),
)
def test_any_box_at_any_mpp(
    slide: Slide, reference: Slide, x: float, y: float, width: float, height: float, mpp: float
) -> None:
    box = Box(x, y, width, height)
    np.testing.assert_array_equal(slide.read(box, mpp), reference.read(box, mpp))


def test_pixels_that_are_not_square(way: Way, files: dict[str, Path]) -> None:
    mpp = (0.25, 0.4)
    reference = in_memory(way.container, files.get(way.container, Path()), mpp)
    with opened(way, files, mpp=mpp) as slide:
        assert (slide.mpp, slide.mpp_source) == (mpp, "given")
        for box, at in ((Box(3, 5, 500, 400), 0.5), (Box(-10, 7.5, 300, 300), 0.31)):
            pixels = slide.read(box, at)
            assert pixels.shape[:2] == (round(box.height * 0.4 / at), round(box.width * 0.25 / at))
            np.testing.assert_array_equal(pixels, reference.read(box, at))


def test_rendered_to_any_sides(slide: Slide, reference: Slide) -> None:
    box = Box(10, 20.5, 300, 200)
    pixels = slide.render(box, 150, 50)
    assert pixels.shape == (50, 150, 3)
    np.testing.assert_array_equal(pixels, reference.render(box, 150, 50))
    np.testing.assert_array_equal(slide.render(box, 150, 100), slide.read(box, 2 * slide.mpp.x))
    with pytest.raises(ValueError, match="at least 1 px"):
        slide.render(box, 0, 10)


def test_native_read_returns_the_stored_pixels(slide: Slide, way: Way, reference: Slide) -> None:
    stored = made_up_array() if way.container not in ("jpeg", "aperio") else reference._planes[0]
    box = Box(131, 57, 224, 200)
    np.testing.assert_array_equal(slide.read(box, slide.mpp.x), stored[57:257, 131:355])
    pixels = slide.read(Box(-3, 500, 10, 20), slide.mpp.x)
    np.testing.assert_array_equal(pixels[:12, 3:], stored[500:, :7])
    assert (pixels[12:] == 255).all()
    assert (pixels[:, :3] == 255).all()


@pytest.mark.parametrize("container", ["jpeg", "aperio"])
def test_planes_whose_last_pixels_were_cut(tmp_path: Path, container: str) -> None:
    # Not by OpenSlide's own decoding: between pixels of such planes it interpolates.
    path = tmp_path / ("slide.svs" if container == "aperio" else "slide.tif")
    write(container, path, made_up_array()[:509, :763])
    with open_slide(path) as slide, open_slide(path, backend="tifffile") as other:
        assert all(each == "jpeg tiles" for each in slide.decoders)
        assert slide.levels[2].downsample == (
            4 if container == "aperio" else pytest.approx(4.011, 1e-3)
        )
        for box, mpp in (
            (Box(0, 0, 763, 509), 1.0),
            (Box(400.5, 300, 363, 209), 0.7),
            (Box(8, 8, 512, 256), 1.0),
        ):
            np.testing.assert_array_equal(other.read(box, mpp), slide.read(box, mpp))


def test_encoded_tiles_decode_to_what_is_read(slide: Slide, way: Way) -> None:
    whole = Box(256, 128, 128, 128)
    is_jpeg = way.container in ("jpeg", "aperio") and way.backend != "openslide"
    for n in DOWNSAMPLES:
        box, mpp = Box(128 * n, 0, 128 * n, 128 * n), n * slide.mpp.x
        encoded = slide.encoded(box, mpp)
        # The slide ends within the second tile of its coarsest level.
        assert (encoded is not None) == (is_jpeg and box.right <= 768)
        if encoded is not None:
            pixels = np.asarray(Image.open(io.BytesIO(encoded)))
            np.testing.assert_array_equal(pixels, slide.read(box, mpp))
    for box, mpp in (
        (Box(257, 128, 128, 128), 1),
        (Box(256, 128, 127, 128), 1),
        (Box(256, 128, 256, 128), 1),
        (Box(-128, 0, 128, 128), 1),
        (Box(768, 0, 128, 128), 1),
        (whole, 1.5),
    ):
        assert slide.encoded(box, mpp * slide.mpp.x) is None


def test_thumbnail(slide: Slide, reference: Slide) -> None:
    assert slide.thumbnail(1).shape == (1, 1, 3)
    np.testing.assert_array_equal(slide.thumbnail(96), reference.thumbnail(96))
    np.testing.assert_array_equal(slide.thumbnail(5000), reference.thumbnail(5000))
    assert slide.thumbnail(96).shape == (64, 96, 3)


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
    with pytest.raises(ValueError, match="is closed"):
        copy.encoded(Box(0, 0, 10, 10), 0.5)


needs_cucim = pytest.mark.skipif(
    importlib.util.find_spec("cucim") is None, reason="cuCIM is not installed"
)


@needs_cucim
def test_cucim_gives_the_same_pixels(files: dict[str, Path], tmp_path: Path) -> None:
    # In a process of its own: after torch, which these tests have imported, it must not be loaded.
    script = Path(__file__).with_name("cucim_slide.py")
    predictor = tmp_path / "predictor.tif"
    options = {"tile": (128, 128), "compression": "zlib", "predictor": True, "photometric": "rgb"}
    tifffile.imwrite(predictor, made_up_array(), resolution=(4e4, 4e4), resolutionunit=3, **options)
    paths = [files[name] for name in ("bare", "tiles", "jpeg", "aperio")] + [predictor]
    path = os.pathsep.join([str(script.parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(script), str(tmp_path), *map(str, paths)]
    subprocess.run(command, check=True, timeout=60, env=os.environ | {"PYTHONPATH": path})
    reference = in_memory("tiles", files["tiles"])
    with np.load(tmp_path / "reads.npz") as reads:
        assert reads["bare/auto"] == "CucimSlide"
        for name in ("bare", "tiles"):
            for i, (box, mpp) in enumerate(CUCIM_BOXES):
                np.testing.assert_array_equal(reads[f"{name}/{i}"], reference.read(box, mpp))
        # It returns noise for damaged JPEG tiles, and a predictor kills the process.
        for name in ("jpeg", "aperio", "predictor"):
            assert "cannot be read by cuCIM" in str(reads[f"{name}/refused"])
        for name in ("tiles", "jpeg", "aperio", "predictor"):
            assert reads[f"{name}/auto"] == "OpenSlideSlide"
    # Here, where it must not be loaded, a slide that was pickled there is read all the same.
    with pickle.loads((tmp_path / "bare.pickle").read_bytes()) as slide:
        box, mpp = CUCIM_BOXES[2]
        np.testing.assert_array_equal(slide.read(box, mpp), reference.read(box, mpp))
        assert slide._cucim() is None


def test_cucim_that_cannot_be_had_is_told(files: dict[str, Path]) -> None:
    # Not installed, or installed and come too late, since torch is here already.
    with pytest.raises(SlideOpenError, match=r"by cuCIM: .*(not installed|torch)"):
        open_slide(files["bare"], backend="cucim")
    with open_slide(files["bare"]) as slide:
        assert type(slide).__name__ == "OpenSlideSlide"
