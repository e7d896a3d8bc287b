"""A fluid model of a cohort on a cluster, advanced from one event to the next.

A slide is fetched (or read in place), opened, worked on, finished and put into the store. While it
is worked on it flows at the rate of the narrowest of what it passes through; what is shared is
shared evenly (max-min fair). The share of a GPU that does not compute is put down to what its
slides wait for. Nothing depends on the clock: same arguments, same numbers.

What is left out: caches of storage, uneven links, and what a slide's first batch waits for.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

GB = 1e9
SOON_S = 1e-9  # of rounding
AGAIN_TIMES, AGAIN_FLOOR_S = 3.0, 60.0  # when a slide is begun once more

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cluster:
    """Machines, links and storage. All of it is assumed.

    Args:
        gpus: graphics cards.
        gpus_per_node: of them in a machine.
        cores_per_gpu: processors that decode for one of them.
        storage_gb_s: what shared storage gives to all, in both directions together, in GB/s.
        node_gb_s: what a machine's network takes.
        stream_gb_s: what one reader, or one transfer of a file, gets at most.
        latency_s: until storage answers a read.
        put_s: for a slide's results to be committed to the store.
        start_s: until a worker has its process, its model and its first GPU memory.
        mtbf_h: mean hours between failures of a machine; 0 for never.
        repair_s: until it is back.
        slow_nodes: machines that are slow.
        slowness: their speed, as a share of the others'.
    """

    gpus: int = 64
    gpus_per_node: int = 8
    cores_per_gpu: float = 8.0
    storage_gb_s: float = 10.0
    node_gb_s: float = 12.5
    stream_gb_s: float = 0.5
    latency_s: float = 0.002
    put_s: float = 0.2
    start_s: float = 30.0
    mtbf_h: float = 0.0
    repair_s: float = 600.0
    slow_nodes: int = 0
    slowness: float = 0.3


@dataclass(frozen=True)
class Verb:
    """What a slide costs, by its tiles.

    Args:
        device_tiles_s: of a GPU (or of a core, where ``on_cores``).
        decode_s: of a core for a tile.
        read_bytes: of a tile, where slides are read in place.
        file_bytes: of the file for each of its tiles, which fetching moves.
        written_bytes: of results for each tile.
        host_s: per tile, beside the device but on one core: what is found is put on maps.
        open_s: per slide, before its first tile.
        finish_s: per slide, after its last: pictures, reports.
        slide_bytes: of results for each slide, whatever its tiles.
        on_cores: takes cores for devices, each of which reads for itself.
    """

    device_tiles_s: float
    decode_s: float = 0.0
    read_bytes: float = 0.0
    file_bytes: float = 0.0
    written_bytes: float = 0.0
    host_s: float = 0.0
    open_s: float = 0.0
    finish_s: float = 0.0
    slide_bytes: float = 0.0
    on_cores: bool = False


@dataclass(frozen=True)
class Plan:
    """What a user sets.

    Args:
        parallel: slides at once on a GPU, each with a worker.
        readers: threads of each that read tiles.
        fetch: bring the whole file to the machine first, rather than read in place.
        order: ``listed``, ``longest`` first or, against it, ``shortest``.
        band_tiles: slides of more tiles are cut into parts of at most as many; 0 for never.
        begin_again: a slide that takes three times the median, while a worker has nothing to do,
            is begun once more.
    """

    parallel: int = 1
    readers: int = 8
    fetch: bool = False
    order: str = "listed"
    band_tiles: int = 0
    begin_again: bool = False


class Phase:
    """What a worker is at; plain numbers, which are looked up at every step."""

    IDLE = 0
    DOWN = 1
    STARTING = 2
    FETCHING = 3
    OPENING = 4
    WORKING = 5
    FINISHING = 6
    PUTTING = 7
    SENDING = 8
    COUNT = 9


class Wait(IntEnum):
    """What a share of a GPU goes to; ``FEW_READERS``: each waits for its read."""

    COMPUTING = 0
    STORAGE = 1
    CORES = 2
    FEW_READERS = 3
    HOST = 4
    STARTING = 5
    NOTHING_LEFT = 6


REASON = np.array([
    Wait.NOTHING_LEFT, Wait.STARTING, Wait.STARTING, Wait.STORAGE, Wait.HOST, Wait.COMPUTING,
    Wait.HOST, Wait.STORAGE, Wait.STORAGE,
])  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Args:
        wall_s: until the last slide was in the store.
        shares: of all GPUs over that time, by :class:`Wait`; they add up to 1.
        again: share of the computing that was done more than once.
        begun: tries at slides (or bands).
        lost: tries that a failing machine took with it.
    """

    wall_s: float
    shares: dict[str, float]
    again: float
    begun: int
    lost: int


