"""Every kind of image file gives the same RGB pixels, or one line that says why not."""

import multiprocessing
import os
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from pathology.data import image_files
from pathology.data.image_files import array_length, image_size, is_array, read_image, split_name
from pathology.errors import ManifestError


@pytest.fixture
def pixels():
    """5 x 7 px of colours that differ everywhere."""
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def stack():
    """Four images of 6 x 8 px."""
    return np.random.default_rng(1).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def closed():
    """No array is open from another test."""
    yield
    for key in list(image_files._files.open):
        image_files._files.forget(key)


def refused(path, index=None):
    with pytest.raises(ManifestError) as error:
        read_image(path, index)
    assert "\n" not in str(error.value)
    assert str(split_name(path)[0]) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "bmp"])
def test_lossless_files_give_their_pixels(tmp_path, pixels, suffix):
    Image.fromarray(pixels).save(tmp_path / f"a b ü.{suffix}")
    read = read_image(tmp_path / f"a b ü.{suffix}")
    np.testing.assert_array_equal(read, pixels)
    assert read.dtype == np.uint8
    assert read.flags.writeable
    assert image_size(str(tmp_path / f"a b ü.{suffix}")) == (7, 5)


def test_a_suffix_in_capitals_or_a_wrong_one_does_not_matter(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "B.JPG")
    np.testing.assert_array_equal(read_image(tmp_path / "B.JPG"), pixels)


def test_grey_and_palette_and_one_bit_become_rgb(tmp_path):
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.dstack([grey] * 3))
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), np.dstack([grey] * 3))
    Image.fromarray(grey > 17).save(tmp_path / "bits.png")
    expected = np.where(grey > 17, 255, 0)[..., None] * np.ones(3, int)
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png"), expected)


def test_transparency_is_laid_on_white(tmp_path, pixels):
    alpha = np.full((5, 7), 255, np.uint8)
    alpha[0], alpha[1] = 0, 128
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert (read[0] == 255).all()
    np.testing.assert_array_equal(read[2:], pixels[2:])
    blend = (pixels[1] * 128.0 + 255 * 127.0) / 255
    # Pillow composites in integers: within one grey of the real number.
    assert np.abs(read[1] - blend).max() <= 1


def test_a_transparent_palette_colour_is_white_too(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[255] * 3, [40, 50, 60]]])


