"""Where a heatmap puts what was seen: slides with known dots through the whole pipeline.

A slide is white but for dots whose centres are known as real numbers; the model's contribution of a
pixel is how dark it is. The slide is written to a file, tiled, read at the tiles' own scale,
explained, stitched, and written as maps; each file is then read back by what a viewer goes by, and
the centre of mass around each dot compared with the truth. Half of the dots are a few pixels wide;
the others are as wide as pixels of the map, so that their centre shows far within one of them::

    OMP_NUM_THREADS=1 python scripts/placement.py          # every case; writes docs/placement.csv

Columns of the table: ``error_px`` the largest distance of any dot, along x or y, in pixels of the
map (half of one is what a pixel's size alone allows); ``wide_px`` and ``wide_level0`` the same
of wide dots, in pixels of the map and of level 0; ``drift`` the steeper slope of their distance
along x or y, level-0 pixels per level-0 pixel.
"""

import argparse
import csv
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
import torch
import zarr
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor, nn

from bcos_vit.layers import Logits, held
from pathology.explain.results.qupath_script import write_qupath_script
from pathology.explain.scorers.pooled_logits import PooledLogits
from pathology.explain.slide import SlideExplanation, explain_slide
from pathology.geometry import Box, Mpp
from pathology.maps.ome_tiff import write_ome_tiff
from pathology.maps.ome_zarr import write_ome_zarr
from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide, Slide, open_slide
from pathology.synthetic.pyramid import PyramidWriter
from pathology.tasks.encoding import TileEncoding
from pathology.tiling import TileGrid, TileSpec, tile_slide

Floats = NDArray[np.float64]

TABLE = Path(__file__).parents[1] / "docs" / "placement.csv"
BLUR = 1.5
"""Standard deviation of a small dot in level-0 pixels; it is seen 4 to 5 pixels wide."""
PEAK = 220.0
"""Grey levels by which the middle of a dot is darker than white."""


@dataclass(frozen=True)
class Dots:
    """Spots in shades of grey on white: points and rectangles, out of focus.

    Args:
        x, y: ``(n,)`` centres in level-0 pixels.
        sides: ``(n, 2)`` width and height in level-0 pixels; 0 for a small, round dot.
        blur: ``(n,)`` standard deviation of what is in place of a point, in level-0 pixels.
    """

    x: Floats
    y: Floats
    sides: Floats
    blur: Floats

    def plane(self, width: int, height: int, scale: tuple[float, float]) -> NDArray[np.uint8]:
        """``(height, width, 3)``: the exact means over pixels of ``scale`` level-0 pixels."""
        dark = np.zeros((height, width), np.float32)
        for x, y, sides, blur in zip(self.x, self.y, self.sides, self.blur, strict=True):
            left, across = _profile(x, sides[0], blur, scale[0], width)
            top, down = _profile(y, sides[1], blur, scale[1], height)
            dark[top : top + len(down), left : left + len(across)] += PEAK * np.outer(down, across)
        grey = np.rint(255 - dark.clip(max=255)).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)

    @property
    def reach(self) -> Floats:
        """``(n, 2)`` how far along x and y a dot can be seen."""
        return self.sides / 2 + 5 * self.blur[:, None]

    @property
    def wide(self) -> NDArray[np.bool_]:
        """``(n,)`` those that are no points."""
        return self.sides[:, 0] > 0


def _profile(
    centre: float, side: float, blur: float, step: float, count: int
) -> tuple[int, Floats]:
    """First pixel a dot touches and its mean over each, along one axis of pixels ``step`` long."""
    reach = side / 2 + 5 * blur
    first = max(0, math.floor((centre - reach) / step) - 1)
    last = min(count, math.ceil((centre + reach) / step) + 1)
    edges = np.arange(first, last + 1) * step - centre
    if side:
        heads, tails = ((edges + end) / blur for end in (side / 2, -side / 2))
        mass = np.diff(_ramp(heads) - _ramp(tails)) * blur
    else:
        mass = np.diff(ndtr(edges / blur)) * blur * math.sqrt(2 * math.pi)
    return first, mass / step


def _ramp(u: Floats) -> Floats:
    """The integral of the normal distribution function."""
    ramp: Floats = u * ndtr(u) + np.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    return ramp


