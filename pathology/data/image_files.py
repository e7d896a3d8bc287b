"""One image out of a file: PNG, JPEG and TIFF, or a row of an HDF5, NPZ or NPY array of images.

Rows are read where they lie. HDF5 files stay open, a few per process; NPY arrays and uncompressed
NPZ members are mapped into memory. A compressed NPZ member cannot be entered in the middle: it is
unpacked once, beside its file or in the system's temporary folder, and mapped from there, so that
many reading processes share its pages rather than hold a copy each.
"""

import hashlib
import os
import tempfile
import threading
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pathology.errors import ManifestError
from pathology.outputs import complete_file

if TYPE_CHECKING:
    import h5py

ARRAY_SUFFIXES = (".h5", ".hdf5", ".npz", ".npy")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
OPEN_FILES = 16  # arrays kept open by a process
_CHANNELS = (1, 3, 4)
# What is left to a person, because it takes a choice of grey window.
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112  # the EXIF tag
_SIDEWAYS = (5, 6, 7, 8)


def read_image(path: str | Path, index: int | str | None = None) -> NDArray[np.uint8]:
    """Read one image as RGB.

    Transparency is laid on white, EXIF orientation is applied, palettes, greys and CMYK become RGB.

    Args:
        path: an image file; or an array file, ``images.npz#train_images`` where it holds several
            arrays (of HDF5, ``x`` is taken when none is named).
        index: place in the array file, from 0; ``None`` or ``""`` for an image file.

    Returns:
        Pixels ``(h, w, 3)``, owned by the caller.

    Raises:
        ManifestError: unreadable, no such array or place, or pixels that are not eight bits deep.
    """
    if is_array(path):
        return _as_rgb(path, _row(path, index))
    _no_index(path, index)
    with _opened(path) as image:
        return np.array(_upright_rgb(path, image))


def image_size(path: str | Path, index: int | str | None = None) -> tuple[int, int]:
    """(width, height) of what :func:`read_image` returns, from the file's header where it can be.

    A PNG is decoded: its orientation may stand behind its pixels.

    Raises:
        ManifestError: as there.
    """
    if is_array(path):
        height, width = _checked(path, _array(path)).shape[1:3]
        _place(path, index, array_length(path))
        return int(width), int(height)
    _no_index(path, index)
    with _opened(path) as image:
        width, height = image.size
        try:
            sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
        except (OSError, SyntaxError, ValueError) as error:
            raise ManifestError(f"{path}: not a readable image: {error}") from error
        return (height, width) if sideways else (width, height)


def array_length(path: str | Path) -> int:
    """How many images an array file holds.

    Raises:
        ManifestError: unreadable, or not an array of images.
    """
    return int(_checked(path, _array(path)).shape[0])


def is_array(path: str | Path) -> bool:
    """Whether ``path`` names an array of images rather than one image."""
    return split_name(path)[0].suffix.lower() in ARRAY_SUFFIXES


def split_name(path: str | Path) -> tuple[Path, str]:
    """``images.npz#train_images`` as file and array name; the name is empty where none is given."""
    file, mark, name = str(path).rpartition("#")
    if mark and Path(file).suffix.lower() in ARRAY_SUFFIXES:
        return Path(file), name
    return Path(path), ""


def _no_index(path: str | Path, index: int | str | None) -> None:
    if index not in (None, ""):
        raise ManifestError(
            f"{path}: holds one image, got index {index!r}; an index is for array files"
            f" ({', '.join(ARRAY_SUFFIXES)})"
        )


