"""Running a study: what is missing is done, what fails is told and the rest goes on."""

import errno
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from bcos_vit.errors import UnsupportedMethodError
from pathology.benchmark.study.cells import BlockedError
from pathology.benchmark.study.place import Place
from pathology.benchmark.study.plan import Training, Unit, trainings, units
from pathology.benchmark.study.processes import in_processes
from pathology.benchmark.study.progress import Outcome, Progress, Tell
from pathology.errors import OutputError

KILLED = "its process was killed, as the system does when memory runs out; try fewer --jobs"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of work that is yet to be looked at."""

    kind: str
    what: str
    do: Callable[[Tell], bool]


def outcome(place: Place, step: Step, tell: Tell) -> Outcome:
    """Do a step; whatever goes wrong in it is its own, and told in one line.

    Raises:
        OutputError: nothing can be written any more, so that the rest would fail, too.
    """
    begun = time.monotonic()
    made = partial(Outcome, place.study.name, step.kind, step.what)
    try:
        ended = made("done" if step.do(tell) else "found")
    except BlockedError as error:
        ended = made("blocked", f"needs {error}")
    except UnsupportedMethodError as error:
        ended = replace(made("refused", one_line(error)), kind="methods")
    except Exception as error:
        if isinstance(error, OutputError) and _is_for_all(error):
            raise
        ended = made("failed", one_line(error))
    return replace(ended, seconds=time.monotonic() - begun)


def _is_for_all(error: OutputError) -> bool:
    """Whether it is a disk that is full, or the like."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM


def one_line(error: BaseException) -> str:
    """An error's message in one line, with its kind where it is no message of ours."""
    text = " ".join(str(error).split())[:500]
    kind = type(error)
    is_ours = kind.__module__.startswith(("pathology", "bcos_vit")) or kind is ValueError
    return text if is_ours and text else f"{kind.__name__}: {text}".rstrip(": ")


def measure_unit(place: Place, unit: Unit, tell: Tell = lambda line: None) -> list[Outcome]:
    """All groups of metrics of a method on a network; maps are shared among them."""
    found: list[Outcome] = []
    maps = place.maps
    subject: Any = None

    def step(name: str, cell: Any) -> Callable[[Tell], bool]:
        def do(tell: Tell) -> bool:
            nonlocal subject
            if cell.is_done(place.out):
                return False
            if subject is None:
                subject = maps.subject(unit)
            if name == "pictures":
                maps.keep_pictures(subject, cell)
            else:
                maps.measure(subject, name, cell)
            return True

        return do

    names = [*unit.groups, *(["pictures"] if unit.pictures else [])]
    for name in names:
        try:
            cell = maps.pictures_cell(unit) if name == "pictures" else maps.group_cell(unit, name)
        except BlockedError as error:
            found.append(Outcome(place.study.name, name, unit.name, "blocked", f"needs {error}"))
            continue
        tell(name)
        made = outcome(place, Step(name, unit.name, step(name, cell)), tell)
        found.append(made)
        if made.state == "refused":
            break  # it speaks for all groups
    return found


@dataclass(frozen=True, slots=True)
class Runner:
    """Does what is missing of studies that lie in one folder.

    Args:
        places: studies; cells that two have in common are computed once.
        jobs: processes at a time. Each holds its own PyTorch and its network with the tiles that it
            explains: a GB or two each for small networks. Time and memory of networks and maps are
            measured with nothing beside them; trainings run beside each other.
    """

    places: Sequence[Place]
    jobs: int = 1

    def run(self) -> list[Outcome]:
        """All of the work, in the order that pieces need each other."""
        if self.jobs > 1:
            share = max(1, (os.cpu_count() or 1) // self.jobs)
            os.environ.setdefault("OMP_NUM_THREADS", str(share))
        plain = [(p, t) for p in self.places for t in trainings(p.study) if not t.variant]
        others = [(p, t) for p in self.places for t in trainings(p.study) if t.variant]
        found = self._steps(
            "tile sets",
            [
                (place, Step("data", data, partial(place.tile_sets.make, data)))
                for place in self.places
                for data in place.study.data
            ],
        )
        for what, some in (("trainings", plain), ("trainings of variants", others)):
            found += self._steps(what, [(p, _training(p, t)) for p, t in some], self.jobs)
        found += self._units("maps", False)
        found += self._steps("networks", [(p, _measuring(p, t)) for p, t in plain])
        refused = {(each.study, each.what) for each in found if each.state == "refused"}
        found += self._units("cost of maps", True, refused)
        found += self._steps(
            "slides",
            [
                (p, Step("slides", f"slides-s{seed}", partial(p.slides.measure, seed)))
                for p in self.places
                if p.study.slides
                for seed in p.study.seeds
            ],
        )
        return found

    def _steps(
        self, what: str, steps: Sequence[tuple[Place, Step]], jobs: int = 1
    ) -> list[Outcome]:
        """Steps in threads: training is in processes of its own."""
        found: list[Outcome] = []
        with Progress(what, len(steps)) as bar:
            if jobs == 1:
                for place, step in steps:
                    bar.tell(step.what)
                    found += bar.step([outcome(place, step, bar.teller(step.what))])
                return found
            with ThreadPoolExecutor(jobs) as pool:
                futures = [
                    pool.submit(outcome, place, step, bar.teller(step.what))
                    for place, step in steps
                ]
                try:
                    for future in as_completed(futures):
                        found += bar.step([future.result()])
                except BaseException:
                    bar.stop()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        return found

    def _units(
        self, what: str, timed: bool, refused: Collection[tuple[str, str]] = ()
    ) -> list[Outcome]:
        """Methods on networks, in processes; those that refused already are not asked again."""
        work = [
            (place, unit)
            for place in self.places
            for unit in units(place.study, timed)
            if (place.study.name, unit.name) not in refused
        ]
        found: list[Outcome] = []
        with Progress(what, len(work)) as bar:
            if self.jobs == 1 or timed:
                for place, unit in work:
                    found += bar.step(measure_unit(place, unit, bar.teller(unit.name)))
                return found
            # What is done, or waits for what failed, needs no process.
            rest = []
            for place, unit in work:
                if _is_open(place, unit):
                    rest.append((place, unit))
                else:
                    found += bar.step(measure_unit(place, unit))
            for i, made in in_processes(measure_unit, rest, self.jobs, _threads):
                place, unit = rest[i]
                lost = [Outcome(place.study.name, "maps", unit.name, "failed", KILLED)]
                found += bar.step(lost if made is None else made)
        return found


def _is_open(place: Place, unit: Unit) -> bool:
    """Whether a cell of a unit can be done and is not."""
    try:
        return not all(cell.is_done(place.out) for _, cell in place.maps.cells(unit))
    except BlockedError:
        # Of a unit some groups may wait for a variant while others can be done.
        return place.networks.is_trained(unit.training) if _has_tiles(place, unit) else False


def _has_tiles(place: Place, unit: Unit) -> bool:
    try:
        place.tile_sets.get(unit.training.data)
    except BlockedError:
        return False
    return True


def _training(place: Place, training: Training) -> Step:
    return Step("runs", training.name, partial(place.networks.train, training))


def _measuring(place: Place, training: Training) -> Step:
    return Step("backbones", training.name, lambda tell: place.network_values.measure(training))


def _threads() -> None:
    """A process of several takes its share of the processors."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
