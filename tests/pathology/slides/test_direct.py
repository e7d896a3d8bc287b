"""JPEG tiles decoded without OpenSlide: its pixels, its errors, its turn where there is doubt."""

import io
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image

from pathology.errors import SlideOpenError
from pathology.geometry import Box
from pathology.slides import Slide, direct, open_slide
from pathology.slides.jpeg_tiles import JpegTiles
from pathology.slides.openslide import OpenSlideSlide
from pathology.slides.tile_cache import DECODED
from tests.pathology.slides.jpeg_slides import (
    MPP,
    leave_out,
    overwrite,
    stored_tile,
    tissue,
    write_slide,
)

HEIGHT, WIDTH = 704, 900  # whole at a quarter, not at the tiles' sides
VARIANTS: dict[str, dict[str, Any]] = {
    "aperio": {"side": 240},
    "aperio_rgb": {"side": 240, "colours": "RGB"},
    "own_tables": {"shared": False},
    "rgb_own_tables": {"colours": "RGB", "shared": False, "aperio": False},
    "444": {"subsampling": "444", "side": 128},
    "422": {"subsampling": "422"},
    "bigtiff": {"bigtiff": True, "side": 240, "aperio": False},
}
JPEG = "jpeg tiles"


@pytest.fixture(scope="module")
def array() -> np.ndarray:
    return tissue(HEIGHT, WIDTH)