class Darkness(nn.Module):
    """Classes ``dark`` and ``light``: ``W(x) x`` of a pixel is how dark it is, and minus that.

    ``W(x)`` points where the pixel itself does, as that of a trained B-cos layer comes to.
    """

    dynamic_linear = True
    in_chans = 6
    encoding = "complement"

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), 1 / 3))
        self.logits = Logits(2, bias=0.25)

    def forward(self, x: Tensor) -> Tensor:
        dark = x[:, 3:].permute(0, 2, 3, 1)
        length = dark.square().sum(-1, keepdim=True).clamp_min(1e-12)
        pixels = (held(dark * (dark @ self.weight)[..., None] / length) * dark).sum(-1)
        mean = pixels.mean((1, 2))
        return self.logits(torch.stack([mean, -mean], 1))


@dataclass(frozen=True)
class Case:
    """A slide, how it is kept, how it is cut, and the map that is made.

    Args:
        name: what is special about it.
        size: of level 0 in pixels.
        mpp: of level 0 along x and y.
        container: ``memory``; ``aperio``: planes that shrink by whole numbers and end where they no
            longer fit; ``fitted``: a plain TIFF whose planes are scaled to sides of whole pixels;
            ``synthetic``: this library's own writer, JPEG.
        backend: what reads the file.
        factors: of the planes.
        tile_px, tile_mpp, overlap: tiles, and the share of a side that neighbours have in common.
        bounds: the scanned part.
        shift: level-0 pixels by which the grid begins left of and above the slide, and then so many
            tiles that it reaches over every edge; a plain grid when omitted.
        out_mpp: of the map.
        halvings: levels of the map's pyramid, below the finest, on which dots are told apart.
    """

    name: str
    mpp: tuple[float, float]
    out_mpp: float
    size: tuple[int, int] = (3011, 2503)
    container: str = "memory"
    backend: str = "auto"
    factors: tuple[int, ...] = (1, 4)
    tile_px: int = 224
    tile_mpp: float = 0.5
    overlap: float = 0.0
    bounds: tuple[float, float, float, float] | None = None
    shift: tuple[float, float] | None = None
    halvings: int = 0


CASES = [
    Case("40x to 20x", (0.2528, 0.2528), 8.0, container="aperio"),
    Case("40x to 20x, overlap", (0.2528, 0.2528), 4.37, container="aperio", overlap=0.5),
    Case("40x to 20x, fine map", (0.2528, 0.2528), 2.0, container="aperio", tile_px=256),
    Case("pixels not square", (0.2277, 0.2291), 8.0, container="fitted"),
    Case("pixels not square, overlap", (0.2277, 0.2291), 2.0, container="fitted", overlap=0.5),
    Case("reduced levels", (0.2528, 0.2528), 2.0, container="aperio", halvings=3),
    Case("reduced levels, overlap", (0.2528, 0.2528), 2.0, overlap=0.5, halvings=3),
    Case("20x as it is", (0.5, 0.5), 8.0, container="fitted", tile_px=256),
    Case("20x as it is, overlap", (0.5, 0.5), 4.37, container="aperio", overlap=0.5),
    Case(
        "80x to 10x",
        (0.12, 0.12),
        8.0,
        size=(8011, 6505),
        container="aperio",
        factors=(1, 2, 4, 8),
        tile_mpp=1.0,
    ),
    Case(
        "80x to 10x, planes fitted",
        (0.12, 0.12),
        4.37,
        size=(8011, 6505),
        container="fitted",
        factors=(1, 4, 16),
        tile_mpp=1.0,
        overlap=0.5,
    ),
    Case(
        "plane of 3.99 by tifffile",
        (0.25, 0.25),
        8.0,
        size=(4001, 3003),
        container="fitted",
        backend="tifffile",
        tile_mpp=1.0,
    ),
    Case(
        "plane of 3.99 by OpenSlide",
        (0.25, 0.25),
        8.0,
        size=(4001, 3003),
        container="fitted",
        backend="openslide",
        tile_mpp=1.0,
    ),
    Case(
        "synthetic slide",
        (0.25, 0.25),
        8.0,
        size=(4091, 3071),
        container="synthetic",
        tile_mpp=1.0,
        overlap=0.5,
    ),
    Case(
        "bounds",
        (0.2528, 0.2528),
        8.0,
        size=(4003, 3507),
        bounds=(701.0, 533.0, 2900.0, 2600.0),
    ),
    Case(
        "bounds, overlap",
        (0.2277, 0.2291),
        4.37,
        size=(4003, 3507),
        bounds=(701.0, 533.0, 2900.0, 2600.0),
        overlap=0.5,
    ),
    Case("over every edge", (0.2528, 0.2528), 8.0, shift=(137.31, 88.77)),
    Case(
        "over every edge, overlap",
        (0.2277, 0.2291),
        2.0,
        shift=(401.03, 13.9),
        overlap=0.5,
        tile_px=256,
    ),
]