def _opened(path: str | Path) -> Image.Image:
    """The image file, its pixels not decoded yet."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes[-2:]]
    if suffixes[-1:] == [".gz"]:
        raise ManifestError(f"{path}: is compressed as a whole; unpack it first: gunzip -k {path}")
    try:
        with warnings.catch_warnings():
            # Its limit is for pictures from strangers; truly absurd sizes are still an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise ManifestError(f"{path}: not a readable image: {_why(path, error)}") from error
    except Image.DecompressionBombError as error:
        raise ManifestError(
            f"{path}: too large for one tile ({error}); read it as a slide instead"
        ) from error


def _why(path: str | Path, error: Exception) -> str:
    """What PIL said, or what it would say were it to look."""
    file = Path(path)
    if not file.is_file():
        return "no such file"
    if file.stat().st_size == 0:
        return "the file is empty"
    return str(error)


def _upright_rgb(path: str | Path, image: Image.Image) -> Image.Image:
    # PIL reads colours of 16 bits as their upper 8, which may be next to black.
    stored = str(getattr(image, "tile", ""))
    if image.mode in _DEEP_MODES or ";16" in stored:
        raise ManifestError(
            f"{path}: {image.mode!r} pixels of more than 8 bits, wanted 8 bits a channel; convert"
            " it first, with the range of values that you want to keep"
        )
    try:
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema()[1] == 0:
                raise ManifestError(
                    f"{path}: every pixel is transparent; save it without the alpha channel"
                )
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        return image.convert("RGB")
    # SyntaxError and struct.error are what PIL raises on some broken PNG and TIFF.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ManifestError(f"{path}: not a readable image: {error}") from error


def _place(path: str | Path, index: int | str | None, length: int) -> int:
    try:
        place = int(index) if index is not None else -1
    except ValueError:
        place = -1
    if not 0 <= place < length:
        raise ManifestError(
            f"{path}: no image at index {index!r}; wanted one from 0 to {length - 1}"
        )
    return place


def _row(path: str | Path, index: int | str | None) -> NDArray[Any]:
    try:
        with _files.lock:  # another thread may close the file between finding and reading it
            array = _checked(path, _array(path))
            place = _place(path, index, len(array))
            return np.asarray(array[place])
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: image {index} cannot be read: {error}") from error


def _checked(path: str | Path, array: Any) -> Any:
    """``array`` when it is one of images: uint8, (n, h, w) or (n, h, w, channels)."""
    shape = tuple(array.shape)
    is_images = len(shape) == 3 or (len(shape) == 4 and shape[3] in _CHANNELS)
    if not is_images or array.dtype != np.uint8 or 0 in shape:
        raise ManifestError(
            f"{path}: {array.dtype} array of shape {shape}; wanted images as uint8,"
            " (n, height, width) or (n, height, width, 1, 3 or 4)"
        )
    return array


def _as_rgb(path: str | Path, row: NDArray[Any]) -> NDArray[np.uint8]:
    if row.ndim == 3 and row.shape[2] == 3:
        return np.array(row)
    mode = Image.fromarray(row[..., 0] if row.ndim == 3 and row.shape[2] == 1 else row)
    return np.array(_upright_rgb(path, mode))


class _Files:
    """Arrays that this process has open, the least used closed first."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.open: OrderedDict[tuple[str, str], tuple[tuple[int, int], Any, Any]] = OrderedDict()

    def array(self, path: Path, name: str) -> Any:
        key = (str(path), name)
        try:
            stat = path.stat()
        except OSError as error:
            raise ManifestError(f"{path}: not a readable array: no such file") from error
        stamp = (stat.st_size, stat.st_mtime_ns)
        with self.lock:
            if key in self.open and self.open[key][0] == stamp:
                self.open.move_to_end(key)
                return self.open[key][1]
            self.forget(key)
            array, handle = _open_array(path, name)
            self.open[key] = (stamp, array, handle)
            while len(self.open) > OPEN_FILES:
                self.forget(next(iter(self.open)))
            return array

    def forget(self, key: tuple[str, str]) -> None:
        _, _, handle = self.open.pop(key, (None, None, None))
        if handle is not None:
            handle.close()


_files = _Files()


def _after_fork() -> None:
    """A child's reads would move its parent's place in the file, and its lock may be held."""
    global _files
    _files = _Files()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _array(path: str | Path) -> Any:
    return _files.array(*split_name(path))


def _open_array(path: Path, name: str) -> tuple[Any, "h5py.File | None"]:
    """An array to be read row by row, and what to close when it is no longer needed."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False), None
        if suffix == ".npz":
            return _npz_member(path, name), None
        return _hdf5(path, name)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ManifestError(f"{path}: not a readable array: {_why(path, error)}") from error


def open_hdf5(path: Path) -> "h5py.File":
    """An HDF5 file to read, on disks that cannot lock files too.

    Raises:
        OSError: unreadable.
    """
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        # Not always without a lock: HDF5 refuses a file that is open with one elsewhere.
        if "lock" not in str(error):
            raise
        return h5py.File(path, "r", locking=False)


def _hdf5(path: Path, name: str) -> tuple[Any, "h5py.File"]:
    import h5py

    file = open_hdf5(path)
    names = [key for key, value in file.items() if isinstance(value, h5py.Dataset)]
    wanted = name or ("x" if "x" in names or len(names) != 1 else names[0])
    if not isinstance(file.get(wanted), h5py.Dataset):
        file.close()
        raise _no_array(path, wanted, names)
    return file[wanted], file


def _no_array(path: Path, name: str, names: list[str]) -> ManifestError:
    return ManifestError(
        f"{path}: no array is called {name!r}; one of {', '.join(names) or 'none'}, written as"
        f" {path.name}#NAME"
    )


def _npz_member(path: Path, name: str) -> NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]
        wanted = name or (names[0] if len(names) == 1 else "")
        if wanted not in names:
            raise _no_array(path, wanted, names)
        member = archive.getinfo(f"{wanted}.npy")
        if member.compress_type == zipfile.ZIP_STORED:
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }.get(version)
                if read is not None:
                    shape, fortran, dtype = read(stream)
                    start = _data_start(path, member) + stream.tell()
                    return np.memmap(
                        path, dtype, "r", offset=start, shape=shape, order="F" if fortran else "C"
                    )
        return np.load(_unpacked(path, archive, member), mmap_mode="r", allow_pickle=False)


def _data_start(path: Path, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header, whose extra field is its own."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(30)
    name, extra = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    return member.header_offset + 30 + name + extra


def _unpacked(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Path:
    """The member as a file of its own, unpacked unless it was before."""
    stat = path.stat()
    # Named by what was unpacked, so that a new version of the file is never taken for the old one.
    stamp = hashlib.sha256(
        f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()
    ).hexdigest()[:16]
    beside = path.parent / f".{path.name}.{stamp}"
    folder = f"pathology-{os.getuid()}" if hasattr(os, "getuid") else "pathology"
    shared = Path(tempfile.gettempdir()) / folder / beside.name[1:]
    # Not its own name, which may lead out of the folder.
    name = f"{member.header_offset}.npy"
    for copy in (beside, shared):
        if (copy / name).is_file():
            return copy / name
    home = beside if os.access(path.parent, os.W_OK) else shared
    with (
        complete_file(home / name) as draft,
        archive.open(member) as packed,
        draft.open("wb") as file,
    ):
        while block := packed.read(2**22):
            file.write(block)
    return home / name
