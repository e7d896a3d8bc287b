"""Simulate a cohort on a cluster: how long it takes, what GPUs wait for, what to set.

By ``cluster_simulation``, with the costs on processors that were measured (``docs/reading.csv``,
``docs/cohort.csv``)::

    python -m scripts.simulate_cohort                        # every study; some five minutes
    python -m scripts.simulate_cohort --verb features --storage-gb-s 10 --fetch --parallel 3

The second prints one run. Tiles of slides are drawn from a lognormal, the same for every run.
**What a GPU does, and what storage and networks deliver, was not measured: each is a named
assumption**, with a flag, and in the table.
"""

import argparse
import csv
import itertools
import math
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathology.outputs import complete_file
from scripts.cluster_simulation import Cluster, Plan, Simulation, Verb, Wait, bounds

DOCS = Path(__file__).parents[1] / "docs"
OUT = DOCS / "cohort_simulation.csv"
TILE_PX, TILE_MPP = 224, 0.5
TILE_MM2 = (TILE_PX * TILE_MPP / 1000) ** 2
STORED_KB = 15.0  # of a stored tile of 256 px, JPEG of quality 80; measured on H&E-like pixels
WHOLE_TIMES = 2.0  # assumed: a file's bytes over those of its tissue at level 0; also of its area
DEVICE_TILES_S = {"features": 1000.0, "explain": 400.0}  # assumed
PATHS = {
    "level of that mpp stored": ("ours", "native"),
    "from 0.25 mpp": ("ours", "half"),
    "from 0.25 mpp, OpenSlide": ("openslide", "half"),
    "from 0.25 mpp, tiffslide": ("tiffslide", "half"),
}
PATH = "from 0.25 mpp"


def draw_tiles(slides: int, median: float, sigma: float, seed: int = 0) -> NDArray[np.float64]:
    """Tiles of each slide."""
    drawn = np.random.default_rng(seed).lognormal(math.log(median), sigma, slides)
    return np.maximum(np.round(drawn), 1.0)


def draw_failures(cluster: Cluster, seed: int = 0) -> Iterable[tuple[float, int]]:
    """Failures of all machines, one after another, without end."""
    if not cluster.mtbf_h:
        return
    rng = np.random.default_rng([seed, 1])
    nodes = math.ceil(cluster.gpus / cluster.gpus_per_node)
    now = 0.0
    while True:
        now += rng.exponential(cluster.mtbf_h * 3600 / nodes)
        yield now, int(rng.integers(nodes))


