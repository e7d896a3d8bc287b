"""Time and memory of stitching slides of up to 200,000 x 200,000 px; write docs/stitching.csv.

Tiles of 224 px at 0.5 mpp with 50 % overlap on a slide of 0.25 mpp, each with random contributions
of cells x cells, in tissue under about 30 % of the slide. Half, once and twice the sides give the
area's part, a tall and a broad slide of one area the width's; then finer maps, explanations of
pixels, several targets and tiles in random order. Then the map as an OME-TIFF pyramid, read back
with tifffile level by level. Every measurement is made in a process of its own, one thread, and
its peak is that above what was held before (Linux tells)::

    OMP_NUM_THREADS=1 python scripts/benchmark_stitch.py                  # about five minutes
    OMP_NUM_THREADS=1 python scripts/benchmark_stitch.py --rounds 1 --only 50000 --out /tmp/s.csv

``accounted`` is how far map, rounding and cut-off are from what was given, ``level_error`` how far
the sum of any level of the file is from the map's, both in shares of the summed absolute
contributions; levels are stored as float32, whose rounding is 6e-8 of a pixel.
"""

import argparse
import csv
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from pathology.explain.stitching.spool import Spool
from pathology.explain.stitching.stitch import Stitched, Stitcher
from pathology.geometry import Box, Mpp, Size
from pathology.maps.ome_tiff import write_ome_tiff
from pathology.outputs import complete_file

