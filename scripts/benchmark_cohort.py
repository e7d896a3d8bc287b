"""Measure how a cohort's speed grows from one worker to two, and what each stage of a slide costs.

Of ``tile``, ``features`` and ``explain``, by the engines ``local`` and ``ray``, over synthetic
slides; every worker is bound to a core of its own, with one thread for sums. Numbers of workers and
engines take turns. On two cores that have nothing else to do::

    python -m scripts.benchmark_cohort                                   # some eight minutes
    python -m scripts.benchmark_cohort --rounds 1 --slides 4 --engines local --out /tmp/c.csv

Speeds are those between the moment when every worker is through with its first slide and the one
when the first of them finds nothing left, slides that reach beyond being counted by the part that
lies within; ``start_s`` is what a worker's first slide takes longer than its others: its process,
imports, the model. ``efficiency`` is a round's speed of two workers over twice that of one.
``core_s_per_tile`` is processor time, which other work on the machine sways less, without first
slides; ``core_efficiency``, that of one worker over that of two, is what sharing a memory costs.

Costs, for ``simulate_cohort``: a slide of 268 mm2 is worked on with few tiles and with many (by
``tile``: that one and a small one), which parts what is for a slide from what is for a tile (an
mm2). Reading goes from 0.5 mpp, as tiles are; other ways are in ``reading.csv``.
"""

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pathology.cli.explain_slide import SlideExplainer
from pathology.cli.feature_slide import Extractor
from pathology.cli.tile_slide import Tiler
from pathology.cohort.choice import make_engine
from pathology.cohort.engine import Needs
from pathology.cohort.events import Ended, Row, Started, Work
from pathology.outputs import complete_file

if TYPE_CHECKING:
    import numpy as np

# Whatever is slow to import is imported where it is used: workers import this file, too, and their
# start is measured.

PARTS = ("costs", "tile", "features", "explain")
OUT = Path(__file__).parents[1] / "docs" / "cohort.csv"
TILE_PX, MPP = 224, 0.5
SIDE = 4096  # of the slides of the cohort
TILES = {"features": 256, "explain": 24}  # of each, to take about as long as tiling does
VERBS, ENGINES, WORKERS = ("tile", "features", "explain"), ("local", "ray"), (1, 2)
STORED, MOSAIC, LARGE, SMALL = 256, 2048, 32_768, 8192
FEW = {"features": (64, 1024), "explain": (48, 176)}
FIELDS = (
    "measure", "verb", "engine", "workers", "value", "low", "high", "unit", "rounds", "machine",
    "cores", "load",
)  # fmt: skip


def instant():
    """An encoder that takes no time and returns as many features as large ones do."""
    from torch import float32, nn

    class Instant(nn.Module):
        def forward(self, tiles):
            return tiles.new_ones((len(tiles), 1024), dtype=float32)

    return SimpleNamespace(
        name="instant", dims=1024, module=Instant(), transform=lambda tiles: tiles
    )


@dataclass(frozen=True)
class Bound:
    """Work on a core of the worker's own; says how many seconds of it were taken.

    Args:
        work: the work.
        claims: a folder; who makes a core's file there has it.
    """

    work: Work
    claims: Path

    def __call__(self, row: Row) -> str:
        if len(os.sched_getaffinity(0)) > 1:
            for core in sorted(os.sched_getaffinity(0)):
                try:
                    (self.claims / str(core)).touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.sched_setaffinity(0, {core})
                break
        began = time.process_time()
        self.work(row)
        return str(time.process_time() - began)


@dataclass(frozen=True)
class Speed:
    """What one run over the cohort gave."""

    slides_per_s: float
    tiles_per_s: float
    start_s: float
    wall_s: float
    core_s_per_tile: float