def test_an_image_that_is_transparent_everywhere_is_refused_rather_than_white(tmp_path, pixels):
    Image.fromarray(np.dstack([pixels, np.zeros((5, 7), np.uint8)])).save(tmp_path / "a.png")
    assert "every pixel is transparent" in refused(tmp_path / "a.png")


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.full((8, 8, 3), (255, 0, 0)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_size(tmp_path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.transpose(1, 0, 2), 6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read, upright)
    assert image_size(tmp_path / "a.png") == (read.shape[1], read.shape[0])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_greys_are_refused(tmp_path, dtype):
    Image.fromarray(np.ones((4, 4), dtype)).save(tmp_path / "a.tif")
    assert "8 bits a channel" in refused(tmp_path / "a.tif")


def test_deep_colours_are_refused(tmp_path):
    """12 bits in 16 would be read as nearly black."""
    values = np.full((4, 4, 3), 3000, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    assert "more than 8 bits" in refused(tmp_path / "a.tif")
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    written = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + written)
    assert "more than 8 bits" in refused(tmp_path / "a.png")


def test_broken_files_are_refused(tmp_path, pixels):
    assert "no such file" in refused(tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    assert "the file is empty" in refused(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello")
    assert "not a readable image" in refused(tmp_path / "text.png")
    assert "not a readable image" in refused(tmp_path)
    big = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.fromarray(big).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        assert "not a readable image" in refused(tmp_path / name)


def test_an_absurdly_large_image_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        import zlib

        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    assert "too large for one tile" in refused(tmp_path / "a.png")


def test_an_image_file_takes_no_index(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert "holds one image, got index 3" in refused(tmp_path / "a.png", 3)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", ""), pixels)


def write(path: Path, stack: np.ndarray) -> str:
    """``stack`` as an array file of the kind that its name says; returns the path to it."""
    if path.suffix == ".npy":
        np.save(path, stack)
    elif path.suffix == ".npz":
        save = np.savez_compressed if "packed" in path.name else np.savez
        save(path, other=np.zeros(3), images=stack)
        return f"{path}#images"
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=stack, chunks=(1, *stack.shape[1:]), compression="gzip")
            file.create_dataset("y", data=np.zeros((len(stack), 1, 1, 1), np.uint8))
    return str(path)


ARRAYS = ["a.npy", "a.npz", "packed.npz", "a.h5"]


@pytest.mark.parametrize("name", ARRAYS)
def test_rows_of_every_kind_of_array(tmp_path, stack, name):
    path = write(tmp_path / name, stack)
    for i in (3, 0, "2"):
        np.testing.assert_array_equal(read_image(path, i), stack[int(i)])
    assert image_size(path, 1) == (8, 6)
    assert array_length(path) == 4
    assert is_array(path)
    assert read_image(path, 0).flags.writeable


@pytest.mark.parametrize("name", ARRAYS)
def test_grey_and_transparent_rows_become_rgb(tmp_path, stack, name):
    grey = stack[..., 0]
    path = write(tmp_path / name, grey)
    np.testing.assert_array_equal(read_image(path, 1), np.dstack([grey[1]] * 3))
    path = write(tmp_path / f"1{name}", grey[..., None])
    np.testing.assert_array_equal(read_image(path, 1), np.dstack([grey[1]] * 3))
    clear = np.concatenate([stack, np.full((4, 6, 8, 1), 255, np.uint8)], 3)
    clear[:, 0, :, 3] = 0
    path = write(tmp_path / f"4{name}", clear)
    np.testing.assert_array_equal(read_image(path, 1)[1:], stack[1][1:])
    assert (read_image(path, 1)[0] == 255).all()


@pytest.mark.parametrize("index", [4, -1, None, "", "one", "1.5"])
def test_an_index_that_is_not_there_is_refused(tmp_path, stack, index):
    path = write(tmp_path / "a.npy", stack)
    assert "wanted one from 0 to 3" in refused(path, index)
    with pytest.raises(ManifestError, match="wanted one from 0 to 3"):
        image_size(path, index)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 6, 8, 3)), np.zeros((4, 6, 8, 3), np.uint16), np.zeros((4, 3, 6, 8), np.uint8),
        np.zeros((4, 6), np.uint8), np.zeros((0, 6, 8, 3), np.uint8),
    ],
)  # fmt: skip
def test_arrays_of_other_things_are_refused(tmp_path, name, array):
    path = tmp_path / name
    if name == "a.h5":
        with h5py.File(path, "w") as file:
            file["x"] = array
        path = str(path)
    else:
        path = write(path, array)
    assert f"{array.dtype} array of shape {array.shape}" in refused(path, 0)


def test_a_fortran_ordered_member_is_read_right(tmp_path, stack):
    np.savez(tmp_path / "a.npz", images=np.asfortranarray(stack))
    np.testing.assert_array_equal(read_image(tmp_path / "a.npz", 2), stack[2])


@pytest.mark.parametrize("name", ["a.npz", "packed.npz", "a.h5"])
def test_an_array_that_is_not_in_the_file_is_named(tmp_path, stack, name):
    path = write(tmp_path / name, stack).partition("#")[0]
    said = refused(f"{path}#nothing", 0)
    assert "no array is called 'nothing'" in said
    assert ("images" if name != "a.h5" else "x, y") in said


def test_several_arrays_and_no_name_is_refused(tmp_path, stack):
    path = write(tmp_path / "a.npz", stack).partition("#")[0]
    assert "one of other, images" in refused(path, 0)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["one"], file["two"] = stack, stack
    assert "no array is called 'x'; one of one, two" in refused(tmp_path / "b.h5", 0)


def test_a_file_with_one_array_needs_no_name(tmp_path, stack):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["tiles"] = stack
    np.testing.assert_array_equal(read_image(tmp_path / "a.h5", 1), stack[1])
    np.savez_compressed(tmp_path / "a.npz", stack)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npz", 1), stack[1])


@pytest.mark.parametrize("name", ARRAYS)
def test_broken_arrays_are_refused(tmp_path, stack, name):
    (tmp_path / name).touch()
    assert "the file is empty" in refused(tmp_path / name, 0)
    (tmp_path / name).write_bytes(b"hello" * 20)
    assert "not a readable array" in refused(tmp_path / name, 0)
    (tmp_path / name).unlink()
    assert "no such file" in refused(tmp_path / name, 0)


