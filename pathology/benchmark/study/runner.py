"""Running a study: what is missing is done, what fails is told and the rest goes on."""

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import (
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, Literal

import torch
from tqdm import tqdm

from bcos_vit.errors import UnsupportedMethodError
from pathology.benchmark.study.plan import Training, Unit, trainings, units
from pathology.benchmark.study.work import BlockedError, Place

State = Literal["done", "found", "refused", "failed", "blocked"]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a piece of work.

    Args:
        study: that it is of.
        kind: of the work: data, runs, backbones, pictures, slides, or a group of metrics.
        what: its name.
        state: done now, found done, refused by the method, failed, or blocked by a failure that is
            told where it happened.
        message: of a refusal or a failure, in one line.
    """

    study: str
    kind: str
    what: str
    state: State
    message: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of work that is yet to be looked at."""

    kind: str
    what: str
    do: Callable[[Tell], bool]


def outcome(place: Place, step: Step, tell: Tell) -> Outcome:
    """Do a step; whatever goes wrong in it is its own, and told in one line."""
    name = place.study.name
    try:
        state: State = "done" if step.do(tell) else "found"
    except BlockedError as error:
        return Outcome(name, step.kind, step.what, "blocked", f"needs {error}")
    except UnsupportedMethodError as error:
        return Outcome(name, "methods", step.what, "refused", one_line(error))
    except Exception as error:
        return Outcome(name, step.kind, step.what, "failed", one_line(error))
    return Outcome(name, step.kind, step.what, state)


def one_line(error: BaseException) -> str:
    """An error's message in one line, with its kind where it is no message of ours."""
    text = " ".join(str(error).split())[:500]
    kind = type(error)
    is_ours = kind.__module__.startswith(("pathology", "bcos_vit")) or kind is ValueError
    return text if is_ours and text else f"{kind.__name__}: {text}".rstrip(": ")


def measure_unit(place: Place, unit: Unit) -> list[Outcome]:
    """All groups of metrics of a method on a network; maps are shared among them."""
    found: list[Outcome] = []
    subject: Any = None

    def step(name: str, cell: Any) -> Callable[[Tell], bool]:
        def do(tell: Tell) -> bool:
            nonlocal subject
            if cell.is_done(place.out):
                return False
            if subject is None:
                subject = place.subject(unit)
            if name == "pictures":
                place.keep_pictures(subject, cell)
            else:
                place.measure_group(subject, name, cell)
            return True

        return do

    names = [*unit.groups, *(["pictures"] if unit.pictures else [])]
    for name in names:
        try:
            cell = place.pictures_cell(unit) if name == "pictures" else place.group_cell(unit, name)
        except BlockedError as error:
            found.append(Outcome(place.study.name, name, unit.name, "blocked", f"needs {error}"))
            continue
        made = outcome(place, Step(name, unit.name, step(name, cell)), lambda _: None)
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
            explains: a GB or two each for small networks. Time and memory are always measured with
            nothing beside them.
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
                (place, Step("data", data, partial(place.make_data, data)))
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
                (p, Step("slides", f"slides-s{seed}", partial(p.measure_slides, seed)))
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
        with _Bar(what, len(steps)) as bar:
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
                for future in _completed(pool, futures):
                    found += bar.step([future.result()])
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
        with _Bar(what, len(work)) as bar:
            if self.jobs == 1 or timed:
                for place, unit in work:
                    bar.tell(unit.name)
                    found += bar.step(measure_unit(place, unit))
                return found
            # What is done, or waits for what failed, needs no process.
            rest = []
            for place, unit in work:
                if _is_open(place, unit):
                    rest.append((place, unit))
                else:
                    found += bar.step(measure_unit(place, unit))
            if not rest:
                return found
            with ProcessPoolExecutor(self.jobs, get_context("spawn"), _threads) as pool:
                futures = [pool.submit(measure_unit, place, unit) for place, unit in rest]
                for future in _completed(pool, futures):
                    found += bar.step(future.result())
        return found


class _Bar:
    """A bar with what is being done and how long it will take; in a log, a line now and then."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.bar: tqdm[Any] = tqdm(total=total, desc=what, disable=None, leave=False)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def tell(self, line: str) -> None:
        """What is being done."""
        self.bar.set_postfix_str(line)

    def teller(self, what: str) -> Tell:
        """For a step, which tells how far it is."""
        return lambda line: self.tell(f"{what}: {line}")

    def step(self, made: Sequence[Outcome]) -> Sequence[Outcome]:
        """One more is over, told where it went wrong."""
        for each in made:
            if each.state in ("failed", "refused"):
                tqdm.write(f"{each.state}: {each.what} ({each.kind}): {each.message}")
        self.done += 1
        self.bar.update()
        is_seldom = self.done % max(1, self.total // 20) == 0 or self.done == self.total
        if self.bar.disable and is_seldom:
            print(f"{self.what}: {self.done} of {self.total}", flush=True)
        return made


def _is_open(place: Place, unit: Unit) -> bool:
    """Whether a cell of a unit can be done and is not."""
    try:
        return not all(cell.is_done(place.out) for _, cell in place.cells(unit))
    except BlockedError:
        # Of a unit some groups may wait for a variant while others can be done.
        return place.is_trained(unit.training) if _has_tiles(place, unit) else False


def _has_tiles(place: Place, unit: Unit) -> bool:
    try:
        place.tile_set(unit.training.data)
    except BlockedError:
        return False
    return True


def _training(place: Place, training: Training) -> Step:
    return Step("runs", training.name, partial(place.train, training))


def _measuring(place: Place, training: Training) -> Step:
    return Step("backbones", training.name, lambda tell: place.measure_backbone(training))


def _completed(pool: Executor, futures: Sequence[Any]) -> Any:
    """Futures as they end; what has not begun is dropped when this is interrupted."""
    try:
        yield from as_completed(futures)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _threads() -> None:
    """A process of several takes its share of the processors."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
