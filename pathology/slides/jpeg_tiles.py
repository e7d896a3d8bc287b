"""JPEG tiles of TIFF files: made complete files of, and decoded without forgiving any damage.

A tile in a TIFF is a JPEG without its tables, which the page keeps once for all of them, and often
without a word on its colours, which the page's photometric tag tells (TIFF Technical Note 2). Put
back into the stream, both make a file that every decoder shows right.

To libjpeg a damaged stream is worth a warning; it fills up the rest with grey. Most bindings never
mention it (imagecodecs; Pillow where data is wrong, not missing). OpenSlide and simplejpeg raise,
hence simplejpeg. Both use libjpeg-turbo's accurate DCT and smooth chroma, bit for bit the same.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray

JPEG = 7
START, END = b"\xff\xd8", b"\xff\xd9"
JFIF, ADOBE = 0xE0, 0xEE  # the markers that tell the colours
APPLICATION = range(0xE0, 0xF0)
# Y, Cb and Cr, or grey: by the JFIF standard. RGB: Adobe's segment with "no transform".
JFIF_SEGMENT = bytes.fromhex("ffe0 0010 4a46494600 0101 00 0001 0001 00 00")
ADOBE_SEGMENT = bytes.fromhex("ffee 000e 41646f6265 0064 0000 0000 00")

Colours = Literal["RGB", "YCbCr", "Gray"]


@dataclass(frozen=True)
class JpegTiles:
    """How the JPEG tiles (or strips) of one page are read.

    Args:
        colours: what the three numbers of a stored pixel mean.
        tables: the page's JPEGTables, ``None`` where each tile has its own.
        sides: width and height that each must have; ``None`` for strips, of which the last is
            shorter.
    """

    colours: Colours
    tables: bytes | None
    sides: tuple[int, int] | None

    def complete(self, data: bytes) -> bytes:
        """A JPEG file of one stored tile.

        Raises:
            ValueError: it does not begin as a JPEG.
        """
        if data[:2] != START:
            raise ValueError("a tile that is no JPEG" if data else "a tile without data")
        at, kept = 2, b""
        while len(data) > at + 4 and data[at] == 0xFF and data[at + 1] in APPLICATION:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
            kept += data[at:end] if data[at + 1] not in (JFIF, ADOBE) else b""
            at = end
        colours = ADOBE_SEGMENT if self.colours == "RGB" else JFIF_SEGMENT
        tables = (self.tables or b"").removeprefix(START).removesuffix(END)
        return b"".join((START, colours, tables, kept, data[at:]))

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """``(height, width, 3)`` of one stored tile, ``(height, width, 1)`` where it is grey.

        Raises:
            ValueError: damaged, or not what the page says.
        """
        jpeg = self.complete(data)
        height, width, colours, _ = simplejpeg.decode_jpeg_header(jpeg)
        if colours != self.colours or self.sides not in (None, (width, height)):
            raise ValueError(f"a tile of {width} x {height} px {colours}, not as its page says")
        space = "GRAY" if colours == "Gray" else "RGB"
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, colorspace=space)
        return pixels


def jpeg_tiles(page: tifffile.TiffPage) -> JpegTiles | None:
    """How the JPEG tiles of a page are read; ``None`` where they are of another kind.

    Baseline and progressive JPEG of 8 bits, grey or three colours side by side. The page's file
    must be open.
    """
    colour = page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    samples = 3 if colour else 1
    if (
        page.compression != JPEG
        or page.bitspersample != 8
        or page.samplesperpixel != samples
        or page.extrasamples
        or page.imagedepth != 1
        or (colour and page.planarconfig != tifffile.PLANARCONFIG.CONTIG)
    ):
        return None
    colours: Colours = "Gray"
    if colour:
        # Tiles with a JFIF header hold Y, Cb and Cr whatever the page says.
        is_rgb = page.photometric == tifffile.PHOTOMETRIC.RGB and not page.is_jfif
        colours = "RGB" if is_rgb else "YCbCr"
    sides = (page.tilewidth, page.tilelength) if page.is_tiled else None
    return JpegTiles(colours, page.jpegtables, sides)
