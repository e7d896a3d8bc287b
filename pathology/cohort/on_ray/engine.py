"""Work on the machines of a Ray cluster: an actor is a worker, with one slide at a time.

An actor holds the work unpickled for as long as it lives, so that a model is loaded once by each.
The driver hands out slides and hears what became of them; slides that wait are its own, so that
actors which wait for a machine keep nobody else waiting.
"""

import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathology.cohort.engine import Needs
from pathology.cohort.events import Counted, Ended, Event, Lost, Row, Started, Work
from pathology.cohort.failures import given_up, portable
from pathology.cohort.on_ray.attempts import Attempts, Straggling
from pathology.cohort.on_ray.cluster import check_address, in_words, joined, room_for, settled
from pathology.cohort.on_ray.deaths import died_of
from pathology.cohort.on_ray.installed import installed
from pathology.cohort.on_ray.worker import Done, Hello, RayWorker
from pathology.cohort.worker import THREADS
from pathology.errors import ClusterError

EVERY_S = 1.0  # workers are asked how far they are
GROW_S = 10.0  # and the cluster, whether it has grown
TELL_S = 30.0  # without a worker, before that is told
GRACE_S = 10.0  # for workers to tidy up after themselves when they are stopped
CLOCK = "SOURCE_DATE_EPOCH"  # what results say of when they were made
STILLBORN = 5  # times in a row that workers die before they begin, before the run is given up
PAUSE_S = 2.0  # behind the first, then twice as long each time: Ray takes a while to see a loss