def test_pickles_are_not_unpacked(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    assert "not a readable array" in refused(tmp_path / "a.npy", 0)


def test_what_is_gzipped_as_a_whole_must_be_unpacked_first(tmp_path):
    (tmp_path / "camelyonpatch_level_2_split_train_x.h5.gz").write_bytes(b"\x1f\x8b")
    said = refused(tmp_path / "camelyonpatch_level_2_split_train_x.h5.gz")
    assert "unpack it first: gunzip -k" in said


def test_a_hash_in_a_file_name_is_just_a_name(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "slide#3.png")
    np.testing.assert_array_equal(read_image(tmp_path / "slide#3.png"), pixels)
    assert split_name("d/a.npz#train_images") == (Path("d/a.npz"), "train_images")
    assert split_name("d/slide#3.png") == (Path("d/slide#3.png"), "")


def test_a_compressed_member_is_unpacked_once_and_mapped(tmp_path, stack, monkeypatch):
    path = write(tmp_path / "packed.npz", stack)
    array = image_files._array(path)
    assert isinstance(array, np.memmap)
    copies = list(tmp_path.glob(".packed.npz.*/*.npy"))
    assert len(copies) == 1
    np.testing.assert_array_equal(np.load(copies[0]), stack)
    image_files._after_fork()  # as another process would begin
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked again"))
    np.testing.assert_array_equal(read_image(path, 3), stack[3])


def test_a_member_whose_name_leads_elsewhere_stays_here(tmp_path, stack):
    np.save(tmp_path / "rows.npy", stack)
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "rows.npy", "../../led/rows.npy")
    np.testing.assert_array_equal(read_image(tmp_path / "in" / "x.npz", 2), stack[2])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "rows.npy"]


def test_an_uncompressed_member_is_mapped_where_it_lies(tmp_path, stack):
    path = write(tmp_path / "a.npz", stack)
    assert isinstance(image_files._array(path), np.memmap)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_folder_that_cannot_be_written_is_passed_over(tmp_path, stack, monkeypatch):
    path = write(tmp_path / "packed.npz", stack)
    monkeypatch.setattr(image_files.tempfile, "gettempdir", lambda: str(tmp_path / "temp"))
    monkeypatch.setattr(image_files.os, "access", lambda *_: False)
    np.testing.assert_array_equal(read_image(path, 1), stack[1])
    assert len(list((tmp_path / "temp").rglob("*.npy"))) == 1
    assert not list(tmp_path.glob(".packed*"))


@pytest.mark.parametrize("name", ARRAYS)
def test_a_file_that_was_replaced_is_read_anew(tmp_path, stack, name):
    path = write(tmp_path / name, stack)
    np.testing.assert_array_equal(read_image(path, 1), stack[1])
    write(tmp_path / f"new_{name}", stack[::-1].copy())
    os.utime(tmp_path / f"new_{name}", ns=(1, 1))
    (tmp_path / f"new_{name}").replace(tmp_path / name)
    np.testing.assert_array_equal(read_image(path, 1), stack[2])


def test_few_files_stay_open(tmp_path, stack, monkeypatch):
    monkeypatch.setattr(image_files, "OPEN_FILES", 2)
    paths = [write(tmp_path / f"{i}.h5", stack + i) for i in range(5)]
    for path in [*paths, *paths[::-1]]:
        read_image(path, 0)
        assert len(image_files._files.open) <= 2
    kept = [key[0] for key in image_files._files.open]
    assert kept == [paths[1], paths[0]]


def _child(path: str, queue: "multiprocessing.Queue") -> None:
    queue.put([int(read_image(path, i).sum()) for i in range(4)])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_children_open_files_of_their_own(tmp_path, stack):
    path = write(tmp_path / "a.h5", stack)
    sums = [int(image.sum()) for image in stack]
    assert int(read_image(path, 0).sum()) == sums[0]  # the parent has it open
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_child, args=(path, queue)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in children:
        assert queue.get(timeout=60) == sums
    for child in children:
        child.join(60)
    assert int(read_image(path, 3).sum()) == sums[3]


def test_a_forked_child_forgets_what_its_parent_had_open(tmp_path, stack):
    write(tmp_path / "a.h5", stack)
    read_image(tmp_path / "a.h5", 0)
    before = image_files._files
    image_files._after_fork()
    assert image_files._files is not before
    assert not image_files._files.open
    for key in list(before.open):
        before.forget(key)


def test_threads_may_read_at_once(tmp_path, stack, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(image_files, "OPEN_FILES", 1)  # so that they close each other's files
    paths = [write(tmp_path / f"{i}.h5", stack) for i in range(3)]
    with ThreadPoolExecutor(4) as pool:
        reads = pool.map(lambda i: (i, read_image(paths[i % 3], i % 4)), range(200))
        for i, read in reads:
            np.testing.assert_array_equal(read, stack[i % 4])
