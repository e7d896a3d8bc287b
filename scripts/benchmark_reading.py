"""Time reading tiles of an 81,920 x 81,920 px slide against other readers; write docs/reading.csv.

The slide is a pyramid of JPEG tiles as Aperio scanners write it (YCbCr 4:2:0, quality 80, levels 1,
4 and 16): 4096 px of synthetic tissue, repeated over its middle third, in glass. Readers take turns
on the same tiles of tissue, one thread, a warm page cache; CPU time counts, since a machine is
seldom quiet, and ratios are of neighbouring turns. Every tile read at the slide's own mpp is
compared with OpenSlide's, every tile at half of it with the exact mean of OpenSlide's::

    OMP_NUM_THREADS=1 python scripts/benchmark_reading.py            # about five minutes
    OMP_NUM_THREADS=1 python scripts/benchmark_reading.py --rounds 3 --out /tmp/reading.csv

Readers: "ours" is ``Slide.read``; "ours, openslide" the same with ``backend="openslide"``;
"openslide" a loop over one kept handle, at half mpp with Pillow's bilinear resize; "monai" its
``PatchWSIDataset``, "tiffslide" a kept ``TiffSlide``, where they are installed; "decode" is the
limit: the file's tiles under each box through the same decoder and nothing else, none of them twice
while it would still be kept. Tiles of 224 px at random start anywhere and lie on 3.5 of the file's
(7.6 at half mpp), all of which have to be decoded whole: there the limit is near for every reader.
"""

import argparse
import contextlib
import csv
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
import simplejpeg
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pathology.geometry import Box
from pathology.outputs import complete_file
from pathology.slides import open_slide
from pathology.slides.resample import mean_blocks
from pathology.slides.tile_cache import DECODED
from pathology.synthetic.slide import render
from pathology.synthetic.spec import SyntheticSlideSpec

OUT = Path(__file__).parents[1] / "docs" / "reading.csv"
SIDE, TILE, MPP, MOSAIC, LEVELS = 81_920, 256, 0.25, 4096, (1, 4, 16)
TISSUE = 4 * MOSAIC, 16 * MOSAIC  # where it begins and ends, along x and y
PER_TURN, SLOW_PER_TURN = 48, 8  # tiles; MONAI takes a hundredth of a second for each
ABERRANT = "monai"  # the slow one, and only measured at the slide's own mpp
FIELDS = (
    "reader", "mpp", "tile_px", "order", "cpu_ms_per_tile", "cpu_ms_low", "cpu_ms_high",
    "wall_ms_per_tile", "tiles_per_s_per_core", "times_ours", "times_ours_low", "times_ours_high",
    "largest_difference", "turns", "machine", "openslide",
)  # fmt: skip
TARGETS = {("openslide", "native"): 4.0, ("openslide", "half"): 4.0, ("monai", "native"): 20.0}

Corner = tuple[int, int]
Read = Callable[[Corner, int, int], NDArray[np.uint8] | None]


