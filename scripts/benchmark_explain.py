"""Which stage limits a slide's heatmap, and how near the whole comes to it; docs/explaining.csv.

A synthetic slide, or a real one with ``--slide``, and B-cos networks of random weights. Per setting
(depth, share of detail, number of targets) five things take turns: "read", the windows that the
explanation reads and nothing else; "model", the same passes over windows in memory; "stitch", the
same contributions onto maps; "picture", the slide as results show it, once per slide however many
its tiles; and "whole", ``explain_targets`` with all of it, the first three overlapped. Reading is
from a warm page cache, no tile decoded before, by as many threads as by default; the model runs on
``--device``::

    OMP_NUM_THREADS=1 python scripts/benchmark_explain.py                  # half an hour, two cores
    python scripts/benchmark_explain.py --device cuda --tiles 2048         # a machine with a GPU
    OMP_NUM_THREADS=1 python scripts/benchmark_explain.py --tiles 16 --rounds 1 --out /tmp/e.csv

``times_slower`` is the whole against the slower of reading and model, the median and range over
neighbouring turns; ``stitch_share`` the stitching alone in shares of the whole; ``cpu_times_parts``
the processor time of the whole against the sum of the four, which other work on the machine does
not sway so much: what is above 1 is spent between the stages. ``load`` is how many processes wanted
a core in the last minute: much above ``threads``, other work is what the clock has measured.
"""

import argparse
import csv
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bcos_vit.models import create_model
from pathology.explain.results.view import SlideView
from pathology.explain.scorers.pooled_logits import PooledLogits
from pathology.explain.scorers.scorer import Scorer, Window, each_tile
from pathology.explain.slide import SlideExplanation, explain_targets
from pathology.explain.stitching.stitch import Stitcher
from pathology.explain.targets import parse_target
from pathology.explain.tile_reader import read_batches
from pathology.geometry import Box
from pathology.outputs import complete_file
from pathology.slides import Slide, open_slide
from pathology.slides.tile_cache import DECODED
from pathology.synthetic import SyntheticSlideSpec, write_slide
from pathology.tasks.encoding import TileEncoding
from pathology.tiling import TileGrid, TileSpec, tile_slide