def even_shares(demand: Floats, capacity: float) -> Floats:
    """Max-min fair: nobody gets more than it asks for, and none less than another who asks more."""
    if float(demand.sum()) <= capacity:
        return demand
    ordered = np.sort(demand)
    left = capacity - np.concatenate([[0.0], np.cumsum(ordered)[:-1]])
    level = left / np.arange(len(ordered), 0, -1)
    return np.minimum(demand, level[int(np.argmax(level <= ordered))])


class Simulation:
    """A cohort on a cluster.

    Args:
        tiles: of each slide.
        verb, cluster, plan: what is done, on what, how.
        failures: (seconds, machine), in order of time.
    """

    def __init__(
        self,
        tiles: Sequence[float] | NDArray[Any],
        verb: Verb,
        cluster: Cluster,
        plan: Plan,
        failures: Iterable[tuple[float, int]] = (),
    ) -> None:
        self.verb, self.plan = verb, plan
        self.cluster = cluster = on_cores(cluster) if verb.on_cores else cluster
        self.amounts = amounts(np.asarray(tiles, np.float64), verb, cluster, plan)
        self.queue = deque(range(len(self.amounts)))
        self.undone = set(self.queue)
        workers = np.arange(cluster.gpus * plan.parallel)
        self.gpu = workers % cluster.gpus  # every GPU gets its first slide before one a second
        self.node = self.gpu // cluster.gpus_per_node
        self.speed = np.where(self.node < cluster.slow_nodes, cluster.slowness, 1.0)
        self.phase = np.full(len(workers), Phase.STARTING, np.int64)
        self.left = np.full(len(workers), max(cluster.start_s, 1e-9))
        self.item = np.full(len(workers), -1)
        self.began = np.zeros(len(workers))
        self.failures = iter(failures)
        self.failure = next(self.failures, (math.inf, -1))
        self.shared, self.shared_why = least(
            (verb.device_tiles_s, Wait.COMPUTING),
            (per(cluster.cores_per_gpu, verb.decode_s), Wait.CORES),
        )
        in_place = 0.0 if plan.fetch else 1.0
        self.read_bytes = verb.read_bytes * in_place
        wait_s = (cluster.latency_s + verb.read_bytes / cluster.stream_gb_s / GB) * in_place
        self.own = np.minimum(
            plan.readers / np.maximum(verb.decode_s / self.speed + wait_s, 1e-12),
            per(1.0, verb.host_s) * self.speed,
        )
        readers = per(plan.readers, verb.decode_s + wait_s)
        self.own_why = Wait.FEW_READERS if readers <= per(1.0, verb.host_s) else Wait.HOST
        self.now, self.done_s, self.computed = 0.0, [], 0.0
        self.waited = np.zeros(len(Wait))
        self.begun = self.lost = 0

    def run(self) -> Outcome:
        """Until every slide is done."""
        useful = float(self.amounts[:, Phase.WORKING].sum())
        while self.undone:
            timer = self.assign()
            rate, why = self.rates()
            eta = np.full(len(rate), math.inf)
            np.divide(self.left, rate, out=eta, where=rate > 0)
            step = min(float(eta.min()), self.failure[0] - self.now, timer - self.now)
            if not math.isfinite(step):
                raise RuntimeError("nothing can happen any more, and slides are left")
            self.account(rate, why, step)
            self.now += step
            self.left = np.maximum(self.left - rate * step, 0.0)
            for worker in np.flatnonzero(eta <= step * (1 + 1e-9)):
                # Not one that another's end has just sent home.
                if self.phase[worker] != Phase.IDLE:
                    self.go_on(int(worker))
            while self.failure[0] <= self.now + SOON_S:
                self.fail(self.failure[1])
                self.failure = next(self.failures, (math.inf, -1))
        total = self.waited / (self.now * self.cluster.gpus)
        return Outcome(
            self.now,
            {each.name.lower(): float(total[each]) for each in Wait},
            max(0.0, 1 - useful / self.computed) if self.computed else 0.0,
            self.begun,
            self.lost,
        )

    def assign(self) -> float:
        """Give slides to workers that have none; returns when to look again."""
        idle = np.flatnonzero(self.phase == Phase.IDLE)
        for place, worker in enumerate(idle):
            if not self.queue:
                idle = idle[place:]
                break
            self.begin(int(worker), self.queue.popleft())
        else:
            return math.inf
        if not self.plan.begin_again or not self.done_s:
            return math.inf
        due_s = max(AGAIN_TIMES * float(np.median(self.done_s)), AGAIN_FLOOR_S)
        counts = np.bincount(self.item[self.item >= 0], minlength=len(self.amounts))
        once = np.flatnonzero((self.item >= 0) & (counts[self.item] == 1))
        once = once[np.argsort(self.began[once], kind="stable")]
        for worker, slow in zip(idle, once, strict=False):
            if self.began[slow] + due_s > self.now + SOON_S:
                return float(self.began[slow] + due_s)
            self.begin(int(worker), int(self.item[slow]))
        return math.inf

    def begin(self, worker: int, item: int) -> None:
        self.item[worker], self.began[worker] = item, self.now
        self.phase[worker] = Phase.STARTING  # what comes before the first of its own
        self.begun += 1
        self.go_on(worker)

    def go_on(self, worker: int) -> None:
        """To the next phase that takes anything."""
        item = self.item[worker]
        if item < 0:
            up = self.phase[worker] == Phase.DOWN and self.cluster.start_s > 0
            self.phase[worker] = Phase.STARTING if up else Phase.IDLE
            self.left[worker] = self.cluster.start_s
            return
        for phase in range(self.phase[worker] + 1, Phase.COUNT):
            if self.amounts[item, phase] > 0:
                self.phase[worker], self.left[worker] = phase, self.amounts[item, phase]
                return
        self.done_s.append(self.now - self.began[worker])
        self.undone.discard(int(item))
        for same in np.flatnonzero(self.item == item):  # whoever began it once more stops
            self.item[same], self.phase[same] = -1, Phase.IDLE

    def fail(self, node: int) -> None:
        """A machine goes, and what was worked on there is at the head of the queue again."""
        there = self.node == node
        for item in np.unique(self.item[there & (self.item >= 0)])[::-1]:
            self.lost += 1
            if not (self.item[~there] == item).any():
                self.queue.appendleft(int(item))
        self.item[there], self.phase[there] = -1, Phase.DOWN
        self.left[there] = max(self.cluster.repair_s, 1e-9)

    def rates(self) -> tuple[Floats, NDArray[np.int64]]:
        """What each worker does in a second, in its phase's own unit, and what holds it back."""
        working = self.phase == Phase.WORKING
        sharers = np.bincount(self.gpu[working], minlength=self.cluster.gpus)[self.gpu]
        shared = self.shared * self.speed / np.maximum(sharers, 1)
        tiles = np.minimum(shared, self.own)
        moving = (self.phase == Phase.FETCHING) | (self.phase == Phase.SENDING)
        asked = np.where(working, tiles * self.read_bytes, 0.0)
        asked[moving] = self.cluster.stream_gb_s * GB
        given = self.delivered(asked)
        why = REASON[self.phase]
        why[working] = np.where(shared <= self.own, self.shared_why, self.own_why)[working]
        rate = np.where(self.phase == Phase.IDLE, 0.0, 1.0)
        host = (self.phase == Phase.OPENING) | (self.phase == Phase.FINISHING)
        rate[host] = self.speed[host]
        rate[moving] = given[moving]
        rate[working] = tiles[working]
        if self.read_bytes:
            short = working & (given < asked * (1 - 1e-9))
            rate[short] = given[short] / self.read_bytes
            why[short] = Wait.STORAGE
        return rate, why

    def delivered(self, asked: Floats) -> Floats:
        """What storage and the machines' networks give."""
        link = self.cluster.node_gb_s * GB
        by_node = np.bincount(self.node, asked)
        for node in np.flatnonzero(by_node > link):
            there = self.node == node
            asked = asked.copy()
            asked[there] = even_shares(asked[there], link)
        return even_shares(asked, self.cluster.storage_gb_s * GB)

    def account(self, rate: Floats, why: NDArray[np.int64], step: float) -> None:
        """Put down what every GPU did, and what it waited for."""
        gpus, active = self.cluster.gpus, self.phase != Phase.IDLE
        tiles = np.where(self.phase == Phase.WORKING, rate, 0.0)
        self.computed += float(tiles.sum()) * step
        # A slow machine's GPU that does all it can is not waiting.
        busy = np.bincount(self.gpu, tiles / self.speed / self.verb.device_tiles_s, gpus)
        short = np.maximum(1 - busy, 0.0)
        sharers = np.bincount(self.gpu, active, gpus)
        each = np.where(active, (short / np.maximum(sharers, 1))[self.gpu], 0.0)
        self.waited += np.bincount(why, each, len(Wait)) * step
        self.waited[Wait.COMPUTING] += float(np.minimum(busy, 1.0).sum()) * step
        self.waited[Wait.NOTHING_LEFT] += float(short[sharers == 0].sum()) * step


