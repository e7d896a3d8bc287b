"""Seams before and after: tiles alone, tiles that overlap, dense blocks; write docs/seams.csv.

On synthetic slides a small CNN is trained on padded tiles, the same CNN densely, and a small ViT;
one slide is explained with each, the first and the last also with 50 % overlap. Every explanation
goes through the same verbs that a user has. Then what a dense evaluation costs, for the full
ResNet-18 with random weights (time does not depend on them): rounds in which all ways take turns,
in CPU time per tile and as ratios to padded tiles. Writes ``seams.csv`` and ``dense_cost.csv`` to
docs, and ``seams.png``, the five maps side by side, to the working folder::

    OMP_NUM_THREADS=1 python scripts/seam_energy.py --work /tmp/seams       # a quarter of an hour
    OMP_NUM_THREADS=1 python scripts/seam_energy.py --work /tmp/seams --only cost

Seam energy (pathology/explain/stitching/seams.py) is of density maps at 2 um per pixel: 1 without
seams. ``values`` is what repeats in each tile, ``steps`` the jumps between tiles; at the period of
the ``tile``, or of the ``stride`` from one to the next, which overlap makes shorter. ``values_own``
leaves out harmonics of the network's own cells.
"""

import argparse
import csv
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bcos_vit.explain import explain
from bcos_vit.models import create_model
from bcos_vit.models.dense import CellReadout, Dense
from bcos_vit.render import heat
from pathology.cli import main as pathology
from pathology.explain.results.overlay import heat_layer
from pathology.explain.stitching.seams import Of, seam_energy
from pathology.maps.ome_tiff import read_ome_tiff
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_file
from pathology.synthetic import make_cohort

DOCS = Path(__file__).parents[1] / "docs"
TILE_PX, MPP, SLIDE_PX, OUT_MPP = 96, 0.5, 2048, 2.0
CNN = "bcos_densenet121", "{growth_rate: 16, block_config: [2, 2, 2]}"
VIT = "bcos_vitc_tiny_patch16_224", "{img_size: 96, depth: 4}"
HALO_PX, CELL_PX = 64, 16
KINDS: tuple[Of, ...] = ("values", "steps")


@dataclass(frozen=True)
class Training:
    """A run: a network, seen in some way."""

    name: str
    network: tuple[str, str]
    lr: float
    epochs: int
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A map: a run, and how its tiles lie."""

    name: str
    run: str
    overlap_px: int


RUNS = (
    Training("cnn", CNN, 2e-3, 6),
    Training("dense", CNN, 2e-3, 6, ("--data.dense_halo_px", str(HALO_PX))),
    Training("vit", VIT, 5e-4, 8),
)
CASES = (
    Case("CNN, padded tiles", "cnn", 0),
    Case("CNN, padded tiles, 50 % overlap", "cnn", TILE_PX // 2),
    Case("CNN, dense", "dense", 0),
    Case("ViT, tiles", "vit", 0),
    Case("ViT, tiles, 50 % overlap", "vit", TILE_PX // 2),
)


def verb(*words: Any) -> None:
    """Run a verb, which must succeed."""
    if code := pathology([str(word) for word in words]):
        raise SystemExit(code)


def train_all(work: Path) -> Path:
    """The slides' manifest, once all runs are trained."""
    slides = make_cohort(
        work / "slides", train=2, val=1, test=1, size_px=(SLIDE_PX, SLIDE_PX), mpp=MPP
    )
    tiles = work / "tiles"
    verb("tile", "--slides", slides, "--out", tiles, "--size-px", TILE_PX, "--tile-mpp", MPP)
    for run in RUNS:
        verb(
            "train", "--out", work / run.name, "--model.model", run.network[0],
            "--model.model_args", run.network[1], "--model.lr", run.lr,
            "--data.manifest", slides, "--data.tiles", tiles, "--data.num_workers", 0,
            "--data.classes", "[normal, tumour]", "--data.batch_size", 16,
            "--trainer.max_epochs", run.epochs, "--trainer.accelerator", "cpu",
            "--trainer.enable_progress_bar", "false", *run.more,
        )  # fmt: skip
    return slides


def measure_seams(work: Path) -> list[dict[str, Any]]:
    """A row per map, and the maps' picture."""
    slide = train_all(work).parent / "test_000.tif"
    rows, maps = [], []
    for case in CASES:
        tiles = work / f"everywhere_{case.overlap_px}"
        verb(
            "tile", "--slides", slide, "--out", tiles, "--size-px", TILE_PX, "--tile-mpp", MPP,
            "--min-tissue", 0, "--overlap-px", case.overlap_px,
        )  # fmt: skip
        out = work / "explained" / f"{case.run}_{case.overlap_px}"
        verb(
            "explain", "--run", work / case.run, "--slides", slide, "--tiles", tiles, "--out", out,
            "--target", "tumour", "--out-mpp", OUT_MPP, "--device", "cpu",
        )  # fmt: skip
        folder = out / "test_000" / "tumour"
        density, _ = read_ome_tiff(folder / "density.ome.tif")
        found = {}
        for of in KINDS:
            for name, side in (("tile", TILE_PX), ("stride", TILE_PX - case.overlap_px)):
                found[f"{of}_{name}"] = f"{seam_energy(density, (side, side), of=of).ratio:.2f}"
        tile, cell = (TILE_PX, TILE_PX), (CELL_PX, CELL_PX)
        found["values_own"] = f"{seam_energy(density, tile, own_lattice=cell).ratio:.2f}"
        best = json.loads((work / case.run / "metrics.json").read_text())["best"]
        rows.append(
            {
                "map": case.name,
                "tile_px": TILE_PX,
                "overlap_px": case.overlap_px,
                "halo_px": HALO_PX if case.run == "dense" else 0,
                "tiles": len(pd.read_parquet(folder / "tiles.parquet")),
                "val_auroc": f"{best['val_auroc']:.3f}",
                **found,
            }
        )
        maps.append(density)
        print(rows[-1], flush=True)
    draw(work / "seams.png", [case.name for case in CASES], maps, rows)
    return rows


