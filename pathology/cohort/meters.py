"""A run's numbers for Prometheus: ``OUT/.cohort/VERB/metrics.prom``.

The text format that node_exporter's textfile collector reads: have it look into that folder, or
fetch the file from the store. The numbers of a run are those of its last 15 seconds; when it has
ended, speeds and workers are 0. A part of a cohort has a file of its own, as it has its own list of
failures: ``metrics-3-of-16.prom``.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pathology.cohort.records import COHORT_FOLDER

if TYPE_CHECKING:
    from pathology.cohort.tally import Tally

_PREFIX = "bcos_pathology_"
_Value = tuple[Mapping[str, str], float]  # further labels


def metrics_name(verb: str, ending: str = "") -> str:
    """Where a verb's numbers are, from OUT."""
    return f"{COHORT_FOLDER}/{verb}/metrics{ending}.prom"


def exposition(
    tally: "Tally", verb: str, run: str, began_s: float, ended_s: float | None = None
) -> str:
    """The numbers of a run as text.

    Args:
        tally: how it stands.
        verb: of the command, a label of every number.
        run: its name, a label of every number.
        began_s: when it began, in seconds since 1970.
        ended_s: when it ended, ``None`` while it goes on.
    """
    always = {"verb": verb, "run": run}
    lines = []
    for name, kind, about, values in _numbers(tally, began_s, ended_s):
        lines += [f"# HELP {_PREFIX}{name} {about}", f"# TYPE {_PREFIX}{name} {kind}"]
        lines += [f"{_PREFIX}{name}{_labels({**always, **more})} {v!r}" for more, v in values]
    return "\n".join(lines) + "\n"


def _numbers(
    tally: "Tally", began_s: float, ended_s: float | None
) -> Iterator[tuple[str, str, str, list[_Value]]]:
    states = {
        "done": tally.done,
        "failed": tally.failed,
        "working": tally.working,
        "waiting": tally.waiting,
    }
    yield (
        "slides",
        "gauge",
        "Slides of the run's table by state.",
        [({"state": state}, float(count)) for state, count in states.items()],
    )
    over = ended_s is not None
    single: list[tuple[str, str, str, float]] = [
        ("slides_done_before", "gauge", "Done slides that an earlier run had made.", tally.there),
        ("tiles_total", "counter", "Tiles that were worked on.", tally.tiles),
        ("tiles_per_second", "gauge", "Of all workers, now.", 0 if over else tally.tiles_per_s),
        (
            "waiting_seconds_total",
            "counter",
            "Seconds that models waited for tiles to be read, summed over workers.",
            tally.waited_s,
        ),
        (
            "waiting_share",
            "gauge",
            "Share of the workers' time that models wait for tiles, now, from 0 to 1.",
            0 if over else tally.waited_share,
        ),
        ("workers", "gauge", "Processes that work.", 0 if over else tally.workers),
        ("worker_losses_total", "counter", "Workers that died at a slide.", tally.losses),
        ("tries_total", "counter", "How often a slide was begun.", tally.tries),
        ("run_seconds", "gauge", "Seconds since the run began, or that it took.", tally.seconds),
        ("run_began_timestamp_seconds", "gauge", "When the run began.", began_s),
        ("run_ended_timestamp_seconds", "gauge", "When it ended, 0 before.", ended_s or 0),
    ]
    for name, kind, about, value in single:
        yield name, kind, about, [({}, float(value))]


def _labels(values: Mapping[str, str]) -> str:
    def quoted(text: str) -> str:
        text = text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        return f'"{text}"'

    return "{" + ",".join(f"{name}={quoted(text)}" for name, text in values.items()) + "}"