OUT = Path(__file__).parents[1] / "docs" / "stitching.csv"
TILE, STRIDE, MPP = 448.0, 224.0, 0.25
MAX_MIB, MAX_SECONDS = 300.0, 30.0
FIELDS = (
    "width_px", "height_px", "out_mpp", "cells", "targets", "order", "tiles", "map_width",
    "map_height", "stitch_s", "stitch_cpu_s", "stitch_peak_mib", "peak_mib_per_1000_map_px",
    "accounted", "pyramid_s", "pyramid_cpu_s", "pyramid_peak_mib", "levels", "file_mib",
    "level_error", "rounds", "machine",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A slide, and how its tiles come."""

    width: int
    height: int
    out_mpp: float = 8.0
    cells: int = 14
    targets: int = 1
    order: str = "rows"


CASES = (
    Case(50_000, 50_000),
    Case(100_000, 100_000),
    Case(200_000, 200_000),
    Case(200_000, 50_000),
    Case(50_000, 200_000),
    Case(50_000, 50_000, 2.0),
    Case(100_000, 100_000, 2.0),
    Case(100_000, 100_000, 8.0, 224),
    Case(100_000, 100_000, 8.0, 14, 3),
    Case(100_000, 100_000, 8.0, 14, 1, "random"),
)
"""The target is that of 100,000 x 100,000 px at 8 um per pixel; the rest is the curve."""


def peak_mib() -> float:
    """The process's largest resident size since :func:`forget_peak`, in MiB."""
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def forget_peak() -> float:
    """The resident size now, in MiB, from which a new peak is counted."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def corners(case: Case) -> list[tuple[float, float]]:
    """Tile corners in an ellipse, from top to bottom or at random, in level-0 pixels."""
    steps_y = np.arange(0.0, case.height - TILE + 1, STRIDE)
    steps_x = np.arange(0.0, case.width - TILE + 1, STRIDE)
    y, x = np.meshgrid(steps_y, steps_x, indexing="ij")
    keep = np.hypot(x / (case.width - TILE) - 0.5, y / (case.height - TILE) - 0.5) < 0.31
    order = np.arange(int(keep.sum()))
    if case.order == "random":
        np.random.default_rng(1).shuffle(order)
    return list(zip(x[keep][order].tolist(), y[keep][order].tolist(), strict=True))


def stitch(case: Case, folder: Path) -> tuple[dict[str, float], Stitched]:
    """Stitch one slide; the figures, and the first target's map."""
    places = corners(case)
    # Some different maps, taken in turn: the tiles' own memory must not hide the stitcher's.
    count = max(20, 1000 * 14**2 // case.cells**2)
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((count, case.cells, case.cells)).astype(np.float32)
    weight = 1.0 / len(places)
    expected = weight * sum(float(maps[i % count].sum(dtype=float)) for i in range(len(places)))
    before, start, cpu = forget_peak(), time.perf_counter(), time.process_time()
    size, largest = Size(case.width, case.height), Size(TILE, TILE)
    stitchers = [
        Stitcher(size, Mpp(MPP, MPP), case.out_mpp, largest, folder / f"{target}")
        for target in range(case.targets)
    ]
    with Spool(folder) as spool:
        takers: list[Any] = [spool] if case.order == "random" else list(stitchers)
        for i, (x, y) in enumerate(places):
            for taker in takers:
                taker.add(Box(x, y, TILE, TILE), maps[i % count], weight)
        for stitcher in stitchers if case.order == "random" else ():
            spool.stitch(stitcher)
    # Each has an end to write; the first is looked at.
    stitched, *_ = [stitcher.finish() for stitcher in stitchers]
    figures = {"stitch_s": time.perf_counter() - start, "stitch_cpu_s": time.process_time() - cpu}
    accounted = stitched.map_sum + stitched.rounding + stitched.cut_off
    figures |= {
        "tiles": len(places),
        "stitch_peak_mib": peak_mib() - before,
        "accounted": abs(accounted - expected) / stitched.absolute_sum,
    }
    return figures, stitched


def write(stitched: Stitched) -> dict[str, float]:
    """Write a map's pyramid and read every level back."""
    path = stitched.folder / "map.ome.tif"
    before, start, cpu = forget_peak(), time.perf_counter(), time.process_time()
    write_ome_tiff(stitched.additive, path)
    figures = {"pyramid_s": time.perf_counter() - start, "pyramid_cpu_s": time.process_time() - cpu}
    figures |= {"pyramid_peak_mib": peak_mib() - before, "file_mib": path.stat().st_size / 2**20}
    with tifffile.TiffFile(path) as tiff:
        levels = tiff.series[0].levels
        sums = [float(np.nansum(level.asarray(), dtype=np.float64)) for level in levels]
    worst = max(abs(total - stitched.map_sum) for total in sums)
    return figures | {"levels": len(sums), "level_error": worst / stitched.absolute_sum}


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """All figures of a case, the median of each over ``rounds``."""
    turns = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            figures, stitched = alone(stitch, case, Path(folder))
            turns.append(figures | alone(write, stitched))
    height, width = stitched.shape
    row = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    return {
        "width_px": case.width,
        "height_px": case.height,
        "out_mpp": f"{case.out_mpp:g}",
        "cells": case.cells,
        "targets": case.targets,
        "order": case.order,
        "map_width": width,
        "map_height": height,
        "peak_mib_per_1000_map_px": f"{row['stitch_peak_mib'] / width * 1000:.1f}",
        "rounds": rounds,
        "machine": machine(),
        **{name: f"{value:.1e}" for name, value in row.items() if name in _ERRORS},
        **{name: f"{value:.0f}" for name, value in row.items() if name in ("tiles", "levels")},
        **{name: f"{value:.1f}" for name, value in row.items() if name.endswith(("_mib", "_s"))},
    }


_ERRORS = ("accounted", "level_error")


def machine() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), "cpu")


def main() -> None:
    """Measure and write the table; fails where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=int, help="slides of this width")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: figures are of one thread")
    rows = []
    for case in CASES:
        if options.only in (None, case.width):
            rows.append(measure(case, options.rounds))
            told = {name: rows[-1][name] for name in FIELDS if name not in ("rounds", "machine")}
            print(", ".join(f"{name} {value}" for name, value in told.items()), flush=True)
    with complete_file(options.out) as draft, draft.open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    over = [
        f"{row['width_px']} x {row['height_px']} px at {row['out_mpp']} um: {name} {row[name]}"
        for row in rows
        for name, most in (
            ("stitch_peak_mib", MAX_MIB),
            ("pyramid_peak_mib", MAX_MIB),
            ("stitch_cpu_s", MAX_SECONDS),
            ("pyramid_cpu_s", MAX_SECONDS),
            ("accounted", 1e-12),
            ("level_error", 1e-7),
        )
        if float(row[name]) > most
    ]
    if over:
        raise SystemExit("over the target:\n" + "\n".join(over))


if __name__ == "__main__":
    main()