def draw(
    path: Path, names: Sequence[str], maps: Sequence[SlideMap], rows: Sequence[dict[str, Any]]
) -> None:
    """The maps side by side, each on its own scale, and the same corner enlarged below."""
    figure = Figure(figsize=(4 * len(maps), 8.4), dpi=100)
    axes = figure.subplots(2, len(maps))
    for column, (name, slide_map, row) in enumerate(zip(names, maps, rows, strict=True)):
        layer = heat_layer(slide_map, quantile=0.99)
        picture = heat(layer.density, layer.limit)
        for place, part in ((0, picture), (1, picture[150:350, 150:350])):
            axes[place, column].imshow(part, interpolation="nearest")
            axes[place, column].set_axis_off()
        axes[0, column].set_title(
            f"{name}\nseams {row['values_stride']}, steps {row['steps_stride']}", fontsize=11
        )
    figure.tight_layout()
    with complete_file(path) as draft:
        FigureCanvasAgg(figure).print_png(str(draft))


# --- what it costs ------------------------------------------------------------------------------


def measure_cost(rounds: int, tile_px: int = 224) -> list[dict[str, Any]]:
    """CPU time per tile of a ResNet-18, scoring and explaining, against padded tiles."""
    torch.manual_seed(0)
    network = create_model("bcos_resnet18", num_classes=2).eval()
    dense = Dense(network)
    ways: dict[str, tuple[int, Callable[[bool], None]]] = {
        "padded tiles": (8, lambda again: on_images(network, 8, tile_px, again)),
        # Overlap by half: four times as many tiles cover the same tissue.
        "padded tiles, 50 % overlap": (2, lambda again: on_images(network, 8, tile_px, again)),
    }
    for side in (1, 2, 4):
        ways[f"dense, blocks of {side} x {side}"] = (
            side**2,
            lambda again, side=side: on_block(dense, side, tile_px, again),
        )
    rows = []
    for what in ("scoring", "explaining"):
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, (tiles, run) in ways.items():
                began = time.process_time()
                run(what == "explaining")
                if number:  # the first round warms up
                    times[name].append((time.process_time() - began) / tiles)
            print(what, number, flush=True)
        base = times["padded tiles"]
        for name, seconds in times.items():
            ratios = sorted(a / b for a, b in zip(seconds, base, strict=True))
            rows.append(
                {
                    "what": what,
                    "way": name,
                    "model": "bcos_resnet18",
                    "tile_px": tile_px,
                    "halo_px": dense.halo_px if "dense" in name else 0,
                    "seconds_per_tile": f"{statistics.median(seconds):.4f}",
                    "ratio": f"{statistics.median(ratios):.2f}",
                    "ratio_low": f"{ratios[0]:.2f}",
                    "ratio_high": f"{ratios[-1]:.2f}",
                    "rounds": rounds,
                    "threads": torch.get_num_threads(),
                    "machine": machine(),
                }
            )
    return rows


def on_images(network: torch.nn.Module, count: int, side: int, explained: bool) -> None:
    """Score or explain tiles by themselves."""
    images = torch.rand(count, 6, side, side)
    if explained:
        explain(network, images, 0)
        return
    with torch.no_grad():
        network(images)


def on_block(dense: Dense, side: int, tile_px: int, explained: bool) -> None:
    """Score or explain a block of tiles with its halo."""
    images = torch.rand(1, 6, *[side * tile_px + 2 * dense.halo_px] * 2)
    if not explained:
        with torch.no_grad():
            dense.tile_logits(images, tile_px)
        return
    cells = side * dense.cells(tile_px)
    weights = torch.zeros(1, 1, 2, cells, cells)
    weights[:, :, 0] = 1 / cells**2
    explain(CellReadout(dense, weights), images, 0)


def machine() -> str:
    """The processor, as the system calls it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """A CSV, complete or as it was."""
    with complete_file(path) as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(pd.DataFrame(rows).to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for slides, runs, maps")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the tables")
    parser.add_argument("--only", choices=("seams", "cost"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.only != "cost":
        write(arguments.out / "seams.csv", measure_seams(arguments.work))
    if arguments.only != "seams":
        write(arguments.out / "dense_cost.csv", measure_cost(arguments.rounds))


if __name__ == "__main__":
    main()