def placed_dots(case: Case, rng: np.random.Generator) -> Dots:
    """Small and wide dots in turn, in rows and columns, each off its place by a real number."""
    pixels = np.array([case.out_mpp / mpp for mpp in case.mpp]) * 2**case.halvings
    blur = max(BLUR, *(case.tile_mpp / mpp for mpp in case.mpp))
    apart = 4 * pixels + 10 * blur
    box = case.bounds or (0.0, 0.0, *case.size)
    axes, rooms = [], []
    for start, length, least in zip(box[:2], box[2:], apart, strict=True):
        count = max(2, min(12, int(length / least)))
        axes.append(start + (np.arange(count) + 0.5) * (length / count))
        rooms.append(max(1.0, (length / count - least) / 2))
    x, y = (each.ravel() for each in np.meshgrid(*axes))
    x, y = (
        each + rng.uniform(-room, room, len(x)) for each, room in zip((x, y), rooms, strict=True)
    )
    row, column = np.divmod(np.arange(len(x)), len(axes[0]))
    wide = (row + column) % 2 == 1
    return Dots(x, y, wide[:, None] * pixels, np.where(wide, blur, BLUR))


def make_slide(case: Case, dots: Dots, folder: Path) -> Slide:
    """The slide of a case, with its pyramid, open."""
    if case.container == "memory":
        bounds = Box(*case.bounds) if case.bounds else None
        array = dots.plane(*case.size, (1.0, 1.0))
        return MemorySlide(array, case.mpp, levels=case.factors, bounds=bounds)
    path = folder / ("slide.svs" if case.container == "aperio" else "slide.tif")
    if case.container == "synthetic":
        with PyramidWriter(folder, case.size, case.mpp[0], channels=3, quality=95) as writer:
            writer.add(dots.plane(*case.size, (1.0, 1.0)))
            writer.write(path)
        return open_slide(path, backend=case.backend)
    with tifffile.TiffWriter(path) as tiff:
        for factor in case.factors:
            width, height = case.size[0] // factor, case.size[1] // factor
            scale = float(factor), float(factor)
            if case.container == "fitted":
                scale = case.size[0] / width, case.size[1] / height
            tiff.write(dots.plane(width, height, scale), **_tags(case, factor, scale))
    mpp = case.mpp if case.container == "aperio" else None
    return open_slide(path, mpp, backend=case.backend)


def _tags(case: Case, factor: int, scale: tuple[float, float]) -> dict[str, Any]:
    tags = {"tile": (256, 256), "compression": "zlib", "photometric": "rgb", "metadata": None}
    if case.container == "aperio":
        return tags | {"description": "Aperio Image Library v11.2.1"}
    density = tuple(1e4 / (mpp * one) for mpp, one in zip(case.mpp, scale, strict=True))
    return tags | {
        "resolution": density,
        "resolutionunit": "CENTIMETER",
        "subfiletype": int(factor > 1),
    }


def cut(case: Case, slide: Slide) -> TileGrid:
    """The tiles of a case: all of the slide."""
    spec = TileSpec(
        case.tile_px,
        case.tile_mpp,
        overlap_px=round(case.overlap * case.tile_px),
        min_tissue=0.0,
        keep_edges=True,
    )
    grid = tile_slide(slide, spec)
    if case.shift is None:
        return grid
    starts = []
    for side, shift, length in zip(grid.tile_size, case.shift, slide.size, strict=True):
        stride = side * spec.stride_px / spec.size_px
        starts.append(-shift + stride * np.arange(math.ceil((length + shift) / stride)))
    x, y = np.tile(starts[0], len(starts[1])), np.repeat(starts[1], len(starts[0]))
    return replace(grid, x=x, y=y, tissue=np.ones(len(x), np.float32))