def write_slide(path: Path) -> None:
    """Write the slide, half a gigabyte, in some 20 s."""
    spec = SyntheticSlideSpec(seed=3, size_px=(16_384, 16_384), mpp=MPP)
    mosaic = render(spec, 6144, 6144, MOSAIC, MOSAIC).rgb
    description = f"Aperio Image Library v12.0.15\r\n{SIDE}x{SIDE}|AppMag = 40|MPP = {MPP}"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for level, down in enumerate(LEVELS):
            plane = mosaic if down == 1 else mean_blocks(mosaic, down)
            tif.write(
                repeated(plane, down),
                shape=(SIDE // down, SIDE // down, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="ycbcr",
                compression="jpeg",
                subsampling=(2, 2),
                subfiletype=int(level > 0),
                description=description if level == 0 else None,
                metadata=None,
                software=False,
            )


def repeated(plane: NDArray[np.uint8], down: int) -> Iterator[bytes]:
    """Encoded tiles of a level, row by row: a plane repeated where there is tissue, else glass."""
    glass = np.random.default_rng(0).normal(242, 2, (TILE, TILE, 3)).astype(np.uint8)
    across = plane.shape[0] // TILE
    tiles = [
        encoded(plane[y : y + TILE, x : x + TILE])
        for y in range(0, plane.shape[0], TILE)
        for x in range(0, plane.shape[1], TILE)
    ]
    empty = encoded(glass)
    begin, end = (place // down // TILE for place in TISSUE)
    for row in range(SIDE // down // TILE):
        for column in range(SIDE // down // TILE):
            is_tissue = begin <= row < end and begin <= column < end
            yield tiles[row % across * across + column % across] if is_tissue else empty


def encoded(tile: NDArray[np.uint8]) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(tile), 80, colorsubsampling="420")


def ours(path: Path, backend: str) -> Read:
    slide = open_slide(path, backend=backend)

    def read(corner: Corner, tile_px: int, shrink: int) -> NDArray[np.uint8]:
        side = tile_px * shrink
        return slide.read(Box(*corner, side, side), shrink * slide.mpp.x)

    return read


def kept_openslide(path: Path) -> Read:
    handle = openslide.OpenSlide(path)

    def read(corner: Corner, tile_px: int, shrink: int) -> NDArray[np.uint8]:
        side = tile_px * shrink
        image = handle.read_region(corner, 0, (side, side)).convert("RGB")
        if shrink > 1:
            image = image.resize((tile_px, tile_px), Image.Resampling.BILINEAR)
        return np.asarray(image)

    return read


def kept_tiffslide(path: Path) -> Read:
    from tiffslide import TiffSlide

    slide = TiffSlide(path)

    def read(corner: Corner, tile_px: int, shrink: int) -> NDArray[np.uint8]:
        side = tile_px * shrink
        pixels = slide.read_region(corner, 0, (side, side), as_array=True)
        if shrink > 1:
            image = Image.fromarray(pixels)
            return np.asarray(image.resize((tile_px, tile_px), Image.Resampling.BILINEAR))
        return pixels

    return read


def monai_dataset(path: Path) -> Read:
    from monai.data import PatchWSIDataset

    item = {"image": str(path), "location": (0, 0)}
    options = {"patch_level": 0, "center_location": False, "include_label": False}
    datasets = {
        side: PatchWSIDataset([item], side, reader="openslide", **options) for side in (224, 256)
    }

    def read(corner: Corner, tile_px: int, shrink: int) -> NDArray[np.uint8]:
        item["location"] = corner[1], corner[0]  # row, column; the dataset looks it up each time
        return np.moveaxis(np.asarray(datasets[tile_px][0]["image"]), 0, -1)

    return read


def decode_only(path: Path) -> Read:
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        offsets, counts = np.array(page.dataoffsets), np.array(page.databytecounts)
    file, across = path.open("rb"), SIDE // TILE
    seen: dict[int, None] = {}

    def read(corner: Corner, tile_px: int, shrink: int) -> None:
        x, y = corner
        side = tile_px * shrink
        for row in range(y // TILE, (y + side - 1) // TILE + 1):
            for column in range(x // TILE, (x + side - 1) // TILE + 1):
                index = row * across + column
                if index not in seen:
                    seen[index] = None
                    data = os.pread(file.fileno(), int(counts[index]), int(offsets[index]))
                    simplejpeg.decode_jpeg(data)
        while len(seen) > DECODED.most_bytes // (3 * TILE**2):
            seen.pop(next(iter(seen)))

    return read


def readers(path: Path) -> dict[str, Read]:
    """Those that are installed."""
    makers: dict[str, Callable[[], Read]] = {
        "ours": lambda: ours(path, "auto"),
        "openslide": lambda: kept_openslide(path),
        "ours, openslide": lambda: ours(path, "openslide"),
        "decode": lambda: decode_only(path),
        "tiffslide": lambda: kept_tiffslide(path),
        ABERRANT: lambda: monai_dataset(path),
    }
    found = {}
    for name, make in makers.items():
        with contextlib.suppress(ImportError):
            found[name] = make()
    return found


def corners(order: str, tile_px: int, shrink: int, count: int) -> list[Corner]:
    """Where tiles start: on the file's own tiles where their side is the same, else anywhere."""
    side, (begin, end) = tile_px * shrink, TISSUE
    if order == "random":
        step = TILE if tile_px == TILE else 1
        most = (end - begin - side) // step
        places = np.random.default_rng([tile_px, shrink]).integers(0, most, (count, 2)) * step
        return [(begin + int(x), begin + int(y)) for x, y in places]
    across = (end - begin) // 2 // side  # tissue is seldom as wide as this slide's
    return [(begin + i % across * side, begin + i // across * side) for i in range(count)]


def measure(found: dict[str, Read], tile_px: int, shrink: int, order: str, rounds: int) -> list:
    """Turns of all readers on the same tiles, as rows of the table."""
    places = corners(order, tile_px, shrink, PER_TURN * (rounds + 1))
    names = [name for name in found if shrink == 1 or name != ABERRANT]
    cpu: dict[str, list[float]] = {name: [] for name in names}
    wall: dict[str, list[float]] = {name: [] for name in names}
    differences = dict.fromkeys(names, 0)
    for turn in range(rounds + 1):
        chunk = places[turn * PER_TURN : (turn + 1) * PER_TURN]
        pixels = {}
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            tiles = chunk[:SLOW_PER_TURN] if name == ABERRANT else chunk
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            pixels[name] = [found[name](corner, tile_px, shrink) for corner in tiles]
            cpu[name].append((time.process_time() - cpu_start) / len(tiles) * 1e3)
            wall[name].append((time.perf_counter() - wall_start) / len(tiles) * 1e3)
        native = pixels["openslide"]
        if shrink > 1:
            whole = [found["openslide"](corner, tile_px * shrink, 1) for corner in chunk]
            native = [mean_blocks(tile, shrink) for tile in whole]
        for name in names:
            for tile, expected in zip(pixels[name], native, strict=False):
                if tile is not None:
                    apart = int(np.abs(tile.astype(int) - expected).max())
                    differences[name] = max(differences[name], apart)
    rows = []
    for name in names:
        ratios = [a / b for a, b in zip(cpu[name][1:], cpu["ours"][1:], strict=True)]
        low, middle, high = statistics.quantiles(cpu[name][1:], n=4)
        ratio_low, ratio, ratio_high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "reader": name,
                "mpp": "native" if shrink == 1 else "half",
                "tile_px": tile_px,
                "order": order,
                "cpu_ms_per_tile": f"{middle:.3f}",
                "cpu_ms_low": f"{low:.3f}",
                "cpu_ms_high": f"{high:.3f}",
                "wall_ms_per_tile": f"{statistics.median(wall[name][1:]):.3f}",
                "tiles_per_s_per_core": f"{1e3 / middle:.0f}",
                "times_ours": f"{ratio:.2f}",
                "times_ours_low": f"{ratio_low:.2f}",
                "times_ours_high": f"{ratio_high:.2f}",
                "largest_difference": "" if name == "decode" else differences[name],
                "turns": rounds,
                "machine": machine(),
                "openslide": openslide.__library_version__,
            }
        )
    return rows


def machine() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def print_row(row: dict) -> None:
    target = TARGETS.get((row["reader"], row["mpp"]))
    verdict = "" if target is None else f"  must be {target:g}"
    print(
        f"{row['mpp']:7}{row['tile_px']} px {row['order']:11}{row['reader']:16}"
        f"{row['tiles_per_s_per_core']:>6} tiles/s a core {row['cpu_ms_per_tile']:>8} ms CPU"
        f" ({row['cpu_ms_low']} to {row['cpu_ms_high']})"
        f"  {row['times_ours']:>6} x ours ({row['times_ours_low']} to {row['times_ours_high']})"
        f"  differs by {row['largest_difference'] or 0}{verdict}",
        flush=True,
    )


def threads(path: Path) -> None:
    """How many cores one slide keeps busy, read in threads."""
    places = corners("random", TILE, 1, 1000)
    for count in (1, 2, 4):
        with open_slide(path) as slide, ThreadPoolExecutor(count) as pool:
            DECODED.clear()
            wall, cpu = time.perf_counter(), time.process_time()
            list(pool.map(lambda corner: slide.read(Box(*corner, TILE, TILE), MPP), places))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{count} threads: {len(places) / wall:.0f} tiles/s, {cpu / wall:.2f} cores busy")


def main() -> None:
    """Write the slide, take turns, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the table (default: docs)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every reader, at least 2")
    parser.add_argument("--slide", type=Path, help="keep the slide here, or use the one there")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = args.slide or Path(folder) / "slide.svs"
        if not path.exists():
            with complete_file(path) as draft:
                write_slide(draft)
        print(f"{path.name}: {path.stat().st_size / 1e9:.2f} GB")
        start = time.process_time()
        with open_slide(path) as slide:
            slide.read(Box(0, 0, TILE, TILE), MPP)
            print(f"opened, proven and read once in {time.process_time() - start:.2f} s CPU")
            print("levels by", ", ".join(slide.decoders))
        threads(path)
        found = readers(path)
        for shrink in (1, 2):
            for tile_px in (256, 224):
                for order in ("random", "row by row"):
                    for row in measure(found, tile_px, shrink, order, args.rounds):
                        print_row(row)
                        rows.append(row)
    with complete_file(args.out) as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
