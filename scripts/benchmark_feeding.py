"""Time feeding a model: loaders alone, and loader with model; write docs/feeding.csv.

Four slides of 20,480 px, JPEG tiles of 256 px as Aperio scanners write them, one level. Loaders
take turns at one epoch of shuffled batches each, their workers running since before; ratios are of
neighbouring turns, with medians and quartiles::

    OMP_NUM_THREADS=1 python scripts/benchmark_feeding.py                      # some ten minutes
    OMP_NUM_THREADS=1 python scripts/benchmark_feeding.py --rounds 1 --tiles 256 --out /tmp/f.csv

Loaders: "slides" are ``SlideTiles``, aligned to the file's tiles and not (224 px); "shards" are
``ShardTiles``, of stored JPEG passed through and of PNG; "openslide" is the data set that people
write, a kept handle in each worker; "monai" is ``PatchWSIDataset``. The first batch of aligned
tiles of every loader is compared, pixel by pixel, with what OpenSlide reads.

Then end to end: batches of ``TileDataModule`` read by one worker and training on this process's one
thread, against the slower of the two alone: a small network, whose step takes about as long as
reading does, where overlap matters most, and a B-cos ResNet-18. This takes two free cores.
"""

import argparse
import csv
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pandas as pd
import tifffile
import torch
from monai.data import DataLoader, PatchWSIDataset
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from bcos_vit.models import create_model
from pathology.cli.pack import PackOne
from pathology.data.augment import batch_augmentation
from pathology.data.modules import TileDataModule
from pathology.outputs import complete_file
from pathology.slides import open_slide
from pathology.synthetic.slide import render
from pathology.synthetic.spec import SyntheticSlideSpec
from pathology.tiling import GridSource, TileGrid, TileSpec

OUT = Path(__file__).parents[1] / "docs" / "feeding.csv"
SLIDES, SIDE, STORED, MPP, MOSAIC = 4, 20_480, 256, 0.25, 2048
BATCH = 64
SLOW_SHARE = 8  # MONAI gets an eighth of the tiles; its time per tile does not depend on how many
CLASSES = ["a", "b"]
FIELDS = (
    "what", "workers", "tile_px", "tiles_per_s", "tiles_per_s_low", "tiles_per_s_high",
    "times_openslide", "times_low", "times_high", "rounds", "machine", "cores",
)  # fmt: skip

Epoch = Callable[[], float]  # runs once, returns tiles per second


def write_slides(folder: Path) -> pd.DataFrame:
    """The slides and their manifest."""
    spec = SyntheticSlideSpec(seed=3, size_px=(16_384, 16_384), mpp=MPP)
    rows = []
    for number in range(SLIDES):
        mosaic = render(spec, 6144, 4096 + number * MOSAIC, MOSAIC, MOSAIC).rgb
        path = folder / f"slide_{number}.svs"
        tifffile.imwrite(
            path,
            repeated(mosaic),
            shape=(SIDE, SIDE, 3),
            dtype=np.uint8,
            tile=(STORED, STORED),
            photometric="ycbcr",
            compression="jpeg",
            subsampling=(2, 2),
            description=f"Aperio Image Library v12.0.15\r\n{SIDE}x{SIDE}|AppMag = 40|MPP = {MPP}",
            metadata=None,
            software=False,
        )
        rows.append({"slide_id": path.stem, "path": str(path), "split": "train"})
    table = pd.DataFrame(rows)
    table.to_csv(folder / "slides.csv", index=False)
    return table


