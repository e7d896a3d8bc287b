"""A cheap fingerprint that ties results to the slide they were made from."""

import hashlib
import os
from pathlib import Path

from pathology.errors import SlideOpenError

END_BYTES = 64 * 1024


def stamp_bytes(length: int, first: bytes, last: bytes) -> str:
    """Fingerprint of something of ``length`` bytes by its length and its two ends."""
    digest = hashlib.sha256(str(length).encode())
    digest.update(first)
    digest.update(last)
    return digest.hexdigest()


def stamp_file(path: Path) -> str:
    """Fingerprint of a file: its size, first and last 64 KiB.

    The whole of a slide takes minutes to read; its header and its end change with any re-scan or
    re-export. A flipped byte in the middle goes unnoticed. Of formats kept in several files
    (MIRAX, DICOM) only the named file counts.

    Raises:
        SlideOpenError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            first = file.read(END_BYTES)
            file.seek(max(0, length - END_BYTES))
            return stamp_bytes(length, first, file.read(END_BYTES))
    except OSError as error:
        raise SlideOpenError(f"cannot be read: {error.strerror}", path) from error
