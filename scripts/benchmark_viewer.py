"""Load the viewer as four people do who pan at once; write docs/viewing.csv.

A made-up slide of 40,960 x 40,960 px (JPEG tiles as Aperio writes them, see benchmark_reading.py)
and a heatmap of 5,120 x 5,120 px are served by ``pathology view`` in a process of its own, on the
loopback address. Each user is a process with six connections, as a browser has, and a view of
1,280 x 800 px that moves by a tile in a straight line, turns now and then, and changes its zoom::

    OMP_NUM_THREADS=1 python scripts/benchmark_viewer.py             # about six minutes
    OMP_NUM_THREADS=1 python scripts/benchmark_viewer.py --seconds 5 --rounds 1 --out /tmp/v.csv
    ... --slide CMU-1-Small-Region.svs --results out/                # a slide and results of yours

Loads: "pan" moves four times a second and asks for what came into view, slide and heat; "flood"
moves as soon as all of it is there, and asks for slide tiles alone. Servers, on the same ways, take
turns: "ours"; "reopen" opens slide and DeepZoomGenerator of openslide-python for each request, as
many viewers do; "keep" keeps one of both, as openslide-python's own example does. Both are served
by the same Starlette and uvicorn, and make every tile anew; ours sends tiles as they are stored
where it can, and makes what several users look at, or come back to, once. Ratios are of
neighbouring turns. Clients and server share the cores. The first turn warms up, and memory and open
files are counted after it and at the end.
"""

import argparse
import contextlib
import csv
import functools
import http.client
import io
import json
import multiprocessing
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import benchmark_reading
import numpy as np
import pandas as pd

from pathology.geometry import Box, Mpp
from pathology.maps.ome_tiff import write_ome_tiff
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_file
from pathology.slides import open_slide
from pathology.viewer.slides.tiles import QUALITY, TILE_PX, SlidePyramid

OUT = Path(__file__).parents[1] / "docs" / "viewing.csv"
SIDE, OUT_MPP, MODEL_TILE = 40_960, 2.0, 224
USERS, CONNECTIONS, VIEW, PER_S = 4, 6, (1280, 800), 4
SERVERS = ("ours", "reopen", "keep")
FIELDS = (
    "server", "load", "what", "requests", "errors", "per_s", "p50_ms", "p95_ms", "p99_ms",
    "longest_ms", "times_ours_p50", "times_ours_p95", "start_s", "rss_first_mb", "rss_last_mb",
    "files_first", "files_last", "turns", "machine", "cores",
)  # fmt: skip


# --- what is shown


def write_slide(path: Path) -> None:
    """The slide of benchmark_reading.py, a quarter of it."""
    benchmark_reading.SIDE = SIDE
    benchmark_reading.TISSUE = SIDE // 5 // 4096 * 4096, SIDE // 5 * 4 // 4096 * 4096
    benchmark_reading.write_slide(path)