def least(*limits: tuple[float, Wait]) -> tuple[float, Wait]:
    return min(limits)


def per(amount: float, each: float) -> float:
    return amount / each if each > 0 else math.inf


def on_cores(cluster: Cluster) -> Cluster:
    """The same machines, their cores taken for devices."""
    cores = round(cluster.cores_per_gpu)
    return replace(
        cluster, gpus=cluster.gpus * cores, gpus_per_node=cluster.gpus_per_node * cores,
        cores_per_gpu=1.0,
    )  # fmt: skip


def amounts(tiles: Floats, verb: Verb, cluster: Cluster, plan: Plan) -> Floats:
    """What every slide, or band of one, has to do in each phase, in the order of the queue."""
    if plan.order not in ("listed", "longest", "shortest"):
        raise ValueError(f"order must be listed, longest or shortest, got {plan.order!r}")
    bands = np.ceil(tiles / plan.band_tiles) if plan.band_tiles else np.ones(len(tiles))
    bands = np.maximum(bands, 1).astype(int)
    part, whole = np.repeat(tiles / bands, bands), np.repeat(tiles, bands)
    table = np.zeros((len(part), Phase.COUNT))
    table[:, Phase.FETCHING] = whole * verb.file_bytes * plan.fetch  # a band needs the whole file
    table[:, Phase.OPENING] = verb.open_s
    table[:, Phase.WORKING] = part
    table[:, Phase.FINISHING] = verb.finish_s
    table[:, Phase.PUTTING] = cluster.put_s
    table[:, Phase.SENDING] = part * verb.written_bytes + verb.slide_bytes
    if plan.order != "listed":
        sign = -1 if plan.order == "longest" else 1
        table = table[np.argsort(sign * part, kind="stable")]
    return table


