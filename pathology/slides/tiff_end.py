"""Whether a TIFF file is all there: the commonest damage is a copy or download that broke off."""

import struct
from pathlib import Path
from typing import BinaryIO

from pathology.errors import SlideOpenError

MOST = 100_000  # directories; more than any file has, so the chain runs in a circle


def check_end(path: Path) -> None:
    """Refuse a TIFF whose chain of directories leads beyond its end.

    OpenSlide opens such a file without a word, less the planes that are lost, and coarse reads come
    slowly and slightly different from a finer one. Tiles that are lost are found when read.

    Raises:
        SlideOpenError: cut short, or no TIFF.
    """
    try:
        with path.open("rb") as file:
            _walk(file)
    except struct.error as error:
        raise SlideOpenError(
            "is cut short: it ends within its header; fetch it again", path
        ) from error
    except ValueError as error:
        raise SlideOpenError(f"is damaged or cut short: {error}; fetch it again", path) from error


def _walk(file: BinaryIO) -> None:
    """Follow the chain from the header to its end."""
    length = file.seek(0, 2)
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    big = struct.unpack(order + "H", file.read(2))[0] == 43
    # The number of entries, the size of one, and an offset, in plain TIFF and in BigTIFF.
    count, entry, offset = (order + "Q", 20, order + "Q") if big else (order + "H", 12, order + "I")
    file.seek(8 if big else 4)
    (at,) = struct.unpack(offset, file.read(struct.calcsize(offset)))
    for number in range(MOST):
        if at == 0:
            return
        end = at + struct.calcsize(count)
        if end <= length:
            file.seek(at)
            (entries,) = struct.unpack(count, file.read(struct.calcsize(count)))
            end += entries * entry + struct.calcsize(offset)
        if end > length:
            raise ValueError(f"its directory {number} ends at byte {end:,} of {length:,}")
        file.seek(end - struct.calcsize(offset))
        (at,) = struct.unpack(offset, file.read(struct.calcsize(offset)))
    raise ValueError("its directories lead back to one another")