def explained(case: Case, slide: Slide, scratch: Path) -> SlideExplanation:
    """Why a slide with dots is dark."""
    model = Darkness().eval()
    scorer = PooledLogits(model, TileEncoding(model), ["dark", "light"])
    grid = cut(case, slide)
    return explain_slide(
        slide, grid, scorer, "dark", out_mpp=case.out_mpp, scratch=scratch, gallery=0
    )


@dataclass(frozen=True)
class Placed:
    """A raster where its reader puts it.

    Args:
        values: ``(height, width)``; NaN counts as nothing.
        left, top: its upper left corner in level-0 pixels.
        step: level-0 pixels per pixel along x and y.
    """

    values: NDArray[Any]
    left: float
    top: float
    step: tuple[float, float]

    @classmethod
    def of(cls, slide_map: SlideMap) -> "Placed":
        """By the map's own box."""
        return cls(slide_map.values, slide_map.box.x, slide_map.box.y, slide_map.downsample)

    def centres(self, dots: Dots) -> Floats:
        """``(n, 2)`` centres of mass around each dot in level-0 pixels."""
        found = np.empty((len(dots.x), 2))
        for i, (x, y, far) in enumerate(zip(dots.x, dots.y, dots.reach, strict=True)):
            columns = self._pixels(x, far[0], 0)
            rows = self._pixels(y, far[1], 1)
            mass = np.nan_to_num(np.asarray(self.values[np.ix_(rows, columns)], np.float64))
            found[i, 0] = self.left + self.step[0] * ((columns + 0.5) @ mass.sum(0)) / mass.sum()
            found[i, 1] = self.top + self.step[1] * ((rows + 0.5) @ mass.sum(1)) / mass.sum()
        return found

    def is_even(self, dots: Dots) -> NDArray[np.bool_]:
        """``(n,)`` whether all pixels around a dot hold the same."""
        even = np.empty(len(dots.x), bool)
        for i, (x, y, far) in enumerate(zip(dots.x, dots.y, dots.reach, strict=True)):
            around = self.values[np.ix_(self._pixels(y, far[1], 1), self._pixels(x, far[0], 0))]
            even[i] = np.ptp(around) <= 1e-4 * np.max(around)
        return even

    def _pixels(self, centre: float, far: float, axis: int) -> NDArray[np.intp]:
        """Pixels along an axis that a dot and half a pixel of resampling may reach."""
        start, step = (self.left, self.top)[axis], self.step[axis]
        first = math.floor((centre - far - start) / step - 0.5)
        last = math.ceil((centre + far - start) / step + 0.5)
        return np.arange(max(0, first), min(self.values.shape[1 - axis], last))


@dataclass(frozen=True)
class Row:
    """How well one file of one case places the dots, see the top of this file."""

    case: str
    file: str
    error_px: float
    wide_px: float
    wide_level0: float
    drift: float


def measure(case: Case, file: str, raster: Placed, dots: Dots, coverage: Placed) -> Row:
    """Compare what a raster says of the dots with where they are.

    Half a dot that more tiles cover than the other weighs more in the score, and so on the map; of
    wide dots, which are looked at within a pixel, those count that are covered evenly.
    """
    off = raster.centres(dots) - np.stack([dots.x, dots.y], 1)
    wide = dots.wide & coverage.is_even(dots)
    in_pixels = np.abs(off / raster.step)
    drift = max(
        abs(float(np.polyfit(at[wide], off[wide, axis], 1)[0]))
        for axis, at in enumerate((dots.x, dots.y))
    )
    return Row(
        case.name,
        file,
        float(in_pixels[wide | ~dots.wide].max()),
        float(in_pixels[wide].max()),
        float(np.abs(off[wide]).max()),
        drift,
    )