def bounds(tiles: NDArray[Any], verb: Verb, cluster: Cluster, plan: Plan) -> dict[str, float]:
    """Seconds that each stage alone takes at least; no run is quicker than the slowest of them."""
    cluster = on_cores(cluster) if verb.on_cores else cluster
    table = amounts(np.asarray(tiles, np.float64), verb, cluster, plan)
    work = table[:, Phase.WORKING]
    read = table[:, Phase.FETCHING].sum() if plan.fetch else work.sum() * verb.read_bytes
    nodes = math.ceil(cluster.gpus / cluster.gpus_per_node)
    link = min(cluster.storage_gb_s, cluster.node_gb_s * nodes) * GB
    wait_s = 0 if plan.fetch else cluster.latency_s + verb.read_bytes / cluster.stream_gb_s / GB
    pace = max(
        1 / verb.device_tiles_s, verb.host_s, (verb.decode_s + wait_s) / plan.readers,
        verb.decode_s / cluster.cores_per_gpu,
    )  # fmt: skip
    moved = (table[:, Phase.FETCHING] + table[:, Phase.SENDING]) / cluster.stream_gb_s / GB
    fixed = table[:, (Phase.OPENING, Phase.FINISHING, Phase.PUTTING)].sum(axis=1)
    alone = fixed + moved + work * pace
    start, gpus = cluster.start_s, cluster.gpus
    return {
        "storage": start + float(read + table[:, Phase.SENDING].sum()) / link,
        "computing": start + float(work.sum()) / verb.device_tiles_s / gpus,
        "cores": start + float(work.sum()) * verb.decode_s / cluster.cores_per_gpu / gpus,
        "workers": start + float(alone.sum()) / gpus / plan.parallel,
        "longest slide": start + float(alone.max()),
    }
