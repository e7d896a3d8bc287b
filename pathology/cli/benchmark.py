"""``pathology benchmark``: what models cost, and studies of networks and their explanations."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pathology.cli.run_function import run_function

if TYPE_CHECKING:
    from pathology.benchmark.table import Row

# Line by line, so that a run can be followed.
LAYOUT = "{:<33} {:<26} {:<8} {:<13} {:>12} {:>12}  {:<22} {}"
HEADS = ("model", "measure", "mode", "layout", "ours", "theirs", "ratio, quartiles", "must reach")


def speed(
    out: Path = Path("speed.csv"),
    models: list[str] | str = "",
    measures: list[str] | str = "",
    modes: list[str] | str = "",
    layouts: list[str] | str = "",
    classes: int = 8,
    batch: int = 8,
    size_px: int | None = None,
    threads: int = 1,
    device: str = "auto",
    seconds: float = 20.0,
    again: bool = False,
) -> int:
    """Measure B-cos models beside their conventional twins, and explanations beside forward passes.

    Each takes turns with what it is compared with, after warm-up; a ratio is the median over
    neighbouring runs, with quartiles. A row is printed and added to the CSV when it is there; rows
    that the file has are not measured again, so that a run can be stopped and go on. One file holds
    one setting: batch, size, threads, device, machine, torch.

    measures: inference, training_step, kept_memory (held for backward), training_memory (the peak);
    explain_class, explain_classes, explain_head (all classes), explain_16px (one class where a
    position is 16 px wide), in forward passes; explain_class_memory (the peak over that of a
    forward pass), explain_classes_memory (over that of two classes). On a GPU, compiled networks
    run in bfloat16 by autocast, all else in float32.

    Args:
        out: CSV to add rows to.
        models: one, or several as [a, b] or a,b; those of the performance targets when omitted.
        measures: likewise; all when omitted.
        modes: eager, compiled; both when omitted. Explanations and kept_memory are eager.
        layouts: contiguous, channels_last; both when omitted. Networks of tokens have the first.
        classes: how many to explain where it is several.
        batch: images at a time.
        size_px: side of the images; each model's own when omitted.
        threads: that a CPU may use.
        device: auto, cpu, cuda, ...
        seconds: to spend on each row, about; warm-up and compilation come on top.
        again: measure also what the file has.
    """
    from tqdm import tqdm

    from pathology.benchmark.speed import SpeedBenchmark
    from pathology.benchmark.table import (
        KEY,
        check_setting,
        check_writable,
        key,
        read_rows,
        write_rows,
    )

    chosen = {
        name: words
        for name, value in (
            ("models", models), ("measures", measures), ("modes", modes), ("layouts", layouts),
        )
        if (words := _words(value))
    }  # fmt: skip
    benchmark = SpeedBenchmark(
        **chosen,
        classes=classes,
        batch=batch,
        size_px=size_px,
        threads=threads,
        device=device,
        seconds=seconds,
    )
    check_writable(out)
    rows = read_rows(out)
    check_setting(out, rows.values(), benchmark.setting)
    wanted = {tuple(getattr(cell, field) for field in KEY): cell for cell in benchmark.cells}
    todo = [cell for name, cell in wanted.items() if again or name not in rows]
    if len(todo) < len(wanted):
        print(f"{len(wanted) - len(todo)} of {len(wanted)} rows are in {out} already")
    if todo:
        print(LAYOUT.format(*HEADS))
    with tqdm(benchmark.measure(todo), total=len(todo), unit="row", leave=False) as bar:
        for row in bar:
            rows[key(row)] = row
            write_rows(out, rows.values())
            tqdm.write(line(row))
    print(summary([rows[name] for name in wanted]), f"({out})")
    return 0


def _words(value: list[str] | str) -> list[str]:
    """Names, given as a list or with commas between them."""
    words = value.split(",") if isinstance(value, str) else value
    return [word.strip() for word in words if word.strip()]


def line(row: "Row") -> str:
    """A row, to be read."""
    from pathology.benchmark.targets import met, target

    verdict = {True: "met", False: "MISSED", None: "-"}[met(row)]
    bar = target(row)
    several = f" ({row['classes']})" if row["classes"].isdecimal() and row["classes"] != "1" else ""
    return LAYOUT.format(
        row["model"],
        row["measure"] + several,
        row["mode"],
        row["layout"],
        f"{row['ours']} {row['unit']}",
        f"{row['theirs']} {row['unit']}",
        f"{row['ratio']} [{row['ratio_low']}, {row['ratio_high']}]",
        verdict if bar is None else f"{bar:g}: {verdict}",
    )


def summary(rows: "list[Row]") -> str:
    """How many targets are met."""
    from pathology.benchmark.targets import met

    verdicts = [verdict for row in rows if (verdict := met(row)) is not None]
    return f"{sum(verdicts)} of {len(verdicts)} targets met"


def study(
    config: list[str] | str,
    out: Path,
    device: str = "auto",
    jobs: int = 1,
    only_report: bool = False,
) -> int:
    """Compare networks and ways to explain them: accuracy, cost, quality of their maps.

    Runs the studies of YAML files (configs/benchmark) and writes into --out: results.parquet (a
    tidy table), report.html (one page), commands.txt (what was run), failures.csv, and cells/, a
    folder for each piece of work. Run it again and it goes on where it was stopped; what is done is
    not done again, and a change in a config only costs what it changes. What fails is told in a
    line and the rest goes on.

    exit codes: 0 done, 1 something failed (failures.csv says what), 2 something to correct

    Args:
        config: studies, one YAML each.
        out: folder for all of them.
        device: auto, cpu, cuda, ...
        jobs: processes at a time; each needs a GB or two of memory for small networks on small
            tiles. Times are measured with nothing beside them.
        only_report: write the table and the page of what is there.
    """
    from pathology.benchmark.study.running import run_studies

    files = [config] if isinstance(config, str) else config
    words = ["benchmark", "--config", *files, "--out", str(out)]
    words += ["--device", device] if device != "auto" else []
    return run_studies(
        [Path(each) for each in files],
        out,
        device=device,
        jobs=jobs,
        only_report=only_report,
        asked=words,
    )


KINDS = {"speed": (speed, "cost over the conventional twin, of explanations over a forward pass")}


def main(arguments: Sequence[str]) -> int:
    """Run studies, or a kind of benchmark."""
    kinds = "\n".join(f"  {kind:<10} {what}" for kind, (_, what) in KINDS.items())
    usage = (
        "usage: pathology benchmark --config STUDY.yaml [...] --out DIR\n"
        "       pathology benchmark KIND [options]\n\n"
        "Studies (configs/benchmark) train networks and their twins, explain them by many methods,"
        " and\nmeasure the maps; `pathology benchmark --config --help` tells the options.\n\n"
        f"kinds:\n{kinds}"
    )
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0].startswith("--"):
        if "--help" in arguments or "-h" in arguments:
            arguments = ["--help"]
        return run_function(study, arguments, "benchmark", config=False)
    if arguments[0] not in KINDS:
        raise ValueError(f"no benchmark is called {arguments[0]!r}; one of {', '.join(KINDS)}")
    return run_function(KINDS[arguments[0]][0], arguments[1:], f"benchmark {arguments[0]}")