def repeated(mosaic: NDArray[np.uint8]) -> Iterator[bytes]:
    """Encoded tiles of a slide, row by row, that repeats a smaller picture."""
    across = MOSAIC // STORED
    corners = np.ndindex(across, across)
    tiles = [
        bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=80, subsampling="420"))
        for tile in (
            mosaic[y * STORED : (y + 1) * STORED, x * STORED : (x + 1) * STORED] for y, x in corners
        )
    ]
    for row, column in np.ndindex(SIDE // STORED, SIDE // STORED):
        yield tiles[row % across * across + column % across]


def write_grids(table: pd.DataFrame, folder: Path, size_px: int, tiles: int) -> None:
    """Square fields of neighbouring tiles, so many in all."""
    folder.mkdir()
    across = int(np.ceil(np.sqrt(tiles / SLIDES)))
    y, x = np.divmod(np.arange(tiles // SLIDES), across)
    for record in table.to_dict("records"):
        with open_slide(record["path"]) as slide:
            source = GridSource.of(slide)
        grid = TileGrid(
            TileSpec(size_px, MPP), source, x * size_px + STORED, y * size_px + STORED,
            np.ones(len(x)), {"label": np.array(CLASSES)[np.arange(len(x)) % 2]},
        )  # fmt: skip
        grid.save(folder / f"{record['slide_id']}.parquet")


class KeptOpenSlide(Dataset):
    """Tiles as a plain PyTorch data set around OpenSlide reads them."""

    def __init__(self, places: list[tuple[str, int, int]], size_px: int) -> None:
        self.places, self.size_px = places, size_px
        self.handles: dict[str, openslide.OpenSlide] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, x, y = self.places[index]
        if path not in self.handles:
            self.handles[path] = openslide.OpenSlide(path)
        region = self.handles[path].read_region((x, y), 0, (self.size_px, self.size_px))
        pixels = np.asarray(region.convert("RGB")).transpose(2, 0, 1)
        return {"image": torch.from_numpy(pixels.copy()), "label": index % 2}


def places_of(table: pd.DataFrame, folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for record in table.to_dict("records"):
        grid = TileGrid.load(folder / f"{record['slide_id']}.parquet")
        found += [(record["path"], int(x), int(y)) for x, y in zip(grid.x, grid.y, strict=True)]
    return found


def timed(loader: DataLoader) -> Epoch:
    """One pass; whatever starts with the first pass has started."""
    next(iter(loader))

    def epoch() -> float:
        start, tiles = time.perf_counter(), 0
        for batch in loader:
            tiles += len(batch["image"])
        return tiles / (time.perf_counter() - start)

    return epoch


def loaders(table: pd.DataFrame, folder: Path, workers: int) -> Iterator[tuple[str, int, Epoch]]:
    """Name, tile side and pass of every contender."""
    options: dict[str, Any] = {
        "batch_size": BATCH, "num_workers": workers, "persistent_workers": workers > 0,
        "shuffle": True,
    }  # fmt: skip
    for size_px in (STORED, 224):
        places = places_of(table, folder / f"tiles_{size_px}")
        yield "openslide", size_px, timed(DataLoader(KeptOpenSlide(places, size_px), **options))
        yield (
            "slides",
            size_px,
            timed(module(folder, workers, f"tiles_{size_px}").loader("train", True)),
        )
        if size_px == STORED:
            items = [{"image": path, "location": (y, x), "label": 0} for path, x, y in places]
            monai = PatchWSIDataset(
                items[::SLOW_SHARE], STORED, 0, center_location=False, reader="openslide"
            )
            yield "monai", size_px, timed(DataLoader(monai, **options))
        kind = "passed through" if size_px == STORED else "png"
        packed = module(folder, workers, shards=f"shards_{size_px}")
        yield f"shards, {kind}", size_px, timed(packed.loader("train", True))


def module(
    folder: Path, workers: int, tiles: str | None = None, shards: str | None = None
) -> TileDataModule:
    return TileDataModule(
        str(folder / "slides.csv"), CLASSES, tiles=tiles and str(folder / tiles),
        shards=shards and str(folder / shards), batch_size=BATCH, num_workers=workers,
    )  # fmt: skip


def check_pixels(table: pd.DataFrame, folder: Path) -> None:
    """Refuse to compare loaders that do not give the same pixels."""
    wanted = KeptOpenSlide(places_of(table, folder / f"tiles_{STORED}"), STORED)
    for data in (module(folder, 0, f"tiles_{STORED}"), module(folder, 0, None, f"shards_{STORED}")):
        dataset = data.dataset("train")
        assert len(dataset) == len(wanted)
        for index in range(0, len(wanted), max(1, len(wanted) // BATCH)):
            assert torch.equal(dataset[index]["image"], wanted[index]["image"]), index


def interleaved(epochs: dict[Any, Epoch], rounds: int) -> dict[Any, list[float]]:
    """Tiles per second of everyone's passes, turn by turn."""
    found: dict[Any, list[float]] = {name: [] for name in epochs}
    for turn in range(rounds):
        for name in list(epochs)[:: 1 if turn % 2 == 0 else -1]:
            found[name].append(epochs[name]())
    return found


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Median and quartiles."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


class Small(nn.Module):
    """Looks at every other pixel, by one layer: a step takes about as long as reading a batch."""

    augment = "none"
    batches = 24

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, 2),
        )  # fmt: skip

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        return self.layers(tiles[:, :, ::2, ::2].float() / 255)


class Real(nn.Module):
    """A B-cos ResNet-18, trained with varied tiles."""

    augment = "turns+colour"
    batches = 2

    def __init__(self) -> None:
        super().__init__()
        self.network = create_model("bcos_resnet18", num_classes=2)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        images = tiles.float() / 255
        return self.network(torch.cat([images, 1 - images], 1))


def end_to_end(table: pd.DataFrame, folder: Path, network: Small | Real) -> dict[str, Epoch]:
    """Passes of reading alone, of training alone, and of both."""
    folder.mkdir()
    table.to_csv(folder / "slides.csv", index=False)
    write_grids(table, folder / "tiles", STORED, BATCH * network.batches)
    loader = module(folder, 1, "tiles").loader("train", True)
    augmentation = batch_augmentation(network.augment)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    ready = next(iter(loader))

    def train(batches: Iterable[dict[str, torch.Tensor]]) -> float:
        start, tiles = time.perf_counter(), 0
        for batch in batches:
            logits = network(augmentation(batch["image"]))
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, batch["label"]).backward()
            optimizer.step()
            tiles += len(batch["image"])
        return tiles / (time.perf_counter() - start)

    train([ready])
    return {
        "read": timed(loader),
        "train": lambda: train([ready] * len(loader)),
        "both": lambda: train(loader),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=4096, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    machine = {"machine": processor(), "cores": len(os.sched_getaffinity(0))}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table = write_slides(folder)
        for size_px in (STORED, 224):
            write_grids(table, folder / f"tiles_{size_px}", size_px, arguments.tiles)
            out = folder / f"shards_{size_px}"
            out.mkdir()
            packer = PackOne(folder / f"tiles_{size_px}", out, 2048, None)
            start = time.perf_counter()
            for row in table.to_dict("records"):
                said = packer({str(key): value for key, value in row.items()})
            rate = arguments.tiles / (time.perf_counter() - start)
            print(f"packing {size_px} px: {rate:.0f} tiles/s; last: {said.partition(': ')[2]}")
        check_pixels(table, folder)
        for workers in arguments.workers:
            epochs = {(n, side): epoch for n, side, epoch in loaders(table, folder, workers)}
            found = interleaved(epochs, arguments.rounds)
            for (name, side), speeds in found.items():
                ratios = [a / b for a, b in zip(speeds, found["openslide", side], strict=True)]
                rows.append(entry(name, workers, side, speeds, ratios) | machine)
        for network in (Small(), Real()):
            name = type(network).__name__.lower()
            found = interleaved(end_to_end(table, folder / name, network), arguments.rounds)
            rows += [
                entry(f"{name}, {what}", 1, STORED, speeds, []) | machine
                for what, speeds in found.items()
            ]
            turns = zip(*found.values(), strict=True)
            loss = [min(read, train) / both - 1 for read, train, both in turns]
            middle, low, high = quartiles(loss)
            print(
                f"{name}: both take {middle:+.1%} ({low:+.1%} to {high:+.1%}) over the slower of"
                " reading and training; at most +15 % is wanted"
            )
    with complete_file(arguments.out) as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{arguments.out}: {len(rows)} rows")


def entry(
    what: str, workers: int, side: int, speeds: list[float], ratios: list[float]
) -> dict[str, Any]:
    """A row, also printed."""
    middle, low, high = quartiles(speeds)
    row: dict[str, Any] = {
        "what": what, "workers": workers, "tile_px": side, "tiles_per_s": f"{middle:.0f}",
        "tiles_per_s_low": f"{low:.0f}", "tiles_per_s_high": f"{high:.0f}", "rounds": len(speeds),
    }  # fmt: skip
    line = (
        f"{what:<24} {workers} workers, {side} px: {middle:7.0f} tiles/s ({low:.0f} to {high:.0f})"
    )
    if ratios:
        times, least, most = quartiles(ratios)
        row |= {"times_openslide": f"{times:.2f}"}
        row |= {"times_low": f"{least:.2f}", "times_high": f"{most:.2f}"}
        line += f", {times:.2f} times openslide ({least:.2f} to {most:.2f})"
    print(line, flush=True)
    return row


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = (
        [s for s in info.read_text().splitlines() if s.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0].partition(":")[2].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