def ome_levels(path: Path, slide_mpp: Mpp) -> Iterator[Placed]:
    """Each level of an OME-TIFF as any reader places it: from the corner, by the physical size."""
    with tifffile.TiffFile(path) as tiff:
        assert tiff.ome_metadata is not None
        pixels = next(ElementTree.fromstring(tiff.ome_metadata).iterfind(".//{*}Pixels"))
        assert pixels.get("PhysicalSizeXUnit") == pixels.get("PhysicalSizeYUnit") == "µm"
        sizes = [float(pixels.attrib[f"PhysicalSize{axis}"]) for axis in "XY"]
        for k, level in enumerate(tiff.series[0].levels):
            x, y = (size * 2**k / mpp for size, mpp in zip(sizes, slide_mpp, strict=True))
            yield Placed(level.asarray(maxworkers=1), 0.0, 0.0, (x, y))


def zarr_levels(path: Path, slide_mpp: Mpp) -> Iterator[Placed]:
    """Each level of an OME-Zarr by scale and translation, of the centres of pixels."""
    group = zarr.open_group(path, mode="r")
    for entry in group.attrs["multiscales"][0]["datasets"]:
        scale, translation = entry["coordinateTransformations"]
        (y, x), (top, left) = scale["scale"][1:], translation["translation"][1:]
        step = x / slide_mpp.x, y / slide_mpp.y
        # From the centre of the slide's first pixel to its corner, and likewise of the map's.
        corner = left / slide_mpp.x + 0.5 - step[0] / 2, top / slide_mpp.y + 0.5 - step[1] / 2
        yield Placed(np.asarray(group[entry["path"]][0]), *corner, step)


def in_qupath(path: Path, values: NDArray[Any], bounds: Box) -> Placed:
    """The finest level where the script's own numbers put it on a slide cropped to its bounds."""
    line = re.search(r"pixels: \[(\d+), (\d+)\], cropped: \[([-\d, ]+)\]", path.read_text())
    assert line is not None
    x, y, width, height = map(int, line[3].split(", "))
    step = width / int(line[1]), height / int(line[2])
    return Placed(values, x + bounds.x, y + bounds.y, step)


def rows(case: Case, folder: Path) -> Iterator[Row]:
    """All that is measured of a case."""
    dots = placed_dots(case, np.random.default_rng(0))
    with make_slide(case, dots, folder) as slide:
        stitched = explained(case, slide, folder / "scratch").stitched
        heatmap, density = stitched.additive, stitched.density()
        script = folder / "heatmap.groovy"
        write_qupath_script(script, slide, density, target="dark", limit=1.0)
    coverage = Placed.of(stitched.coverage)
    weights = stitched.coverage.values
    for name, slide_map in {"heatmap": heatmap, "density": density}.items():
        yield measure(case, name, Placed.of(slide_map), dots, coverage)
    sums, means, chunks = (
        folder / name for name in ("heatmap.ome.tif", "density.ome.tif", "heatmap.ome.zarr")
    )
    write_ome_tiff(heatmap, sums, tile_px=32)
    write_ome_tiff(density, means, "mean", weights=weights, tile_px=32)
    write_ome_zarr(heatmap, chunks, chunk_px=32)
    for path in (sums, means, chunks):
        levels = zarr_levels if path is chunks else ome_levels
        for k, level in enumerate(levels(path, slide.mpp)):
            if k <= case.halvings:
                yield measure(case, f"{path.name}, level {k}", level, dots, coverage)
    placed = in_qupath(script, density.values, slide.bounds)
    yield measure(case, script.name, placed, dots, coverage)


def write_table(found: Sequence[Row], path: Path) -> None:
    """Keep rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([each.name for each in fields(Row)])
        for row in found:
            numbers = (row.error_px, row.wide_px, row.wide_level0)
            writer.writerow(
                [row.case, row.file, *(f"{n:.4f}" for n in numbers), f"{row.drift:.1e}"]
            )


def read_table(path: Path = TABLE) -> list[Row]:
    """The rows of :func:`write_table`."""
    with path.open(newline="") as file:
        return [
            Row(case, name, *map(float, numbers))
            for case, name, *numbers in list(csv.reader(file))[1:]
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="cases whose name holds this; nothing is written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for case in CASES:
        if given.only and given.only not in case.name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for row in rows(case, Path(folder)):
                found.append(row)
                print(
                    f"{row.case:28} {row.file:26} {row.error_px:7.4f} {row.wide_px:7.4f}"
                    f" {row.wide_level0:8.4f} {row.drift:.1e}",
                    flush=True,
                )
    if not given.only:
        write_table(found, TABLE)


if __name__ == "__main__":
    main()
