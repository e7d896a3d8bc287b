"""Studies from their YAML files to a table and a page."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch

from bcos_vit.models import create_model
from pathology.benchmark.report import write_page
from pathology.benchmark.study.config import Study, load_study
from pathology.benchmark.study.gathering import (
    commands,
    gather,
    pictures,
    read_failures,
    write_commands,
    write_failures,
    write_results,
)
from pathology.benchmark.study.place import Place
from pathology.benchmark.study.progress import Outcome, State
from pathology.benchmark.study.runner import Runner, one_line
from pathology.outputs import alone_in, writable_folder

PAGE = "report.html"
WORDS: dict[State, str] = {
    "done": "done now",
    "found": "done before",
    "refused": "refused",
    "failed": "failed",
    "blocked": "waiting for what failed",
}


def run_studies(
    configs: Sequence[Path],
    out: Path,
    *,
    device: str = "auto",
    jobs: int = 1,
    only_report: bool = False,
    asked: Sequence[str] = (),
) -> int:
    """Run studies, or go on with them, and write what they say.

    Args:
        configs: a YAML file each.
        out: folder of all of them.
        device: torch's name, or ``auto``.
        jobs: processes at a time.
        only_report: nothing is computed; another process may be at work in ``out``.
        asked: the words of this command, for the page.

    Returns:
        1 where something failed, else 0.

    Raises:
        ValueError: a study that cannot be, two of one name, a device that is not there, a page of
            nothing.
        OutputError: ``out`` cannot be written, or another process is at work in it.
    """
    studies = [load_study(path) for path in configs]
    _check(studies, jobs)
    places = [Place(study, out, _device(device)) for study in studies]
    if only_report:
        outcomes = read_failures(out)
        rows = _report(places, outcomes, asked)
    else:
        _check_networks(studies)
        with alone_in(writable_folder(out), "running studies in it"), _ends_at_sigterm():
            outcomes = Runner(places, jobs).run()
            write_failures(out, outcomes)
            rows = _report(places, outcomes, asked)
    print(summary(outcomes, rows, out))
    return int(any(each.state == "failed" for each in outcomes))


def _report(places: Sequence[Place], outcomes: Sequence[Outcome], asked: Sequence[str]) -> int:
    """Write table and page of what is there; the number of rows."""
    out = places[0].out
    results = pd.concat([gather(place, outcomes) for place in places], ignore_index=True)
    if results.empty:
        names = ", ".join(place.study.name for place in places)
        raise ValueError(f"{out}: nothing of {names} is done there yet; leave out --only-report")
    write_results(out, results)
    words = commands(places, asked)
    write_commands(out, words)
    shown = [picture for place in places for picture in pictures(place)]
    title = "; ".join(place.study.title for place in places)
    write_page(results, shown, out / PAGE, words, title=title)
    return len(results)


@contextmanager
def _ends_at_sigterm() -> Iterator[None]:
    """What a scheduler sends ends a study as Ctrl-C does, so that trainings save their state."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(studies: Sequence[Study], jobs: int) -> None:
    names = [study.name for study in studies]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two studies are called {name!r}; give one another `name`")
    if not studies:
        raise ValueError("--config: no study is given")
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {jobs}")


def _check_networks(studies: Sequence[Study]) -> None:
    """See that all networks can be made, which would else be met after hours."""
    for study in studies:
        for each in study.backbones:
            try:
                with torch.device("meta"):  # without numbers, made at once
                    create_model(each.model, num_classes=2, **each.model_args)
            except Exception as error:
                raise ValueError(
                    f"{study.name}: backbone {each.name} cannot be made: {one_line(error)}"
                ) from error


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used: {reason}") from error
    return name


def summary(outcomes: Sequence[Outcome], rows: int, out: Path) -> str:
    """What was done, in a line."""
    counts = Counter(each.state for each in outcomes)
    told = ", ".join(f"{counts[state]} {word}" for state, word in WORDS.items() if counts[state])
    return f"{told or 'nothing was run'}; {rows} rows: {out / PAGE}"