@dataclass(frozen=True, slots=True)
class RayEngine:
    """An :class:`~pathology.cohort.engine.Engine` of Ray actors.

    Args:
        address: of a running cluster that this machine belongs to: ``auto`` or ``host:port``;
            ``None`` starts a Ray on this machine that ends with the run.
        workers: how many at most; 0: as many as the cluster has room for, also when it grows.
        retries: how often a slide is tried again whose worker died.
        patience_s: seconds without any worker before the run is given up. Clusters that grow when
            asked take minutes to.
        straggling: when a slide is begun once more elsewhere.

    Raises:
        ValueError: ``workers`` or ``retries`` is negative, or ``address`` is none.
    """

    address: str | None = None
    workers: int = 0
    retries: int = 1
    patience_s: float = 600.0
    straggling: Straggling = field(default_factory=Straggling)

    def __post_init__(self) -> None:
        for name in ("workers", "retries"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.address is not None:
            check_address(self.address)

    def run(self, rows: Sequence[Row], work: Work, needs: Needs) -> Generator[Event]:
        """Events as they come; ``work`` must be picklable, and importable on every machine.

        Raises:
            MissingExtraError: Ray is not installed.
            ClusterError: the cluster cannot be reached or is lost, has no machine for a worker, or
                has one that has other versions than this one installed.
        """
        with joined(self.address, max(1, self.workers) * needs.cpus) as ray:
            run = _Run(self, ray, rows, work, settled(ray, needs))
            try:
                yield from run.events()
            except ConnectionError as error:
                raise ClusterError(f"the cluster was lost: {_last_line(error)}") from error
            finally:
                run.stop()


@dataclass(eq=False, slots=True)
class _Actor:
    """A worker, as the driver knows it."""

    handle: Any
    hello: Any  # the reference of its answer, until it has come
    name: str = ""
    node: str = ""
    index: int | None = None
    done: Any = None
    counted: Any = None

    @property
    def is_idle(self) -> bool:
        return self.hello is None and self.index is None

    def refs(self) -> list[Any]:
        return [ref for ref in (self.hello, self.done, self.counted) if ref is not None]


class _Run:
    """The driver's side of one run."""

    def __init__(
        self, engine: RayEngine, ray: Any, rows: Sequence[Row], work: Work, needs: Needs
    ) -> None:
        self.engine, self.ray, self.rows, self.needs = engine, ray, rows, needs
        self.slides = Attempts(len(rows), engine.retries, engine.straggling)
        self.actors: list[_Actor] = []
        self.limit = engine.workers
        self.stillborn = 0
        self.hire_at = 0.0
        self.told = False
        now = time.monotonic()
        self.lived = now  # the last time that there was a worker
        self.grew = self.asked = -GROW_S
        # One copy on each machine, however many workers it has.
        self.work = ray.put(ray.cloudpickle.dumps(work))
        self.versions = ray.put(installed())
        # Ray would give every worker as many threads as it has processors.
        variables = {name: os.environ.get(name, "1") for name in THREADS}
        if (made_at := os.environ.get(CLOCK)) is not None:
            variables[CLOCK] = made_at
        if not needs.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        self.kind = ray.remote(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            max_restarts=0,
            max_task_retries=0,
            # Slides are read over the network of every machine, not of a few.
            scheduling_strategy="SPREAD",
            concurrency_groups={"beside": 1},
            runtime_env={"env_vars": variables},
        )(RayWorker)

    def events(self) -> Generator[Event]:
        while self.slides.left:
            self._hire()
            yield from self._hand_out()
            self._ask()
            for actor, ref in self._answers():
                if actor in self.actors:
                    yield from self._answer(actor, ref)

    def stop(self) -> None:
        """End all workers; those at work get to remove what is half written."""
        self._dismiss(list(self.actors))

    def _hire(self) -> None:
        """As many workers as there is work for."""
        now = time.monotonic()
        if not self.engine.workers and now >= self.grew + GROW_S:
            self.grew, self.limit = now, max(1, room_for(self.ray, self.needs))
        busy = [actor for actor in self.actors if actor.index is not None]
        if self.slides.waiting:
            wanted = min(self.limit, len(busy) + len(self.slides.waiting))
            for _ in range(wanted - len(self.actors) if now >= self.hire_at else 0):
                handle = self.kind.remote(str(Path.cwd()))
                self.actors.append(_Actor(handle, handle.hello.remote(self.work, self.versions)))
        else:
            # One for each slide that may yet be doubled; machines are others' to use.
            free = [actor for actor in self.actors if actor.index is None]
            free.sort(key=lambda actor: actor.hello is not None)
            self._dismiss(free[len(busy) :])
        if any(actor.hello is None for actor in self.actors):
            self.lived, self.told = now, False
        elif now > self.lived + self.engine.patience_s:
            raise ClusterError(
                f"no worker within {self.engine.patience_s:g} s:"
                f" {in_words(self.ray, self.needs)}; ask for less, or start machines that have it"
            )
        elif now > self.lived + TELL_S and not self.told:
            self.told = True
            _tell(f"waiting for workers: {in_words(self.ray, self.needs)}")

    def _hand_out(self) -> Iterator[Event]:
        """Slides to workers that have none."""
        for actor in [actor for actor in self.actors if actor.is_idle]:
            if self.slides.waiting:
                yield self._give(actor, self.slides.waiting.popleft())
        idle = [actor for actor in self.actors if actor.is_idle]
        while idle and (index := self.slides.straggler(time.monotonic())) is not None:
            slow = {actor.node for actor in self.actors if actor.index == index}
            # On another machine, if one is free: most often it is the machine that is slow.
            idle.sort(key=lambda actor: actor.node in slow)
            yield self._give(idle.pop(0), index)

    def _give(self, actor: _Actor, index: int) -> Started:
        actor.index, actor.done = index, actor.handle.do.remote(self.rows[index])
        tries = self.slides.begin(index, actor, time.monotonic())
        return Started(index, actor.name, tries)

    def _ask(self) -> None:
        """Have workers say how far they are; and whether those live that have nothing to do."""
        now = time.monotonic()
        if now < self.asked + EVERY_S:
            return
        self.asked = now
        for actor in self.actors:
            if actor.hello is None and actor.counted is None:
                ask = actor.handle.counted.options(concurrency_group="beside")
                actor.counted = ask.remote()

    def _answers(self) -> list[tuple[_Actor, Any]]:
        """Whatever has been answered, after a second at most."""
        whose = {ref: actor for actor in self.actors for ref in actor.refs()}
        refs = list(whose)
        if not refs:
            time.sleep(EVERY_S / 10)
            return []
        ready, _ = self.ray.wait(refs, num_returns=1, timeout=EVERY_S)
        if ready:
            ready, _ = self.ray.wait(refs, num_returns=len(refs), timeout=0)
        # What is done is done, also where the worker has died since.
        ready.sort(key=lambda ref: ref != whose[ref].done)
        return [(whose[ref], ref) for ref in ready]

    def _answer(self, actor: _Actor, ref: Any) -> Iterator[Event]:
        """What follows from one answer."""
        from ray.exceptions import RayError, RayTaskError

        try:
            answer = self.ray.get(ref)
        except RayTaskError as error:
            if ref != actor.done:
                raise ClusterError(f"a worker cannot begin: {_last_line(error)}") from error
            # Not of the work, which answers with what it raises: its row could not be sent.
            answer = Done(portable(error.cause), 0.0, 0, 0.0)
        except RayError as error:
            yield from self._died(actor, error)
            return
        if ref == actor.hello:
            self._welcome(actor, answer)
        elif ref == actor.counted:
            actor.counted = None
            yield from self._counts(actor, answer)
        elif ref == actor.done:
            yield from self._done(actor, answer)

    def _welcome(self, actor: _Actor, hello: Hello) -> None:
        if hello.trouble:
            raise ClusterError(
                f"{hello.trouble}; install the same bcos-pathology, and what it needs, on every"
                " machine"
            )
        self.stillborn = 0
        actor.hello, actor.name, actor.node = None, hello.worker, hello.node

    def _counts(self, actor: _Actor, counts: tuple[int, float]) -> Iterator[Event]:
        if actor.index is not None and any(counts):
            yield Counted(actor.index, actor.name, *counts)

    def _done(self, actor: _Actor, done: Done) -> Iterator[Event]:
        from ray.exceptions import RayError

        if actor.counted is not None:
            # Told before its slide has ended, not after; how it died is told at the next slide.
            try:
                counts = self.ray.get(actor.counted, timeout=GRACE_S)
                yield from self._counts(actor, counts)
                actor.counted = None
            except RayError:
                pass
        yield from self._counts(actor, (done.tiles, done.waited_s))
        index, actor.index, actor.done = actor.index, None, None
        assert index is not None
        self.slides.leave(index, actor)
        yield from self._ended(index, actor.name, done.result, done.seconds)

    def _ended(
        self, index: int, name: str, result: str | Exception, seconds: float
    ) -> Iterator[Event]:
        usual = seconds if isinstance(result, str) else None
        others = self.slides.end(index, usual)
        # The first counts; what the other would write is the same.
        self._dismiss([actor for actor in self.actors if actor in others])
        yield Ended(index, name, result, seconds, self.slides.begun(index))

    def _died(self, actor: _Actor, error: Exception) -> Iterator[Event]:
        """A worker is no more."""
        self.actors.remove(actor)
        self.ray.kill(actor.handle)  # one that cannot be reached may live
        why, index = died_of(error), actor.index
        if actor.hello is not None:
            now = time.monotonic()
            if now >= self.hire_at:  # of a machine's many workers it is one time
                self.stillborn += 1
                self.hire_at = now + PAUSE_S * 2 ** (self.stillborn - 1)
            if getattr(error, "actor_init_failed", False) or self.stillborn >= STILLBORN:
                raise ClusterError(_stillborn(error, why))
        if index is None:
            return
        seconds = self.slides.seconds(index, actor, time.monotonic())
        deaths = self.slides.died(index, actor)
        if deaths:
            yield Lost(index, actor.name, why, self.slides.begun(index))
        else:
            tries = self.slides.begun(index)
            failure = given_up(why, tries, str(self.rows[index]["path"]))
            yield from self._ended(index, actor.name, failure, seconds)

    def _dismiss(self, actors: Sequence[_Actor]) -> None:
        """End workers, and forget them."""
        from ray.exceptions import RayError

        if not actors:
            return
        self.actors = [actor for actor in self.actors if actor not in actors]
        busy = [actor for actor in actors if actor.index is not None]
        try:
            for actor in busy:
                actor.handle.stop.options(concurrency_group="beside").remote()
                assert actor.index is not None
                self.slides.leave(actor.index, actor)
            if busy:
                ends = [actor.done for actor in busy]
                self.ray.wait(ends, num_returns=len(ends), timeout=GRACE_S)
            for actor in actors:
                self.ray.kill(actor.handle)
        except (RayError, ConnectionError):
            pass  # the cluster is lost, and they with it


def _stillborn(error: Exception, why: str) -> str:
    last = _last_line(error)
    if "ModuleNotFoundError" in last or "ImportError" in last:
        return (
            f"a worker cannot begin: {last}; install the same bcos-pathology, and what it needs,"
            " on every machine"
        )
    return f"workers die before they begin: {why} ({last})"


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def _tell(line: str) -> None:
    """Beside the bar of progress."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