@pytest.fixture(scope="module", params=VARIANTS)
def path(
    request: pytest.FixtureRequest, array: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("direct")
    return write_slide(folder / f"{request.param}.svs", array, **VARIANTS[request.param])


@pytest.fixture
def aperio(array: np.ndarray, tmp_path: Path) -> Path:
    return write_slide(tmp_path / "aperio.svs", array)


def assert_same(slide: Slide, other: Slide, box: Box, mpp: float) -> None:
    np.testing.assert_array_equal(slide.read(box, mpp), other.read(box, mpp))


BOXES = [
    (Box(0, 0, WIDTH, HEIGHT), MPP),
    (Box(256, 256, 256, 256), MPP),
    (Box(131, 77, 224, 200), MPP),
    (Box(800, 600, 224, 224), MPP),
    (Box(-30, -20, 100, 90), MPP),
    (Box(131, 77, 300, 300), 2 * MPP),
    (Box(131.5, 77.25, 300, 300), 2 * MPP),
    (Box(0, 0, WIDTH, HEIGHT), 4 * MPP),
    (Box(40, 80, 400, 400), 4 * MPP),
    (Box(3, 5, 700, 500), 1.7),
    (Box(10.3, 10.1, 30.7, 20.2), 0.1),
]


@pytest.mark.parametrize(("box", "mpp"), BOXES)
def test_pixels_are_openslides(path: Path, box: Box, mpp: float) -> None:
    with open_slide(path) as slide, open_slide(path, backend="openslide") as reference:
        assert slide.decoders == [JPEG, JPEG]
        assert all(decoder.startswith("openslide") for decoder in reference.decoders)
        assert_same(slide, reference, box, mpp)


def test_levels_know_the_tiles(path: Path) -> None:
    side = VARIANTS[path.stem].get("side", 256)
    with open_slide(path) as slide:
        assert [level.tile for level in slide.levels] == [(side, side)] * 2


def test_an_encoded_tile_is_what_is_read(path: Path) -> None:
    side = VARIANTS[path.stem].get("side", 256)
    with open_slide(path) as slide:
        box = Box(side, side, side, side)
        pixels, jpeg = slide.read(box, MPP), slide.encoded(box, MPP)
    assert jpeg is not None
    with Image.open(io.BytesIO(jpeg)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        np.testing.assert_array_equal(np.asarray(image), pixels)
    np.testing.assert_array_equal(simplejpeg.decode_jpeg(jpeg), pixels)


def test_encoded_tiles_of_coarser_planes(array: np.ndarray, tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "slide.svs", array, side=64)) as slide:
        box = Box(4 * 64, 4 * 64, 4 * 64, 4 * 64)
        jpeg = slide.encoded(box, 4 * MPP)
        assert jpeg is not None
        np.testing.assert_array_equal(simplejpeg.decode_jpeg(jpeg), slide.read(box, 4 * MPP))


@pytest.mark.parametrize(
    ("box", "mpp"),
    [
        (Box(1, 0, 256, 256), MPP),  # between tiles
        (Box(0.5, 0, 256, 256), MPP),
        (Box(0, 0, 255, 256), MPP),  # not all of one
        (Box(0, 0, 512, 256), MPP),  # more than one
        (Box(0, 0, 512, 512), 2 * MPP),  # no such plane
        (Box(768, 0, 256, 256), MPP),  # over the edge, where a tile goes on and the slide does not
        (Box(-256, 0, 256, 256), MPP),
        (Box(5120, 5120, 256, 256), MPP),
    ],
)
def test_nothing_else_is_handed_out_encoded(aperio: Path, box: Box, mpp: float) -> None:
    with open_slide(aperio) as slide:
        assert slide.encoded(box, mpp) is None


def test_encoded_is_refused_like_a_read(aperio: Path) -> None:
    slide, box = open_slide(aperio), Box(0, 0, 256, 256)
    with open_slide(aperio, backend="openslide") as reference:
        assert reference.encoded(box, MPP) is None
    with pytest.raises(ValueError, match="mpp must be finite"):
        slide.encoded(box, 0)
    slide.close()
    with pytest.raises(ValueError, match="is closed"):
        slide.encoded(box, MPP)


# What is not decoded directly.


def test_jpeg_2000_is_left_to_openslide(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "slide.svs"
    description = f"Aperio Image Library v12\r\n|AppMag = 40|MPP = {MPP}"
    options = {"photometric": "rgb", "description": description, "metadata": None}
    tifffile.imwrite(path, array, tile=(256, 256), compression="aperio_jp2000_rgb", **options)
    with open_slide(path) as slide:
        assert slide.decoders == ["openslide (no JPEG in colours: APERIO_JP2000_RGB)"]
        assert slide.encoded(Box(0, 0, 256, 256), MPP) is None
        assert slide.read(Box(0, 0, 256, 256), MPP).shape == (256, 256, 3)


def test_colours_that_readers_disagree_on_are_openslides(tmp_path: Path, array: np.ndarray) -> None:
    # The page says RGB, the tiles' JFIF header YCbCr: OpenSlide believes the page.
    path = write_slide(tmp_path / "slide.svs", array, shared=False, photometric="rgb")
    with open_slide(path) as slide, open_slide(path, backend="openslide") as reference:
        assert "differs from OpenSlide" in slide.decoders[0]
        assert_same(slide, reference, Box(0, 0, WIDTH, HEIGHT), MPP)


def test_two_pages_of_one_size_are_openslides(tmp_path: Path, array: np.ndarray) -> None:
    path = write_slide(tmp_path / "slide.tif", array, downs=(1, 1), aperio=False)
    with open_slide(path, backend="auto") as slide:
        assert slide.decoders[0] == "openslide (2 tiled pages of its size)"


def test_a_grey_level_apart_is_openslides(aperio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = JpegTiles.decode
    monkeypatch.setattr(JpegTiles, "decode", lambda tiles, data: decode(tiles, data) ^ 1)
    with open_slide(aperio) as slide, open_slide(aperio, backend="openslide") as reference:
        assert slide.decoders[0].startswith("openslide (differs from OpenSlide by 1 grey levels")
        assert_same(slide, reference, Box(10, 10, 300, 300), MPP)


def test_what_was_compared_once_is_not_compared_again(
    aperio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(aperio) as slide:
        assert slide.decoders == [JPEG, JPEG]
    monkeypatch.setattr(direct, "_difference", None)
    with open_slide(aperio) as slide:
        assert slide.decoders == [JPEG, JPEG]
    os.utime(aperio, ns=(1, 1))  # now it may be another
    with open_slide(aperio) as slide, pytest.raises(TypeError):
        slide.decoders  # noqa: B018


# Planes that OpenSlide shows between their pixels only.


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A slide whose level 1 is its level 0 by 4, cut: OpenSlide's factor is not whole."""
    return write_slide(tmp_path / "cut.svs", tissue(1403, 1802), side=128)


def test_whole_pixels_of_a_cut_plane_are_the_stored_ones(cut: Path) -> None:
    with tifffile.TiffFile(cut) as tif:
        plane = tif.pages[1].asarray()
    with open_slide(cut) as slide, open_slide(cut, backend="openslide") as reference:
        assert slide.decoders == [JPEG, JPEG]
        assert slide.levels[1][:3] == (450, 350, 4.0)
        box = Box(4 * 301, 4 * 205, 4 * 120, 4 * 110)
        pixels = slide.read(box, 4 * MPP)
        np.testing.assert_array_equal(pixels, plane[205:315, 301:421])
        # OpenSlide interpolates, and what it gives is interpolated back.
        assert 0 < np.abs(reference.read(box, 4 * MPP).astype(int) - pixels).mean() < 8


def test_a_tile_left_out_of_a_cut_plane_stays_in_place(cut: Path) -> None:
    with open_slide(cut) as slide:
        box = Box(4 * 260, 4 * 140, 4 * 120, 4 * 110)
        expected = slide.read(box, 4 * MPP).astype(int)
    leave_out(cut, 0, level=1)  # none that is read below: that is OpenSlide's whole read
    with open_slide(cut) as slide:
        np.testing.assert_array_equal(slide.read(box, 4 * MPP), expected)
        wide = slide.read(Box(0, 0, 4 * 380, 4 * 250), 4 * MPP)
        inner = wide[140:, 260:].astype(int)
        moved = [np.abs(np.roll(inner, n, 1) - expected)[2:-2, 2:-2].mean() for n in (-1, 0, 1)]
    assert np.argmin(moved) == 1
    assert moved[1] < 0.25 * min(moved[0], moved[2])


# Damage.


def damage(path: Path, kind: str, index: int = 5, seed: int = 0) -> None:
    offset, count = stored_tile(path, index)
    middle = offset + count // 2
    if kind == "a byte":
        byte = path.read_bytes()[middle]
        overwrite(path, middle, bytes([byte ^ 0x55]))
    elif kind == "some noise":
        overwrite(path, middle, np.random.default_rng(seed).bytes(99).replace(b"\xff", b"\xfe"))
    elif kind == "the rest is zero":
        overwrite(path, middle, bytes(count - count // 2))
    elif kind == "noise":
        overwrite(path, offset, np.random.default_rng(0).bytes(count))
    else:
        overwrite(path, offset + count - 2, b"\0\0")  # no end


@pytest.mark.parametrize("kind", ["the rest is zero", "noise"])
def test_a_damaged_tile_is_an_error_that_says_where(
    aperio: Path, array: np.ndarray, kind: str
) -> None:
    with open_slide(aperio) as slide:
        whole = slide.read(Box(0, 0, WIDTH, HEIGHT), MPP)
    damage(aperio, kind)  # the second of the second row
    with open_slide(aperio) as slide:
        assert slide.decoders[1] == JPEG
        for _ in range(2):
            with pytest.raises(SlideOpenError, match=r"level 0 at \(300, 300\)"):
                slide.read(Box(300, 300, 50, 50), MPP)
            assert slide.encoded(Box(256, 256, 256, 256), MPP) is None
            with pytest.raises(SlideOpenError):
                slide.read(Box(0, 0, WIDTH, HEIGHT), MPP)
            # The others are as before.
            np.testing.assert_array_equal(slide.read(Box(0, 0, 256, HEIGHT), MPP), whole[:, :256])


def outcome(slide: Slide) -> np.ndarray | str:
    """Pixels, or the error."""
    try:
        return slide.read(Box(0, 0, WIDTH, HEIGHT), MPP)
    except SlideOpenError as error:
        return str(error)


def test_what_openslide_forgives_is_forgiven_and_nothing_else(
    array: np.ndarray, tmp_path: Path
) -> None:
    # Some noise puts the decoder out of step: whether it is told by the end is a matter of luck.
    errors = 0
    kinds = [*["some noise"] * 4, "a byte", "no end", "noise", "the rest is zero"]
    for seed, kind in enumerate(kinds):
        path = write_slide(tmp_path / f"{seed}.svs", array)
        damage(path, kind, seed=seed)
        with open_slide(path) as slide, open_slide(path, backend="openslide") as reference:
            got, wanted = outcome(slide), outcome(reference)
        np.testing.assert_array_equal(got, wanted)
        errors += isinstance(wanted, str)
    assert 2 <= errors < len(kinds)


@pytest.mark.parametrize("index", [0, 5])
@pytest.mark.parametrize("is_aperio", [True, False])
def test_a_tile_left_out_is_what_openslide_says(
    array: np.ndarray, tmp_path: Path, index: int, is_aperio: bool
) -> None:
    path = write_slide(tmp_path / "gap.tif", array, aperio=is_aperio)
    leave_out(path, index)
    with open_slide(path) as slide, open_slide(path, backend="openslide") as reference:
        assert slide.decoders[0] == JPEG
        # Of Aperio's slides OpenSlide leaves out what coarser levels show of a gap.
        assert ("left out" in slide.decoders[1]) == is_aperio
        assert_same(slide, reference, Box(0, 0, WIDTH, HEIGHT), 4 * MPP)
        for box in (Box(0, 0, WIDTH, HEIGHT), Box(10, 10, 100, 100), Box(256, 256, 256, 256)):
            assert_same(slide, reference, box, MPP)


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_slide_cut_short_is_an_error(aperio: Path, tmp_path: Path, keep: float) -> None:
    content = aperio.read_bytes()
    short = tmp_path / "short.svs"
    short.write_bytes(content[: int(len(content) * keep)])

    def read_all() -> None:
        with open_slide(short) as slide:
            slide.read(Box(0, 0, WIDTH, HEIGHT), MPP)
            slide.read(Box(0, 0, WIDTH, HEIGHT), 4 * MPP)

    with pytest.raises(SlideOpenError):
        read_all()


def test_damage_in_a_tile_that_is_compared_spoils_nothing_else(aperio: Path) -> None:
    with open_slide(aperio) as slide:
        expected = slide.read(Box(256, 256, 300, 300), MPP)
    damage(aperio, "the rest is zero", index=0)
    with open_slide(aperio) as slide:
        assert slide.decoders == [JPEG, JPEG]
        np.testing.assert_array_equal(slide.read(Box(256, 256, 300, 300), MPP), expected)


# Processes, threads, memory.


def test_pickles_and_forgets_the_file(aperio: Path) -> None:
    with open_slide(aperio) as slide:
        expected = slide.read(Box(5, 6, 300, 300), MPP)
        small = pickle.dumps(slide)
        assert len(small) < 20_000
        with pickle.loads(small) as copy:
            assert copy.decoders == [JPEG, JPEG]
            np.testing.assert_array_equal(copy.read(Box(5, 6, 300, 300), MPP), expected)
    with open_slide(aperio, backend="openslide") as slide:
        copy = pickle.loads(pickle.dumps(slide))
        assert copy.decoders == slide.decoders


def test_threads_read_the_same(aperio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DECODED, "most_bytes", 4 * 3 * 256**2)  # tiles come and go
    boxes = [Box(x, y, 200, 150) for x in range(0, 700, 70) for y in range(0, 550, 110)]
    with open_slide(aperio) as slide, ThreadPoolExecutor(8) as pool:
        expected = [slide.read(box, MPP) for box in boxes]
        for one, other in zip(
            pool.map(lambda box: slide.read(box, MPP), boxes * 2), expected * 2, strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("held", [False, True])
def test_a_forked_child_reads_the_same(aperio: Path, held: bool) -> None:
    box = Box(5, 6, 300, 300)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    with open_slide(aperio) as slide:
        expected = slide.read(box, MPP)
        child = context.Process(target=lambda: sending.send((slide.read(box, MPP), DECODED.bytes)))
        lock = DECODED._lock
        if held:  # as another thread may, at that very moment
            lock.acquire()
        child.start()
        if held:
            lock.release()
        assert receiving.poll(20), "the child does not answer"
        pixels, held_bytes = receiving.recv()
        child.join(20)
    np.testing.assert_array_equal(pixels, expected)
    assert held_bytes == 4 * 3 * 256**2
    assert child.exitcode == 0


def test_a_tile_is_decoded_once_for_a_read(aperio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, decoded = JpegTiles.decode, []

    def counted(tiles: JpegTiles, data: bytes) -> np.ndarray:
        decoded.append(data)
        return decode(tiles, data)

    with open_slide(aperio) as slide:
        assert slide.decoders == [JPEG, JPEG]
        DECODED.clear()
        monkeypatch.setattr(JpegTiles, "decode", counted)
        monkeypatch.setattr(DECODED, "most_bytes", 1)
        slide.read(Box(0, 0, WIDTH, HEIGHT), MPP)
        assert len(decoded) == 4 * 3
        monkeypatch.setattr(DECODED, "most_bytes", 64 * 2**20)
        slide.read(Box(0, 0, WIDTH, HEIGHT), 2 * MPP)
        slide.read(Box(0, 0, WIDTH, HEIGHT), 2 * MPP)  # from memory
        assert len(decoded) == 4 * 3 + 4 * 3 - 1


def test_memory_stays_bounded_over_many_slides(
    array: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 5 * 3 * 256**2
    monkeypatch.setattr(DECODED, "most_bytes", most)
    slides = [open_slide(write_slide(tmp_path / f"{i}.svs", array, downs=(1,))) for i in range(4)]
    for slide in slides:
        slide.read(Box(0, 0, WIDTH, HEIGHT), MPP)
        assert DECODED.bytes <= most
    for slide in slides:
        slide.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count open files")
def test_open_files_do_not_pile_up(aperio: Path) -> None:
    def opened() -> int:
        return sum(
            entry.readlink() == aperio
            for entry in Path("/proc/self/fd").iterdir()
            if entry.exists()
        )

    slides = [open_slide(aperio) for _ in range(5)]
    for slide in slides:
        for x in range(0, 700, 100):
            slide.read(Box(x, 0, 224, 224), MPP)
    assert opened() <= 5
    for slide in slides:
        slide.close()
    assert opened() == 0


def test_openslide_can_be_forced(aperio: Path) -> None:
    with OpenSlideSlide(aperio, direct=False) as slide:
        assert slide.decoders == ["openslide (not to be read directly)"] * 2
