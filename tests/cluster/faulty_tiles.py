"""`pathology tile` of small slides on a cluster, with accidents, held against a run without."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pathology.cli.tile_slide import Tiler
from pathology.cohort.records import Record, records_prefix
from tests.cli.made_slides import write_slide
from tests.cluster.accidents import notes
from tests.made_cohort import results_in

ROOT = Path(__file__).parents[2]
CUT = ["--size-px", "32", "--tile-mpp", "2", "--exclude", "none"]


@dataclass(frozen=True)
class Slides:
    """Slides in a folder, and what a run of this process makes of them.

    Args:
        folder: of the slides.
        wanted: results by their names.
    """

    folder: Path
    wanted: dict[str, bytes]

    @property
    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.iterdir())

    def made_of(self, name: str) -> dict[str, bytes]:
        """One slide's results."""
        return {f"{name}{end}": self.wanted[f"{name}{end}"] for end in Tiler.ENDS}


def made_slides(folder: Path, count: int) -> Slides:
    """Make them, ``s0`` and so on, and tile them."""
    from pathology.cli import main

    for i in range(count):
        write_slide(folder / "slides" / f"s{i}.tif", i, side=256)
    clean = folder / "clean"
    words = ["tile", "--slides", str(folder / "slides"), "--out", str(clean), *CUT]
    assert main(words) == 0
    return Slides(folder / "slides", results_in(clean))


class FaultyTiles:
    """Runs over slides, whose accidents are asked for.

    Args:
        slides: which.
        folder: an empty one, for accidents and results.
        address: of the cluster.
        out: folder or URL of the results; one in ``folder`` when omitted.
    """

    def __init__(self, slides: Slides, folder: Path, address: str, out: str = "") -> None:
        self.slides, self.address = slides, address
        self.faults, self.out = folder / "faults", out or str(folder / "out")
        self.faults.mkdir()

    @property
    def folder(self) -> Path:
        """Of the results, where they are here."""
        return Path(self.out)

    def fault(self, *names: str) -> None:
        """Ask for accidents: ``s1.kill``."""
        for name in names:
            (self.faults / name).touch()

    def begun(self) -> dict[str, int]:
        """How often workers began with each slide."""
        begun = notes(self.faults, "begun")
        return {name: begun.count(name) for name in self.slides.names}

    def start(self, *more: str, workers: int = 2) -> "subprocess.Popen[str]":
        """The command line begins; without workers, on this machine."""
        words = ["tile", "--slides", str(self.slides.folder), "--out", self.out, *CUT, *more]
        if workers:
            words += ["--engine", "ray", "--address", self.address, "--workers", str(workers)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.stumbling_tile", *words],
            cwd=ROOT,
            env={**os.environ, "FAULTS": str(self.faults)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *more: str, workers: int = 2) -> tuple[int, str]:
        """The command line, to its end: its exit code, and what it said."""
        return end(self.start(*more, workers=workers))

    def check(self, out: Path | None = None) -> None:
        """Every slide has its results, nobody anything else, and one record of it."""
        out = out or self.folder
        assert results_in(out) == self.slides.wanted
        assert checked_records(out, self.slides) == self.slides.names
        assert records(out, "failed") == {}
        assert not (out / "failures.csv").exists()


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for the end of a command line: its exit code, and what it said."""
    try:
        said, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    return process.returncode, said


def error_line(said: str) -> str:
    """The line that a command line ends with when it fails."""
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("pathology tile: ")]
    assert len(lines) == 1, said
    return lines[0]


def records(out: Path, state: str) -> dict[str, Record]:
    """All records of a state, by the names of the slides; none is damaged."""
    folder = out / records_prefix("tile", state)  # type: ignore[arg-type]
    files = folder.iterdir() if folder.exists() else []
    found = {path.stem: Record.from_json(path.read_bytes()) for path in files}
    assert all((one.slide_id, one.state) == (name, state) for name, one in found.items())
    return found


def checked_records(out: Path, slides: Slides) -> list[str]:
    """The slides that are done by their records, whose files are there and right."""
    done = records(out, "done")
    for name, record in done.items():
        wanted = slides.made_of(name)
        assert {file: (out / file).read_bytes() for file in record.files} == wanted
        sums = {file: hashlib.sha256(data).hexdigest() for file, data in wanted.items()}
        assert {file: one.sha256 for file, one in record.files.items()} == sums
    return sorted(done)


def journal(out: Path) -> list[dict[str, object]]:
    """What happened in all runs."""
    files = sorted((out / ".cohort" / "tile" / "runs").glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]
