"""How verbs go over a cohort: what works, which slides are its, and what a worker needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pathology.cohort.choice import EngineName, make_engine
from pathology.cohort.each_slide import each_slide
from pathology.cohort.engine import Needs
from pathology.cohort.parts import parse_part

if TYPE_CHECKING:
    import pandas as pd

    from pathology.cohort.events import Work


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
    def ending(self) -> str:
        """Of names of files that are of this part only."""
        return "-{}-of-{}".format(*parse_part(self.part)) if self.part else ""

    def slides_of(self, table: "pd.DataFrame") -> "pd.DataFrame":
        """The rows that fall to this part."""
        which, of = parse_part(self.part)
        return table.iloc[which - 1 :: of]

    def needs(self, device: str, readers: int = 0) -> Needs:
        """What a worker needs that has a model.

        Args:
            device: where it computes; ``auto`` is a graphics card where there is one.
            readers: threads that read tiles beside.

        Raises:
            ValueError: there is no such device, or it is a card by number on a cluster.
        """
        if self.engine != "local" and ":" in device:
            raise ValueError(
                f"--device {device}: a cluster gives each worker a card of its own; use --device"
                " cuda"
            )
        if self.engine == "local" and self.is_elsewhere:
            _check_device(device)
        # On one machine the threads of all workers share its cores as they always do.
        cpus = 1.0 if self.engine == "local" else 1.0 + readers
        return Needs(cpus, float(device in ("auto", "cuda")), gpus_if_any=device == "auto")

    def each_slide(
        self, table: "pd.DataFrame", work: "Work", what: str, out: Path, needs: Needs
    ) -> int:
        """Do ``work`` for every slide; returns the exit code."""
        if not len(table):
            print(f"no slide falls to part {self.part}")
            return 0
        return each_slide(
            table,
            work,
            what,
            engine=make_engine(self.engine, self.workers, self.address, self.retries),
            needs=needs,
            keep_going=self.keep_going,
            failures=out / f"failures{self.ending}.csv",
        )


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