def run(
    rows: list[Row], tiles: dict[str, int], work: Bound, engine: str, workers: int
) -> Speed | None:
    """Go over the slides once; nothing where a worker began so late that it got none or one."""
    begun: dict[int, float] = {}
    spans: dict[str, list[tuple[int, float, float]]] = {}
    core_s: dict[int, float] = {}
    zero = time.perf_counter()
    for event in make_engine(engine, workers).run(rows, work, Needs()):
        now = time.perf_counter() - zero
        if isinstance(event, Started):
            begun[event.index] = now
        elif isinstance(event, Ended):
            if isinstance(event.result, Exception):
                raise event.result
            core_s[event.index] = float(event.result)
            spans.setdefault(event.worker, []).append((event.index, begun[event.index], now))
    wall_s = time.perf_counter() - zero
    if len(spans) < workers or min(map(len, spans.values())) < 2:
        return None
    first, last = max(s[0][2] for s in spans.values()), min(s[-1][2] for s in spans.values())
    slides = done = 0.0
    for index, start, end in (span for each in spans.values() for span in each):
        within = max(0.0, min(end, last) - max(start, first)) / (end - start)
        slides += within
        done += within * tiles[rows[index]["slide_id"]]
    # Per tile, since slides differ in size.
    later = [
        statistics.median((end - start) / tiles[rows[i]["slide_id"]] for i, start, end in each[1:])
        for each in spans.values()
    ]
    starts = [
        each[0][2] - usual * tiles[rows[each[0][0]]["slide_id"]]
        for each, usual in zip(spans.values(), later, strict=True)
    ]
    window = last - first
    # A worker's first slide takes the core for its imports, too.
    usual = [index for each in spans.values() for index, *_ in each[1:]]
    per_tile = sum(core_s[i] for i in usual) / sum(tiles[rows[i]["slide_id"]] for i in usual)
    return Speed(slides / window, done / window, max(starts), wall_s, per_tile)


def explainer(run: Path, tiles: Path, out: Path) -> SlideExplainer:
    from pathology.runs.loaded_runs import RunsChoice

    choice = RunsChoice([str(run)], "cpu")
    return SlideExplainer(choice, tiles, out, ["tumour"], 8.0, 1.0, 16, bars=False)


def scaling(
    folder: Path, slides: int, rounds: int, engines: list[str], verbs: list[str]
) -> Iterator[dict[str, Any]]:
    """Rows about speed: engines and numbers of workers take turns at each verb."""
    import numpy as np

    from pathology.data.slide_list import list_slides
    from pathology.synthetic import make_cohort
    from pathology.tiling import TileGrid, TileSpec
    from tests.made_run import write_run

    spec = TileSpec(TILE_PX, MPP)
    table = list_slides(make_cohort(folder / "slides", slides, 0, 0, (SIDE, SIDE)))
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    grids = {verb: folder / f"tiles_{verb}" for verb in VERBS}
    for path in grids.values():
        path.mkdir()
    model = write_run(folder / "run", TILE_PX, MPP)
    from pathology.runs.encoder_choice import EncoderChoice

    vit = EncoderChoice(
        "vit_tiny_patch16_224", seed=0, arguments={"patch_size": 32, "depth": 2}
    )  # quick enough for reading to matter
    counts: dict[str, dict[str, int]] = {verb: {} for verb in VERBS}
    for row in rows:
        Tiler(grids["tile"], spec)(row)
        name = row["slide_id"]
        whole = TileGrid.load(grids["tile"] / f"{name}.parquet")
        for verb in VERBS:
            grid = whole.select(np.arange(min(len(whole), TILES.get(verb, len(whole)))))
            grid.save(grids[verb] / f"{name}.parquet")
            counts[verb][name] = len(grid)

    def work(verb: str, out: Path) -> Work:
        if verb == "tile":
            return Tiler(out, spec)
        if verb == "features":
            return Extractor(vit, grids[verb], out, spec, device="cpu", batch_size=16, readers=1)
        return explainer(model, grids[verb], out)

    for verb in verbs:
        found: dict[tuple[str, int], list[Speed]] = {
            (engine, workers): [] for engine in engines for workers in WORKERS
        }
        for number in range(rounds):
            for engine, workers in list(found) if number % 2 else list(found)[::-1]:
                speed = None
                while speed is None:
                    with tempfile.TemporaryDirectory(dir=folder) as name:
                        out, claims = _made(Path(name) / "out"), _made(Path(name) / "claims")
                        bound = Bound(work(verb, out), claims)
                        speed = run(rows, counts[verb], bound, engine, workers)
                found[engine, workers].append(speed)
                print(f"{verb} {engine} {workers}: {speed}", flush=True)
        for (engine, workers), speeds in found.items():
            where = {"verb": verb, "engine": engine, "workers": workers}
            for name, unit in (
                ("slides_per_s", "1/s"), ("tiles_per_s", "1/s"), ("start_s", "s"),
                ("wall_s", "s"), ("core_s_per_tile", "s"),
            ):  # fmt: skip
                yield where | entry(name, [getattr(each, name) for each in speeds], unit)
            if workers > 1:
                ratios = [
                    each.tiles_per_s / workers / one.tiles_per_s
                    for each, one in zip(speeds, found[engine, 1], strict=True)
                ]
                yield where | entry("efficiency", ratios, "")
                ratios = [
                    one.core_s_per_tile / each.core_s_per_tile
                    for each, one in zip(speeds, found[engine, 1], strict=True)
                ]
                yield where | entry("core_efficiency", ratios, "")