def read_costs(docs: Path = DOCS) -> dict[str, float]:
    """Seconds of a core that were measured: of decoding a tile by path, and of verbs by stage."""
    costs = {}
    with (docs / "reading.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for path, (reader, mpp) in PATHS.items():
        key = (reader, mpp, str(TILE_PX), "row by row")
        found = [r for r in rows if (r["reader"], r["mpp"], r["tile_px"], r["order"]) == key]
        costs[path] = float(found[0]["cpu_ms_per_tile"]) / 1000
    with (docs / "cohort.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if not row["workers"]:
                costs[f"{row['verb']} {row['measure']}"] = float(row["value"])
    return costs


def verbs(costs: dict[str, float], path: str, device_tiles_s: dict[str, float]) -> dict[str, Verb]:
    """What ``tile``, ``features`` and ``explain`` cost."""
    is_native = PATHS[path][1] == "native"
    side = TILE_PX * (1 if is_native else 2)
    read_bytes = STORED_KB * 1e3 * (side / 256) ** 2  # neighbours share what is stored
    file_bytes = STORED_KB * 1e3 * (TILE_PX * 2 / 256) ** 2 * WHOLE_TIMES
    slide_mm2 = TILE_MM2 * WHOLE_TIMES
    shared = {"decode_s": costs[path], "read_bytes": read_bytes, "file_bytes": file_bytes}
    return {
        "tile": Verb(
            1 / (costs["tile s_per_mm2"] * slide_mm2),
            read_bytes=costs["tile read_share"] * file_bytes,
            file_bytes=file_bytes,
            slide_bytes=costs["tile bytes_per_slide"],
            open_s=costs["tile s_per_slide"],
            on_cores=True,
        ),
        "features": Verb(
            device_tiles_s["features"],
            written_bytes=costs["features bytes_per_tile"],
            host_s=costs["features host_s_per_tile"],
            open_s=costs["features s_per_slide"],
            **shared,
        ),
        "explain": Verb(
            device_tiles_s["explain"],
            written_bytes=costs["explain bytes_per_tile"],
            slide_bytes=costs["explain bytes_per_slide"],
            # What it does in threads besides reading is one thread's: maps are put together.
            host_s=costs["explain threads_s_per_tile"] - costs["features threads_s_per_tile"],
            finish_s=costs["explain s_per_slide"],
            **shared,
        ),
    }


# Studies ---------------------------------------------------------------------------------------

FIELDS = (
    "study", "verb", "slides", "gpus", "gpu_tiles_s", "decoding", "storage_gb_s", "latency_ms",
    "fetch", "parallel", "readers", "cores_per_gpu", "order", "band_tiles", "mtbf_h", "slow_nodes",
    "begin_again", "wall_s", "least_s", "limit", "longest_slide_s", *(w.name.lower() for w in Wait),
    "again", "begun", "lost",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One run of a study."""

    study: str
    verb: str
    cluster: Cluster
    plan: Plan
    slides: int
    path: str = PATH
    device_tiles_s: float | None = None


def studies(cluster: Cluster, plan: Plan, slides: int) -> Iterable[Case]:
    """What is varied, from what is given: one thing at a time, or two that belong together."""
    for verb, path in [("tile", PATH), ("explain", PATH), *(("features", p) for p in PATHS)]:
        for speed, fetch in itertools.product((1.0, 5.0, 10.0, 25.0, 100.0), (False, True)):
            if path == PATH or not fetch:
                there = replace(cluster, storage_gb_s=speed)
                parallel = 1 if verb == "tile" else plan.parallel  # on each core
                how = replace(plan, fetch=fetch, parallel=parallel)
                yield Case("storage", verb, there, how, slides, path)
    for verb, fetch in itertools.product(DEVICE_TILES_S, (False, True)):
        for parallel in (1, 2, 3):
            there = replace(plan, fetch=fetch, parallel=parallel)
            yield Case("parallel", verb, cluster, there, slides)
    for latency_s, readers in itertools.product((0.001, 0.02), (1, 2, 4, 8, 16, 32)):
        there = replace(cluster, latency_s=latency_s)
        yield Case("readers", "features", there, replace(plan, readers=readers), slides // 5)
    for path, cores in itertools.product(PATHS, (1.0, 2.0, 4.0, 8.0)):
        there = replace(cluster, cores_per_gpu=cores)
        yield Case("cores", "features", there, plan, slides // 5, path)
    for device in (500.0, 2000.0, 4000.0, 8000.0):
        yield Case("gpu", "features", cluster, plan, slides, device_tiles_s=device)
    some, few = slides, slides // 20  # a tail matters to few
    for count, parallel, order in itertools.product(
        (some, few), (1, 2), ("listed", "longest", "shortest")
    ):
        there = replace(plan, order=order, parallel=parallel)
        yield Case("order", "explain", cluster, there, count)
    for count, order, fetch, band in itertools.product(
        (some, few), ("listed", "longest"), (False, True), (0, 40_000, 20_000, 10_000)
    ):
        if count == few or band != 40_000:
            there = replace(plan, order=order, fetch=fetch, band_tiles=band)
            yield Case("bands", "explain", cluster, there, count)
    for hours in (0.0, 100.0, 10.0, 1.0):
        yield Case("failures", "explain", replace(cluster, mtbf_h=hours), plan, slides)
    for count, slow, again in itertools.product((some, few), (0, 1), (False, True)):
        there = replace(cluster, slow_nodes=slow)
        yield Case("slow machine", "explain", there, replace(plan, begin_again=again), count)


def row_of(case: Case, costs: dict[str, float], sizes: NDArray[np.float64]) -> dict[str, Any]:
    """Run a case; what it was and what came of it."""
    devices = dict(DEVICE_TILES_S)
    if case.device_tiles_s:
        devices[case.verb] = case.device_tiles_s
    verb = verbs(costs, case.path, devices)[case.verb]
    tiles, cluster, plan = sizes[: case.slides], case.cluster, case.plan
    outcome = Simulation(tiles, verb, cluster, plan, draw_failures(cluster)).run()
    least_s = bounds(tiles, verb, cluster, plan)
    limit = max(least_s, key=lambda name: least_s[name])
    given = {
        "study": case.study, "verb": case.verb, "slides": case.slides, "gpus": cluster.gpus,
        "gpu_tiles_s": "" if verb.on_cores else f"{verb.device_tiles_s:g}", "decoding": case.path,
        "storage_gb_s": f"{cluster.storage_gb_s:g}", "latency_ms": f"{cluster.latency_s * 1e3:g}",
        "fetch": plan.fetch, "parallel": plan.parallel, "readers": plan.readers,
        "cores_per_gpu": f"{cluster.cores_per_gpu:g}", "order": plan.order,
        "band_tiles": plan.band_tiles, "mtbf_h": f"{cluster.mtbf_h:g}",
        "slow_nodes": cluster.slow_nodes, "begin_again": plan.begin_again,
    }  # fmt: skip
    found = {
        "wall_s": f"{outcome.wall_s:.0f}", "least_s": f"{least_s[limit]:.0f}", "limit": limit,
        "longest_slide_s": f"{least_s['longest slide']:.0f}",
        **{name: f"{share:.3f}" for name, share in outcome.shares.items()},
        "again": f"{outcome.again:.3f}", "begun": outcome.begun, "lost": outcome.lost,
    }  # fmt: skip
    return given | found


def line_of(row: dict[str, Any]) -> str:
    """A row for the eye: what takes how long, and where the rest of the GPUs' time goes."""
    waits = ", ".join(
        f"{name.replace('_', ' ')} {float(row[name]):.0%}"
        for name in (w.name.lower() for w in Wait)
        if float(row[name]) >= 0.005
    )
    times = float(row["wall_s"]) / max(float(row["least_s"]), 1.0)
    return (
        f"{float(row['wall_s']) / 60:6.1f} min, x{times:.2f} of the least that {row['limit']}"
        f" allows; {'cores' if row['verb'] == 'tile' else 'GPUs'}: {waits}"
    )


def label_of(row: dict[str, Any]) -> str:
    """What a row is about."""
    names = FIELDS[2 : FIELDS.index("wall_s")]
    return f"{row['verb']}; " + ", ".join(f"{name} {row[name]}" for name in names)


def main() -> None:
    """Print every study, or one run, and write the table of the studies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--verb", choices=["tile", *DEVICE_TILES_S], help="one run, nothing written"
    )
    parser.add_argument("--slides", type=int, default=10_000)
    parser.add_argument("--median-tiles", type=float, default=8000.0, help="of a slide")
    parser.add_argument("--sigma", type=float, default=0.8, help="of the logarithm of tiles")
    parser.add_argument("--decoding", choices=list(PATHS), default=PATH)
    parser.add_argument("--gpu-tiles-s", type=float, help="of a GPU, assumed")
    for holder in (Cluster(), Plan(parallel=2)):
        for each in fields(holder):
            flag, value = f"--{each.name.replace('_', '-')}", getattr(holder, each.name)
            if isinstance(value, bool):
                parser.add_argument(flag, action="store_true")
            else:
                parser.add_argument(flag, type=type(value), default=value)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    cluster, plan = (
        kind(**{each.name: getattr(given, each.name) for each in fields(kind)})
        for kind in (Cluster, Plan)
    )
    costs = read_costs()
    sizes = draw_tiles(given.slides, given.median_tiles, given.sigma)
    print(
        f"{given.slides:,} slides, {sizes.sum() / 1e6:,.0f} million tiles; the largest has"
        f" {sizes.max():,.0f}, the middle one {np.median(sizes):,.0f}"
    )
    if given.verb:
        case = Case("", given.verb, cluster, plan, given.slides, given.decoding, given.gpu_tiles_s)
        print(line_of(row_of(case, costs, sizes)))
        return
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor() as pool:
        cases = studies(cluster, plan, given.slides)
        for row in pool.map(partial(row_of, costs=costs, sizes=sizes), cases):
            if not rows or rows[-1]["study"] != row["study"]:
                print(f"\n{row['study']}")
            rows.append(row)
            print(f"  {label_of(row)}:\n    {line_of(row)}", flush=True)
    with complete_file(given.out) as draft, draft.open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    print(f"{given.out}: {len(rows)} rows")


if __name__ == "__main__":
    main()
