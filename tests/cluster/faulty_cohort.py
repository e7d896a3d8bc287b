"""A cohort of tiny slides, worked on with accidents, held against a run without."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from pathology.cohort.each_slide import each_slide
from pathology.cohort.engine import Engine
from pathology.cohort.events import Ended, Event, Lost
from pathology.cohort.here import Here
from pathology.outputs import remove_drafts
from tests.cluster.accidents import notes
from tests.cluster.faulty_work import Halves, write_slides


@dataclass
class Heard:
    """Keeps what engines tell."""

    events: list[Event] = field(default_factory=list)

    def __enter__(self) -> "Heard":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def told(self, event: Event) -> None:
        self.events.append(event)

    @property
    def lost(self) -> list[Lost]:
        return [event for event in self.events if isinstance(event, Lost)]

    @property
    def ended(self) -> list[Ended]:
        return [event for event in self.events if isinstance(event, Ended)]


class Cohort:
    """Slides in a folder, their results, and those of a clean run of this process.

    Args:
        folder: an empty one.
        names: of the slides.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.rows = write_slides(folder / "slides", names)
        self.out, self.faults = folder / "out", folder / "faults"
        for place in (self.out, self.faults, folder / "none"):
            place.mkdir()
        clean = folder / "clean"
        clean.mkdir()
        each_slide(pd.DataFrame(self.rows), Halves(clean, folder / "none"), "clean")
        self.wanted = read_all(clean)

    def fault(self, *names: str) -> None:
        """Ask for accidents: ``s1.kill``."""
        for name in names:
            (self.faults / name).touch()

    def run(self, engine: Engine, keep_going: bool = False) -> tuple[int, Heard]:
        """Work on all slides; the exit code, and what was heard."""
        heard = Heard()
        remove_drafts(self.out, self.wanted)  # as verbs do
        code = each_slide(
            pd.DataFrame(self.rows),
            Halves(self.out, self.faults),
            "faults",
            engine=engine,
            keep_going=keep_going,
            failures=self.out / "failures.csv",
            telling=heard,
        )
        return code, heard

    def finish(self) -> None:
        """Run again, in this process: nothing is missing by then, nor half-done or failed."""
        code, _ = self.run(Here())
        assert code == 0
        assert self.failed == {}
        self.check()
        assert list(self.out.rglob("*.part")) == []

    @property
    def failed(self) -> dict[str, str]:
        """What failures.csv says of which slide."""
        path = self.out / "failures.csv"
        if not path.exists():
            return {}
        with path.open(newline="") as file:
            return {row["slide_id"]: row["message"] for row in csv.DictReader(file)}

    def begun(self, name: str) -> int:
        """How often workers began with a slide."""
        return notes(self.faults, "begun").count(name)

    def check(self) -> None:
        """Every slide has its result, whole, and the same as that of a clean run."""
        assert read_all(self.out) == self.wanted


def read_all(folder: Path) -> dict[str, bytes]:
    """The results in a folder, by their names."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.bin"))}
