"""Time and memory of stitching a slide of 100,000 x 100,000 pixels; prints one line per slide.

Tiles of 224 px at 0.5 mpp with 50 % overlap on a 0.25 mpp slide, each with random 14 x 14
contributions, stitched at 8 and at 2 um per pixel. Tissue is a disc under about 30 % of the slide;
``--all`` puts tiles everywhere. Every slide runs in a fresh process, so that each peak is its own::

    OMP_NUM_THREADS=1 python scripts/benchmark_stitch.py [--all]
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from pathology.explain.stitch import Stitcher
from pathology.geometry import Box, Mpp, Size

TILE, STRIDE = 448.0, 224.0


def peak_mib() -> float:
    """The process's largest resident size so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def positions(side: int, everywhere: bool) -> list[tuple[float, float]]:
    """Tile corners from top to bottom, in level-0 pixels."""
    steps = np.arange(0.0, side - TILE + 1, STRIDE)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    centre, radius = (side - TILE) / 2, side * 0.31
    keep = np.hypot(x - centre, y - centre) < (np.inf if everywhere else radius)
    return list(zip(x[keep].tolist(), y[keep].tolist(), strict=True))


def measure(side: int, out_mpp: float, everywhere: bool) -> None:
    """Stitch one square slide of ``side`` level-0 pixels at ``out_mpp`` and print the figures."""
    corners = positions(side, everywhere)
    rng = np.random.default_rng(0)
    # A thousand different maps, taken in turn: the tiles' own memory must not hide the stitcher's.
    maps = rng.standard_normal((1000, 14, 14)).astype(np.float32)
    weight = 1.0 / len(corners)
    expected = weight * sum(float(maps[i % 1000].sum(dtype=float)) for i in range(len(corners)))
    with tempfile.TemporaryDirectory() as folder:
        baseline, start = peak_mib(), time.perf_counter()
        stitcher = Stitcher(
            Size(side, side), Mpp(0.25, 0.25), out_mpp, Size(TILE, TILE), Path(folder)
        )
        for i, (x, y) in enumerate(corners):
            stitcher.add(Box(x, y, TILE, TILE), maps[i % 1000], weight)
        stitched = stitcher.finish()
        seconds, peak = time.perf_counter() - start, peak_mib() - baseline
    height, width = stitched.shape
    accounted = stitched.map_sum + stitched.rounding + stitched.cut_off
    print(
        f"{side:,} px, {len(corners):,} tiles -> {width} x {height}: {seconds:.1f} s, "
        f"peak {peak:.0f} MiB above {baseline:.0f} MiB, sum |c| {stitched.absolute_sum:.4g}, "
        f"error {abs(accounted - expected):.1e}, float32 rounding {stitched.rounding:.1e}",
        flush=True,
    )


def main() -> None:
    """Run a quarter of the area, the whole, and the whole with sixteen times the pixels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="tiles everywhere, not on a disc")
    everywhere = parser.parse_args().all
    context = multiprocessing.get_context("spawn")
    for side, out_mpp in ((50_000, 8.0), (100_000, 8.0), (100_000, 2.0)):
        process = context.Process(target=measure, args=(side, out_mpp, everywhere))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