def write_results(path: Path, folder: Path) -> None:
    """Evidence of the slide as ``pathology explain`` leaves it, of made-up numbers."""
    rng = np.random.default_rng(0)
    with open_slide(path) as slide:
        name, mpp, stamp = slide.slide_id, slide.mpp, slide.stamp()
    side = int(SIDE * mpp.x / OUT_MPP)
    values = rng.normal(0, 1e-5, (side, side)).astype(np.float32)
    values[: side // 8] = np.nan
    box = Box(0, 0, SIDE, SIDE)
    target = folder / "made_up" / name / "tumour"
    target.mkdir(parents=True)
    slide_map = SlideMap(values, box, Mpp(*mpp), "logit")
    write_ome_tiff(slide_map, target / "heatmap.ome.tif", levels="sum")
    density = SlideMap(values / (OUT_MPP**2 * 1e-6), box, Mpp(*mpp), "logit/mm2")
    write_ome_tiff(density, target / "density.ome.tif", levels="mean")
    total = float(np.nansum(values, dtype=np.float64))
    corners = np.stack(np.meshgrid(np.arange(0, SIDE - 1000, 448), np.arange(5120, SIDE, 448)))
    x, y = corners.reshape(2, -1).astype(float)
    count = len(x)
    tiles = {
        "x": x, "y": y, "width": 448.0, "height": 448.0, "weight": 1 / count,
        "contribution": total, "positive": total, "negative": 0.0, "bias": 0.0, "gap": 0.0,
        "logit_tumour": total,
    }  # fmt: skip
    pd.DataFrame(tiles).to_parquet(target / "tiles.parquet")
    parts = {"bias": 0.0, "map_sum": total, "cut_off": 0.0, "tolerance": 1e-3, "constants": {}}
    record = {
        "slide_id": name,
        "target": "tumour",
        "coefficients": {"tumour": 1.0},
        "ledger": {"score": total, **parts},
        "settings": {"slide": stamp},
        "provenance": {},
    }
    (target / "explanation.json").write_text(json.dumps(record))


# --- servers


@dataclass
class Server:
    """A server in a process of its own.

    Args:
        base: host and port.
        cookie: what it wants to see.
        process: the server.
        start_s: until it said where it is.
    """

    base: str
    cookie: str
    process: subprocess.Popen
    start_s: float

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208

    def rss_mb(self) -> float:
        if self.process.poll() is not None:
            raise SystemExit(f"{self.process.args[1:4]} ended with code {self.process.returncode}")
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


@contextlib.contextmanager
def serving(name: str, slide: Path, results: Path) -> Iterator[Server]:
    """A server, once it answers; it must end by SIGINT with code 0."""
    ours = ["-m", "pathology.cli", "view", "--slides", slide, "--results", results]
    peer = [__file__, "--serve", name, "--slide", slide]
    words = [*ours, "--no-browser", "--port", "0"] if name == "ours" else peer
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True
    )
    try:
        address = next(line for line in process.stdout if line.startswith("http")).strip()
        start_s = time.perf_counter() - began
        base = re.search(r"//([\d.]+:\d+)", address)[1]
        cookie = ""
        if name == "ours":
            connection = http.client.HTTPConnection(base)
            connection.request("GET", address.partition(base)[2])
            cookie = connection.getresponse().getheader("set-cookie").partition(";")[0]
            connection.close()
        yield Server(base, cookie, process, start_s)
        process.send_signal(signal.SIGINT)
        if name == "ours" and process.wait(60) != 0:
            raise SystemExit(f"the viewer ended with code {process.returncode}")
    finally:
        process.kill()
        process.wait()