OUT = Path(__file__).parents[1] / "docs" / "explaining.csv"
CLASSES = ["normal", "stroma", "tumour"]
TARGETS = ["tumour", "normal", "stroma"]
DEPTHS = {
    "bcos_resnet18": ("pixels", "layer3", "head"),
    "bcos_vit_tiny_patch16_224": ("pixels", "blocks.5", "head"),
}
OUT_MPP, BATCH = 8.0, 16
PARTS = ("read", "model", "stitch", "picture")
MOST_TIMES, MOST_SHARE = 1.10, 0.05
FIELDS = (
    "model", "depth", "targets", "detail", "tiles", "taken_apart", "read_s", "model_s", "stitch_s",
    "picture_s", "whole_s", "times_slower", "times_slower_low", "times_slower_high", "stitch_share",
    "cpu_times_parts", "limit", "whole_tiles_per_s", "rounds", "device", "cores", "threads", "load",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    model: str
    depth: str
    targets: int
    detail: float


def settings(model: str) -> list[Setting]:
    """Of pixels every combination, of other depths the ends."""
    pixels, *others = DEPTHS[model]
    some = [(pixels, targets, detail) for targets in (1, 3) for detail in (1.0, 0.9)]
    some += [(depth, *rest) for depth in others for rest in ((1, 1.0), (3, 0.9))]
    return [Setting(model, *each) for each in some]


@dataclass(frozen=True)
class Turn:
    """Seconds of one stage: on the clock, and of the processor."""

    wall: float
    cpu: float


class Bench:
    """The stages of one setting.

    Args:
        slide, grid: what is explained.
        scorer: the model.
        setting: how.
        folder: for maps.
    """

    def __init__(
        self, slide: Slide, grid: TileGrid, scorer: Scorer, setting: Setting, folder: Path
    ) -> None:
        self.slide, self.grid, self.scorer, self.setting = slide, grid, scorer, setting
        self.folder, self.targets = folder, TARGETS[: setting.targets]
        passes: list[str] = []

        def watch(batches: Iterable[Any], _total: int, what: str) -> Iterable[Any]:
            passes.append(what)
            return batches

        results = self._explained(watch)
        # Tiles that stay whole have no positive and negative parts.
        apart = np.any([each.tiles["positive"].notna() for each in results], axis=0)
        every = each_tile(grid, np.arange(len(grid)))
        self.apart = each_tile(grid, np.flatnonzero(apart))
        self.passes = [self.apart if what == "explaining" else every for what in passes]
        self.in_memory = {
            id(windows): list(self._batches(windows))
            for windows in (every, self.apart)
            if any(windows is each for each in self.passes)
        }
        self.placed = list(self._contributions(results))

    def _explained(self, progress: Callable[..., Any]) -> list[SlideExplanation]:
        return explain_targets(
            self.slide,
            self.grid,
            self.scorer,
            self.targets,
            out_mpp=OUT_MPP,
            batch_size=BATCH,
            detail=self.setting.detail,
            scratch=self.folder,
            progress=progress,
        )

    def _batches(self, windows: Sequence[Window]) -> Iterator[tuple[list[Window], Tensor]]:
        mpp, device = self.grid.spec.mpp, self.scorer.device
        return read_batches(self.slide, windows, lambda w: w.box, mpp, BATCH, device=device)

    def _taken_apart(self) -> Iterator[tuple[list[Window], int, Any]]:
        """The passes of an explanation over windows in memory."""

        def batches(windows: Sequence[Window], _: str) -> list[tuple[list[Window], Tensor]]:
            return next(b for w, b in self._held() if list(w) == list(windows))

        asked = [parse_target(text, CLASSES) for text in self.targets]
        plan = self.scorer.plan(self.grid, batches, asked, whole=self.setting.detail < 1)
        for windows, pixels in batches(self.apart, "explaining"):
            images = self.scorer.encoding(pixels)
            for target, found in enumerate(plan.explain(images, windows)):
                yield windows, target, found

    def _held(self) -> Iterator[tuple[list[Window], list[tuple[list[Window], Tensor]]]]:
        for windows in self.passes:
            yield windows, self.in_memory[id(windows)]

    def _contributions(
        self, results: list[SlideExplanation]
    ) -> Iterator[tuple[int, Box, np.ndarray, float]]:
        """What is put on maps: target, box, contributions and weight, from top to bottom."""
        found = []
        weights = [each.tiles["weight"].to_numpy() for each in results]
        for windows, target, explanation in self._taken_apart():
            values = explanation.contributions.double().cpu().numpy()
            for window, value in zip(windows, values, strict=True):
                found.append((target, window.box, value, weights[target][window.tiles[0]]))
        for target, each in enumerate(results):
            whole = each.tiles[each.tiles["positive"].isna() & (each.tiles["weight"] > 0)]
            for row in whole.itertuples():
                value = np.array([[row.contribution]])
                box = Box(row.x, row.y, row.width, row.height)
                found.append((target, box, value, row.weight))
        return iter(sorted(found, key=lambda it: (it[1].y, it[1].x)))

    def read(self) -> None:
        """Every window that the explanation reads."""
        for windows in self.passes:
            for _ in self._batches(windows):
                pass

    def model(self) -> None:
        """Both passes through the model."""
        for _ in self._taken_apart():
            pass
        if self.scorer.device.type == "cuda":
            torch.cuda.synchronize()

    def stitch(self) -> None:
        """Contributions onto maps."""
        width, height = self.grid.tile_size
        stitchers = [
            Stitcher(
                self.slide.size, self.slide.mpp, OUT_MPP, type(self.slide.size)(width, height),
                self.folder / "alone" / str(target),
            )
            for target in range(len(self.targets))
        ]  # fmt: skip
        for target, box, values, weight in self.placed:
            stitchers[target].add(box, values, weight)
        for stitcher in stitchers:
            stitcher.finish()

    def picture(self) -> None:
        """The slide in small."""
        SlideView.of(self.slide)

    def whole(self) -> None:
        """The explanation."""
        self._explained(lambda batches, _total, _what: batches)


def timed(stage: Callable[[], None]) -> Turn:
    """Run a stage once, with no tile of the slide decoded before."""
    DECODED.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    stage()
    return Turn(time.perf_counter() - wall, time.process_time() - cpu)


def measure(bench: Bench, rounds: int) -> dict[str, Any]:
    """Let the stages take turns; a row of the table."""
    setting, grid = bench.setting, bench.grid
    stages = {name: getattr(bench, name) for name in (*PARTS, "whole")}
    turns = []
    for number in range(rounds):
        order = list(stages) if number % 2 else list(stages)[::-1]
        turn = {name: timed(stages[name]) for name in order}
        turns.append(turn)
    median = {name: statistics.median(turn[name].wall for turn in turns) for name in stages}
    times = [turn["whole"].wall / max(turn["read"].wall, turn["model"].wall) for turn in turns]
    shares = [turn["stitch"].wall / turn["whole"].wall for turn in turns]
    parts = [turn["whole"].cpu / sum(turn[name].cpu for name in PARTS) for turn in turns]
    return {
        "model": setting.model,
        "depth": setting.depth,
        "targets": setting.targets,
        "detail": f"{setting.detail:g}",
        "tiles": len(grid),
        "taken_apart": len(bench.apart),
        **{f"{name}_s": f"{seconds:.3f}" for name, seconds in median.items()},
        "times_slower": f"{statistics.median(times):.3f}",
        "times_slower_low": f"{min(times):.3f}",
        "times_slower_high": f"{max(times):.3f}",
        "stitch_share": f"{statistics.median(shares):.4f}",
        "cpu_times_parts": f"{statistics.median(parts):.3f}",
        "limit": max(PARTS, key=lambda name: median[name]),
        "whole_tiles_per_s": f"{len(grid) / median['whole']:.1f}",
        "rounds": rounds,
        "device": device_name(bench.scorer.device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def device_name(device: torch.device) -> str:
    """The processor's name, or the card's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), "cpu")


def some_tiles(slide: Slide, count: int) -> TileGrid:
    """Tiles of 224 px at 0.5 mpp with 50 % overlap, so many from the middle of the tissue."""
    grid = tile_slide(slide, TileSpec(224, 0.5, overlap_px=112))
    first = max(0, (len(grid) - count) // 2)
    return grid.select(np.arange(first, min(first + count, len(grid))))


def main() -> None:
    """Measure every setting and write the table; names what misses a target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path, help="a real slide; else a synthetic one is made")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiles", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=4, help="even, for both orders")
    parser.add_argument("--models", nargs="+", default=list(DEPTHS), choices=list(DEPTHS))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = options.slide
        if path is None:
            side = 2048 + 64 * int(4 * options.tiles**0.5)
            spec = SyntheticSlideSpec(seed=3, size_px=(side, side), mpp=0.25)
            path = write_slide(spec, folder / "slide.tif").slide
        with open_slide(path) as slide:
            grid = some_tiles(slide, options.tiles)
            for model in options.models:
                torch.manual_seed(0)
                network = create_model(model, num_classes=len(CLASSES)).eval().to(options.device)
                for setting in settings(model):
                    depth = setting.depth
                    scorer = PooledLogits(network, TileEncoding(network), CLASSES, depth=depth)
                    bench = Bench(slide, grid, scorer, setting, folder / "maps")
                    rows.append(measure(bench, options.rounds))
                    print(", ".join(f"{k} {rows[-1][k]}" for k in FIELDS[:18]), flush=True)
    with complete_file(options.out) as draft, draft.open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    for row in rows:
        missed = [
            f"{name} {row[name]}, at most {most:g}"
            for name, most in (("times_slower", MOST_TIMES), ("stitch_share", MOST_SHARE))
            if float(row[name]) > most
        ]
        if missed:
            print(
                f"{row['model']}, {row['depth']}, {row['targets']} targets, detail"
                f" {row['detail']}: {'; '.join(missed)}"
            )


if __name__ == "__main__":
    main()