def write_slide(path: Path, side: int) -> Path:
    """A slide of 0.5 mpp that repeats a picture of tissue over its middle half, levels by 2."""
    import numpy as np
    import tifffile

    from pathology.synthetic import SyntheticSlideSpec
    from pathology.synthetic.slide import render

    spec = SyntheticSlideSpec(seed=3, size_px=(16_384, 16_384), mpp=MPP)
    picture = render(spec, 6144, 4096, MOSAIC, MOSAIC).rgb
    with tifffile.TiffWriter(path) as tiff:
        for level in range((side // 1024).bit_length()):
            across, per_cm = side >> level, 1e4 / (MPP * 2**level)
            half = np.sqrt(0.5) * across / 2
            cut = {
                (y, x): _encoded(picture[y : y + STORED, x : x + STORED])
                for y in range(0, max(len(picture), 1), STORED)
                for x in range(0, max(len(picture), 1), STORED)
            }
            glass = _encoded(np.full((STORED, STORED, 3), 243, np.uint8))
            middle = np.arange(0, across, STORED) + STORED / 2 - across / 2
            inside = np.abs(middle) < max(half, STORED)
            data = (
                cut[y * STORED % len(picture), x * STORED % len(picture)]
                if inside[y] and inside[x]
                else glass
                for y, x in np.ndindex(len(middle), len(middle))
            )
            tiff.write(
                data, shape=(across, across, 3), dtype=np.uint8, tile=(STORED, STORED),
                photometric="ycbcr", compression="jpeg", subsampling=(2, 2), metadata=None,
                subfiletype=1 if level else 0, resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
            )  # fmt: skip
            if len(picture) > STORED:
                quarters = picture.reshape(len(picture) // 2, 2, -1, 2, 3).mean((1, 3))
                picture = quarters.round().astype(np.uint8)
    return path


def _encoded(tile: "np.ndarray") -> bytes:
    import imagecodecs
    import numpy as np

    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=80, subsampling="420"))


@dataclass(frozen=True)
class Cost:
    """Of work on a slide: seconds of this thread and of others, bytes read and left behind."""

    own_s: float
    others_s: float
    read: int
    written: int


def cost(work: Work, row: Row, out: Path) -> Cost:
    """Work on a slide of which nothing was decoded before."""
    from pathology.slides.tile_cache import DECODED

    DECODED.clear()
    read, own, whole = _read(), time.thread_time(), time.process_time()
    work(row)
    own, whole, read = time.thread_time() - own, time.process_time() - whole, _read() - read
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Cost(own, whole - own, read, written)


def _read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])  # rchar