def serve_peer(name: str, path: Path) -> None:
    """The slide's tiles by openslide-python's DeepZoomGenerator, from the same web server."""
    import openslide
    import uvicorn
    from openslide.deepzoom import DeepZoomGenerator
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    from pathology.viewer.serving.serve import bind

    def opened() -> DeepZoomGenerator:
        return DeepZoomGenerator(openslide.OpenSlide(path), TILE_PX, overlap=0)

    kept = opened() if name == "keep" else None

    def tile(request):
        level, x, y = (request.path_params[key] for key in ("level", "x", "y"))
        deep_zoom = kept or opened()
        image = deep_zoom.get_tile(deep_zoom.level_count - 1 - level, (x, y))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=QUALITY)
        return Response(out.getvalue(), media_type="image/jpeg")

    route = Route("/api/slides/{slide}/tiles/{level:int}/{x:int}/{y:int}.jpg", tile)
    listener = bind("127.0.0.1", 0)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
    config = uvicorn.Config(Starlette(routes=[route]), log_level="error", lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


# --- users


@dataclass(frozen=True)
class Scene:
    """What there is to look at.

    Args:
        slide, evidence: ids.
        pyramid: of the slide.
        heat_um: finest pixel of the map.
        heat_px: its side in pixels.
        heat_levels: how many it has.
    """

    slide: str
    evidence: str
    pyramid: SlidePyramid
    heat_um: float
    heat_px: tuple[int, int]
    heat_levels: int


@dataclass
class Counts:
    """What a user saw, by what it asked for."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"slide": [], "heat": []})
    errors: dict[str, int] = field(default_factory=lambda: {"slide": 0, "heat": 0})


def scene_of(server: Server) -> Scene:
    """What the viewer tells of itself."""
    ask = functools.partial(fetch, http.client.HTTPConnection(server.base), server.cookie)
    library = json.loads(ask("/api/library")[1])
    evidence = library["evidence"][0]
    slide = json.loads(ask(f"/api/slides/{evidence['slide']}")[1])
    told = json.loads(ask(f"/api/evidence/{evidence['id']}")[1])
    heat = next(each for each in told["maps"] if each["name"] == "heatmap")
    return Scene(
        slide["id"],
        evidence["id"],
        SlidePyramid(*slide["size"], Mpp(*slide["mpp"])),
        min(heat["pixel_um"]),
        (heat["width"], heat["height"]),
        heat["levels"],
    )


def fetch(connection: http.client.HTTPConnection, cookie: str, path: str) -> tuple[int, bytes]:
    connection.request("GET", path, headers={"Cookie": cookie})
    answer = connection.getresponse()
    return answer.status, answer.read()


def in_view(scene: Scene, x_um: float, y_um: float, pixel_um: float, with_heat: bool) -> list:
    """What a view shows: kind and path of each tile, the middle of the view first."""
    width, height = (side * pixel_um for side in VIEW)
    box = (x_um - width / 2, y_um - height / 2, x_um + width / 2, y_um + height / 2)
    pyramid = scene.pyramid
    finest = pyramid.pixel_um(0)
    level = min(pyramid.levels - 1, max(0, int(np.log2(pixel_um / finest) + 1e-9)))
    path = f"/api/slides/{scene.slide}/tiles/{level}/{{}}/{{}}.jpg"
    wanted = [
        ("slide", path.format(x, y)) for x, y in places(box, finest * 2**level, pyramid.size(level))
    ]
    if with_heat:
        level = min(scene.heat_levels - 1, max(0, int(np.log2(pixel_um / scene.heat_um) + 1e-9)))
        size = tuple(-(-side // 2**level) for side in scene.heat_px)
        path = f"/api/evidence/{scene.evidence}/maps/heatmap/{level}/{{}}/{{}}"
        heat = places(box, scene.heat_um * 2**level, size)
        wanted += [("heat", path.format(x, y)) for x, y in heat]
    return wanted


def places(box: tuple, pixel_um: float, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Tiles of a level under a box in micrometres."""
    side = TILE_PX * pixel_um
    columns, rows = (-(-count // TILE_PX) for count in size)
    return [
        (x, y)
        for y in range(max(0, int(box[1] // side)), min(rows, int(box[3] // side) + 1))
        for x in range(max(0, int(box[0] // side)), min(columns, int(box[2] // side) + 1))
    ]


def user(seed: int, scene: Scene, base: str, cookie: str, load: str, seconds: float, queue) -> None:
    """Pan for a while; the same seed goes the same way."""
    way, counts, seen = random.Random(seed), Counts(), set()
    lock, local = threading.Lock(), threading.local()
    width_um, height_um = scene.pyramid.size_um
    x, y = way.uniform(0.3, 0.7) * width_um, way.uniform(0.3, 0.7) * height_um
    pixel_um, turn = scene.pyramid.pixel_um(1), (1, 0)

    def ask(wanted: tuple[str, str]) -> None:
        kind, path = wanted
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(base, timeout=60)
        start = time.perf_counter()
        try:
            status, body = fetch(local.connection, cookie, path)
            is_good = status == 200 and len(body) > 100
        except (OSError, http.client.HTTPException):
            local.connection.close()
            is_good = False
        took = time.perf_counter() - start
        with lock:
            counts.seconds[kind].append(took)
            counts.errors[kind] += not is_good

    until = time.perf_counter() + seconds
    with ThreadPoolExecutor(CONNECTIONS) as connections:
        while (now := time.perf_counter()) < until:
            wanted = in_view(scene, x, y, pixel_um, load == "pan")
            new = [each for each in wanted if each not in seen]
            seen.update(new)
            list(connections.map(ask, new))
            if way.random() < 0.1:
                pixel_um = scene.pyramid.pixel_um(0) * 2 ** way.choice((0, 0.5, 1, 2, 3, 4))
            if way.random() < 0.25:
                turn = way.choice(((1, 0), (0, 1), (-1, 0), (0, -1)))
            x, y = x + turn[0] * TILE_PX * pixel_um, y + turn[1] * TILE_PX * pixel_um
            if not (0.2 * width_um < x < 0.8 * width_um and 0.2 * height_um < y < 0.8 * height_um):
                x, y = way.uniform(0.3, 0.7) * width_um, way.uniform(0.3, 0.7) * height_um
            if load == "pan":
                time.sleep(max(0.0, 1 / PER_S - (time.perf_counter() - now)))
    queue.put(counts)


def press(server: Server, scene: Scene, load: str, seconds: float, seed: int) -> Counts:
    """All users at once."""
    spawn = multiprocessing.get_context("fork")
    queue = spawn.Queue()
    users = [
        spawn.Process(
            target=user,
            args=(seed * USERS + i, scene, server.base, server.cookie, load, seconds, queue),
        )
        for i in range(USERS)
    ]
    for each in users:
        each.start()
    every = [queue.get(timeout=seconds + 120) for _ in users]
    for each in users:
        each.join()
    total = Counts()
    for each in every:
        for kind in total.seconds:
            total.seconds[kind] += each.seconds[kind]
            total.errors[kind] += each.errors[kind]
    return total


# --- the table


def quantiles(seconds: list[float]) -> tuple[float, float, float, float]:
    """Median, 95th and 99th percentile and the longest, in ms."""
    middle, high, highest = np.quantile(seconds, (0.5, 0.95, 0.99)) * 1e3
    return float(middle), float(high), float(highest), max(seconds) * 1e3


def measure(slide: Path, results: Path, seconds: float, rounds: int) -> list[dict]:
    """Every server under every load, in turns."""
    rows, found = [], {}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(serving(name, slide, results)) for name in SERVERS}
        scene = scene_of(servers["ours"])
        first = {}
        for turn in range(rounds + 1):  # the first warms up
            for load in ("pan", "flood"):
                for name in SERVERS[turn % 3 :] + SERVERS[: turn % 3]:
                    if load == "pan" and name != "ours":
                        continue
                    counts = press(servers[name], scene, load, seconds, turn)
                    if turn:
                        found.setdefault((name, load), []).append(counts)
            for each in servers.values():
                each.rss_mb()  # still there
            if not turn:
                first = {name: (each.rss_mb(), each.files()) for name, each in servers.items()}
        for (name, load), turns in found.items():
            for kind in ("slide", "heat"):
                times = [each.seconds[kind] for each in turns]
                if not all(times):
                    continue
                every = [took for each in times for took in each]
                p50, p95, p99, longest = quantiles(every)
                ours = [each.seconds[kind] for each in found["ours", load]]
                pairs = list(zip(map(quantiles, times), map(quantiles, ours), strict=True))
                server = servers[name]
                rows.append(
                    {
                        "server": name,
                        "load": load,
                        "what": kind,
                        "requests": len(every),
                        "errors": sum(each.errors[kind] for each in turns),
                        "per_s": f"{len(every) / (seconds * len(turns)):.0f}",
                        "p50_ms": f"{p50:.1f}",
                        "p95_ms": f"{p95:.1f}",
                        "p99_ms": f"{p99:.1f}",
                        "longest_ms": f"{longest:.0f}",
                        "times_ours_p50": f"{statistics.median(a[0] / b[0] for a, b in pairs):.2f}",
                        "times_ours_p95": f"{statistics.median(a[1] / b[1] for a, b in pairs):.2f}",
                        "start_s": f"{server.start_s:.2f}",
                        "rss_first_mb": f"{first[name][0]:.0f}",
                        "rss_last_mb": f"{server.rss_mb():.0f}",
                        "files_first": first[name][1],
                        "files_last": server.files(),
                        "turns": len(turns),
                        "machine": benchmark_reading.machine(),
                        "cores": os.cpu_count(),
                    }
                )
    return rows


def print_row(row: dict) -> None:
    print(
        f"{row['server']:7}{row['load']:6}{row['what']:6}{row['requests']:>7} requests"
        f" {row['per_s']:>5}/s  p50 {row['p50_ms']:>6}  p95 {row['p95_ms']:>6}  p99"
        f" {row['p99_ms']:>6} ms  {row['errors']} errors  {row['times_ours_p50']:>5} x ours"
        f"  started in {row['start_s']} s  {row['rss_first_mb']} to {row['rss_last_mb']} MB"
        f"  {row['files_first']} to {row['files_last']} files",
        flush=True,
    )


def main() -> None:
    """Write what is shown, press, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=OUT, help="the table (default: docs/viewing.csv)"
    )
    parser.add_argument("--seconds", type=float, default=15, help="of a turn")
    parser.add_argument("--rounds", type=int, default=4, help="turns of every server")
    parser.add_argument("--slide", type=Path, help="a slide, instead of the made-up one")
    parser.add_argument("--results", type=Path, help="what `pathology explain` wrote of it")
    parser.add_argument("--serve", choices=SERVERS[1:], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve_peer(args.serve, args.slide)
        return
    if (args.slide is None) != (args.results is None):
        parser.error("--slide and --results go together")
    with tempfile.TemporaryDirectory() as folder:
        slide, results = args.slide, args.results
        if slide is None:
            slide, results = Path(folder) / "made_up.svs", Path(folder) / "results"
            write_slide(slide)
            write_results(slide, results)
        print(f"{slide.name}: {slide.stat().st_size / 1e6:.0f} MB, {platform.python_version()}")
        rows = measure(slide, results, args.seconds, args.rounds)
    for row in rows:
        print_row(row)
    with complete_file(args.out) as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if failed := sum(row["errors"] for row in rows):
        raise SystemExit(f"{failed} requests failed")


if __name__ == "__main__":
    main()
