"""How verbs go over a cohort: what works, on which slides, and where results are kept."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pathology.cohort.bench import Input
from pathology.cohort.choice import EngineName, make_engine
from pathology.cohort.each_slide import each_slide
from pathology.cohort.engine import Needs
from pathology.cohort.journal import run_name
from pathology.cohort.parts import parse_part
from pathology.cohort.staging import Staged
from pathology.cohort.telling import Telling
from pathology.errors import OutputError
from pathology.store.place import Place

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Results:
    """What a verb leaves for a slide, and what decides it; see :class:`Staged`.

    Args:
        verb: which.
        doing: shown beside the progress.
        ends: of the names of a slide's files.
        key: all that decides them besides the files that are read.
        inputs: tables that are read for each slide.
        columns: of the table of slides that name further files.
        again: look at each slide anew, whatever was noted before.
    """

    verb: str
    doing: str
    ends: tuple[str, ...]
    key: str
    inputs: Mapping[str, Input] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    again: bool = False


@dataclass(frozen=True)
class OnCohort:
    """The options that all verbs have that write results for each slide.

    Args:
        engine: local or ray.
        address: of the cluster.
        workers: how many; 0 is this process, on a cluster as many as there is place for.
        retries: how often a slide is tried again whose worker died.
        part: ``3/16``, the third of every 16 slides.
        keep_going: list slides that fail rather than stop.

    Raises:
        MissingExtraError, ValueError: as :func:`~pathology.cohort.choice.make_engine` and
            :func:`~pathology.cohort.parts.parse_part`.
    """

    engine: EngineName = "local"
    address: str | None = None
    workers: int = 0
    retries: int = 1
    part: str | None = None
    keep_going: bool = False

    def __post_init__(self) -> None:
        # Now, not after models were loaded.
        make_engine(self.engine, self.workers, self.address, self.retries)
        parse_part(self.part)

    @property
    def is_elsewhere(self) -> bool:
        """Work is done in other processes: this one's models and bars are not needed."""
        return self.engine != "local" or self.workers > 0

    @property
    def bars(self) -> bool:
        """Progress within a slide is shown: where this process works, and somebody looks."""
        return not self.is_elsewhere and sys.stderr.isatty()

    @property
    def failures(self) -> str:
        """Name of the table of the slides that failed."""
        return "failures{}.csv".format("-{}-of-{}".format(*parse_part(self.part)) * bool(self.part))

    def slides_of(self, table: "pd.DataFrame") -> "pd.DataFrame":
        """The rows that fall to this part."""
        which, of = parse_part(self.part)
        return table.iloc[which - 1 :: of]

    def needs(self, device: str, readers: int = 0, workers_per_gpu: int = 1) -> Needs:
        """What a worker needs that has a model.

        Args:
            device: where it computes; ``auto`` is a graphics card where there is one.
            readers: threads that read tiles beside.
            workers_per_gpu: that share a card of a cluster.

        Raises:
            ValueError: there is no such device, or it is a card by number on a cluster;
                ``workers_per_gpu`` below 1, or without a cluster.
        """
        if workers_per_gpu < 1 or (workers_per_gpu > 1 and self.engine == "local"):
            raise ValueError(
                f"--workers-per-gpu must be at least 1, and 1 without --engine ray, got"
                f" {workers_per_gpu}; on one machine --workers share its cards, twice as many"
                " workers as cards are two for each"
            )
        if self.engine != "local" and ":" in device:
            raise ValueError(
                f"--device {device}: a cluster gives each worker a card of its own; use --device"
                " cuda"
            )
        if self.engine == "local" and self.is_elsewhere:
            _check_device(device)
        # On one machine the threads of all workers share its cores as they always do.
        cpus = 1.0 if self.engine == "local" else 1.0 + readers
        # Ray counts cards in ten thousandths.
        gpus = (10_000 // workers_per_gpu) / 10_000 if device in ("auto", "cuda") else 0.0
        return Needs(cpus, gpus, gpus_if_any=device == "auto")

    def each_slide(
        self, table: "pd.DataFrame", work: Any, results: Results, place: Place, needs: Needs
    ) -> int:
        """Do ``work`` for every slide of this part; returns the exit code.

        Args:
            table: all slides.
            work: on one of them, a dataclass with a field ``out``.
            results: what it leaves.
            place: where.
            needs: of a worker.
        """
        own = self.slides_of(table)
        if not len(own):
            print(f"no slide falls to part {self.part}")
            return 0
        run = run_name()
        staged = Staged(
            work, place.store, results.verb, results.ends, results.key, results.inputs,
            results.columns, results.again, run,
        )  # fmt: skip
        telling = Telling(
            place.store, results.verb, rows_of(own), results.doing, cohort=rows_of(table),
            part=self.part, run=run,
        )  # fmt: skip
        try:
            code = each_slide(
                own,
                staged,
                results.doing,
                engine=make_engine(self.engine, self.workers, self.address, self.retries),
                needs=needs,
                keep_going=self.keep_going,
                failures=place.folder / self.failures,
                listed_in=place.store.where(self.failures),
                telling=telling,
            )
        except BaseException:
            with suppress(OutputError):  # of what stops the run already
                place.publish([self.failures])
            raise
        place.publish([self.failures])
        return code


def rows_of(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows of a table of slides."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


@contextmanager
def named_as_kept(*places: Place) -> Iterator[None]:
    """Errors name files where they are kept, not where this process looks at them."""
    try:
        yield
    except Exception as error:
        for place in places:
            if not place.store.is_local:
                here, there = str(place.folder), place.store.place
                error.args = tuple(
                    each.replace(here, there) if isinstance(each, str) else each
                    for each in error.args
                )
        raise


def _check_device(name: str) -> None:
    """Refuse a device that there is not, without a claim on its memory."""
    import torch

    if name == "auto":
        return
    try:
        device = torch.device(name)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used: {first}") from error
    there = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ValueError(
            f"device {name!r} cannot be used: this machine has {there or 'no'} graphics"
            f" card{'s' * (there != 1)} that torch can use"
        )