def costs(folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Rows about what stages cost."""
    import numpy as np

    from pathology.slides import open_slide
    from pathology.tiling import GridSource, TileGrid, TileSpec
    from tests.made_run import write_run

    spec = TileSpec(TILE_PX, MPP)
    paths = {side: write_slide(folder / f"side_{side}.tif", side) for side in (SMALL, LARGE)}
    mm2 = {side: (side * MPP / 1000) ** 2 for side in paths}
    model = write_run(folder / "cost_run", TILE_PX, MPP)
    with open_slide(paths[LARGE]) as slide:
        source = GridSource.of(slide)

    def pair(works: list[tuple[Callable[[Path], Work], Path]]) -> list[Cost]:
        found = []
        for make, path in works:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                out = Path(name)
                row = {"slide_id": path.stem, "path": str(path), "mpp": None}
                found.append(cost(make(out), row, out))
        return found

    def apart(pairs: list[list[Cost]], of: str, one: float, two: float) -> list[list[float]]:
        """By round: of a slide, and of each unit of which it has one or two."""
        lines = []
        for few, many in pairs:
            each = (getattr(many, of) - getattr(few, of)) / (two - one)
            lines.append([getattr(few, of) - each * one, each])
        return [list(values) for values in zip(*lines, strict=True)]

    Tiler(_made(folder / "warm"), spec)(
        {"slide_id": "warm", "path": str(paths[SMALL]), "mpp": None}
    )
    pairs = [
        pair([(lambda out: Tiler(out, spec), path) for path in paths.values()])
        for _ in range(rounds)
    ]
    both = [[Cost(c.own_s + c.others_s, 0, c.read, c.written) for c in p] for p in pairs]
    slide_s, mm2_s = apart(both, "own_s", mm2[SMALL], mm2[LARGE])
    share = [many.read / paths[LARGE].stat().st_size for _, many in pairs]
    yield {"verb": "tile"} | entry("s_per_slide", slide_s, "s")
    yield {"verb": "tile"} | entry("s_per_mm2", mm2_s, "s")
    yield {"verb": "tile"} | entry("read_share", share, "")
    yield {"verb": "tile"} | entry("bytes_per_slide", [many.written for _, many in pairs], "B")

    grids = {}
    for verb, numbers in FEW.items():
        for count in numbers:
            grids[verb, count] = _made(folder / f"grid_{verb}_{count}")
            across = int(np.ceil(np.sqrt(count)))
            y, x = np.divmod(np.arange(count), across)
            place = LARGE // 2 - across * TILE_PX // 2
            grid = TileGrid(spec, source, place + x * TILE_PX, place + y * TILE_PX, np.ones(count))
            grid.save(grids[verb, count] / f"{paths[LARGE].stem}.parquet")
    from pathology.runs.encoder_choice import EncoderChoice

    name = EncoderChoice("scripts.benchmark_cohort:instant")

    def features(count: int) -> Callable[[Path], Work]:
        def make(out: Path) -> Work:
            work = Extractor(
                name, grids["features", count], out, spec, device="cpu", batch_size=16, readers=1
            )
            assert work.loaded
            return work

        return make

    def explain(count: int) -> Callable[[Path], Work]:
        def make(out: Path) -> Work:
            work = explainer(model, grids["explain", count], out)
            assert work.loaded
            return work

        return make

    for verb, of in (("features", features), ("explain", explain)):
        few, many = FEW[verb]
        works = [(of(few), paths[LARGE]), (of(many), paths[LARGE])]
        pair(works[:1])
        pairs = [pair(works) for _ in range(rounds)]
        own = apart(pairs, "own_s", few, many)
        others = apart(pairs, "others_s", few, many)
        written = apart(pairs, "written", few, many)
        both_s = [a + b for a, b in zip(own[0], others[0], strict=True)]
        yield {"verb": verb} | entry("s_per_slide", both_s, "s")
        what = "host_s_per_tile" if verb == "features" else "model_s_per_tile"
        yield {"verb": verb} | entry(what, own[1], "s")
        yield {"verb": verb} | entry("threads_s_per_tile", others[1], "s")
        if verb == "features":  # what explaining reads is its own maps, for the most part
            read = apart(pairs, "read", few, many)
            yield {"verb": verb} | entry("read_bytes_per_tile", read[1], "B")
        yield {"verb": verb} | entry("bytes_per_slide", written[0], "B")
        yield {"verb": verb} | entry("bytes_per_tile", written[1], "B")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def entry(measure: str, values: list[float], unit: str) -> dict[str, Any]:
    middle, low, high = statistics.median(values), min(values), max(values)
    found = {"value": f"{middle:.4g}", "low": f"{low:.4g}", "high": f"{high:.4g}"}
    return {"measure": measure, "unit": unit, "rounds": len(values)} | found


def part_of(row: dict[str, Any]) -> str:
    """The part that a row belongs to."""
    return str(row["verb"]) if row["workers"] else "costs"


def main() -> None:
    """Measure, print and write the table."""
    import torch

    from scripts.benchmark_feeding import processor

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=ENGINES)
    parser.add_argument(
        "--parts", nargs="*", default=list(PARTS), choices=PARTS,
        help="what is measured; rows of --out about other parts are kept",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="for slides and results; a temporary one")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # of workers
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 -- not 15, behind whatever else runs
    torch.set_num_threads(1)
    rows = []
    if given.out.exists():
        with given.out.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if part_of(row) not in given.parts]
    machine = {"machine": processor(), "cores": len(os.sched_getaffinity(0))}
    speeds = [verb for verb in VERBS if verb in given.parts]
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        parts = []
        if "costs" in given.parts:
            parts.append(costs(Path(name), given.rounds))
        if speeds:
            parts.append(scaling(Path(name), given.slides, given.rounds, given.engines, speeds))
        for row in chain(*parts):
            load = {"load": f"{os.getloadavg()[0]:.1f}"}
            rows.append(dict.fromkeys(FIELDS, "") | row | machine | load)
            print(", ".join(str(rows[-1][key]) for key in FIELDS[:9]), flush=True)
    rows.sort(key=lambda row: PARTS.index(part_of(row)))
    with complete_file(given.out) as draft, draft.open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    print(f"{given.out}: {len(rows)} rows")


if __name__ == "__main__":
    main()
