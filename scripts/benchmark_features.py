"""Time `pathology features` against reading alone and encoding alone, in turn, on a made-up slide.

A slide of JPEG tiles of 256 px as Aperio scanners write them; tiles of the same size::

    OMP_NUM_THREADS=1 taskset -c 0 python scripts/benchmark_features.py     # some two minutes

Twice. ``vit_tiny`` computes on this machine's own cores: on one core it takes turns with reading,
and the verb can at best take as long as both together; where others use the machine, tiles/s say
little, and milliseconds of a core are what to compare. ``elsewhere`` shows how well the verb
overlaps: reading waits as for a disk, and encoding as long as reading, as for a GPU that is just as
quick. That is the worst case; the verb can at best take as long as the slower of the two.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from operator import attrgetter
from pathlib import Path
from time import perf_counter, process_time, sleep

import imagecodecs
import numpy as np
import tifffile
import torch
from torch import Tensor, nn

from pathology.benchmark.timing import Ratio, take_turns
from pathology.cli.feature_slide import Extractor
from pathology.explain.tile_reader import read_batches
from pathology.runs.encoder_choice import EncoderChoice
from pathology.slides import open_slide
from pathology.synthetic.slide import render
from pathology.synthetic.spec import SyntheticSlideSpec
from pathology.tiling import GridSource, TileGrid, TileSpec

BOX = attrgetter("box")
SIDE, TILE, MPP, MOSAIC, BATCH, READERS = 4096, 256, 0.25, 2048, 16, 4
WAIT = "BENCHMARK_WAIT_S"  # per tile


class Disk:
    """A slide whose tiles take their time, and nothing of this machine's."""

    def read(self, *_: object, **__: object) -> np.ndarray:
        sleep(0.02)
        return np.zeros((TILE, TILE, 3), np.uint8)


class Elsewhere(nn.Module):
    """Takes its time without taking this machine's."""

    def forward(self, tiles: Tensor) -> Tensor:
        sleep(float(os.environ[WAIT]) * len(tiles))
        return tiles[:, :, 0, :128].float().flatten(1)


class elsewhere:
    """What ``--encoder benchmark_features:elsewhere`` names."""

    name, dims, module = "elsewhere", 384, Elsewhere()

    @staticmethod
    def transform(tiles: Tensor) -> Tensor:
        return tiles


def write_slide(path: Path) -> None:
    """A slide that repeats a picture of tissue."""
    picture = render(
        SyntheticSlideSpec(seed=3, size_px=(16_384, 16_384), mpp=MPP), 6144, 4096, MOSAIC, MOSAIC
    ).rgb
    across = MOSAIC // TILE

    def tiles() -> Iterator[bytes]:
        for row, column in np.ndindex(SIDE // TILE, SIDE // TILE):
            y, x = row % across * TILE, column % across * TILE
            tile = np.ascontiguousarray(picture[y : y + TILE, x : x + TILE])
            yield bytes(imagecodecs.jpeg8_encode(tile, level=80, subsampling="420"))

    tifffile.imwrite(
        path, tiles(), shape=(SIDE, SIDE, 3), dtype=np.uint8, tile=(TILE, TILE),
        photometric="ycbcr", compression="jpeg", subsampling=(2, 2), metadata=None, software=False,
        description=f"Aperio Image Library v12.0.15\r\n{SIDE}x{SIDE}|AppMag = 40|MPP = {MPP}",
    )  # fmt: skip


def compare(name: str, choice: EncoderChoice, path: Path, grid: TileGrid, budget_s: float) -> None:
    """Print how the verb compares with its parts."""
    folder = path.parent
    out = folder / name
    out.mkdir()
    work = Extractor(
        choice, folder, out, grid.spec, batch_size=BATCH, readers=READERS, device="cpu"
    )
    encoder, row = work.loaded.encoder, {"slide_id": path.stem, "path": str(path), "mpp": None}
    is_waiting = name == "elsewhere"

    def read() -> None:
        with nullcontext(Disk()) if is_waiting else open_slide(path) as slide:
            for _ in read_batches(slide, grid, BOX, grid.spec.mpp, BATCH, READERS):
                pass

    with open_slide(path) as slide:
        _, ready = next(read_batches(slide, grid, BOX, grid.spec.mpp, BATCH, READERS))
    start = perf_counter()
    read()
    os.environ[WAIT] = str((perf_counter() - start) / len(grid))

    def encode() -> None:
        for first in range(0, len(grid), BATCH):
            encoder(ready[: min(BATCH, len(grid) - first)])

    def verb() -> None:
        if is_waiting:
            for _ in work._rows(Disk(), grid, None):
                pass
            return
        work(row)
        (out / f"{path.stem}.h5").unlink()

    names, cores = ("reading", "encoding", "features"), [[], [], []]
    runs = [counted(*pair) for pair in zip((read, encode, verb), cores, strict=True)]
    times = take_turns(runs, budget_s, torch.device("cpu"))
    reading, encoding, both = times
    for what, taken, busy in zip(names, times, cores, strict=True):
        speed, core = len(grid) / statistics.median(taken), statistics.median(busy) / len(grid)
        print(f"{name}: {what} {speed:,.0f} tiles/s, {core * 1e3:.2f} ms of a core per tile")
    slower = [max(turn) for turn in zip(reading, encoding, strict=True)]
    summed = [sum(turn) for turn in zip(reading, encoding, strict=True)]
    for what, best in (("the slower of the two", slower), ("both, one after the other", summed)):
        ratio = Ratio.of(both, best)
        print(f"{name}: x{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) of {what}")


def counted(run: Callable[[], None], cores: list[float]) -> Callable[[], None]:
    """The same, noting how long it kept a core busy, whoever else wanted it."""

    def counting() -> None:
        start = process_time()
        run()
        cores.append(process_time() - start)

    return counting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget-s", type=float, default=60, help="for each encoder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "slide.svs"
        write_slide(path)
        with open_slide(path) as slide:
            source = GridSource.of(slide)
        x, y = (side.ravel() * TILE for side in np.indices((SIDE // TILE, SIDE // TILE))[::-1])
        grid = TileGrid(TileSpec(TILE, MPP), source, x, y, np.ones(x.size))
        grid.save(path.with_suffix(".parquet"))
        shape = {"img_size": 256, "patch_size": 32, "depth": 1}
        vit = EncoderChoice("vit_tiny_patch16_224", seed=0, arguments=shape)
        compare("elsewhere", EncoderChoice("benchmark_features:elsewhere"), path, grid,
                arguments.budget_s)  # fmt: skip
        compare("vit_tiny", vit, path, grid, arguments.budget_s)


if __name__ == "__main__":
    main()
