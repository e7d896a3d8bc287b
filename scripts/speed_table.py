"""Write the table of docs/speed.md from docs/speed.csv, missed targets in bold.

The CSV is what ``pathology benchmark speed`` wrote; ratios are of medians of neighbouring runs::

    pathology benchmark speed --out docs/speed.csv --device cpu
    python scripts/speed_table.py            # writes the table between its marks
    python scripts/speed_table.py --check    # exits with 2 where it would be another
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from pathology.benchmark.measures import MEASURES
from pathology.benchmark.speed import MODELS
from pathology.benchmark.table import read_rows
from pathology.benchmark.targets import met, target

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "speed.md"
FIGURES = ROOT / "docs" / "speed.csv"
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
NOTHING = "-"
# What a name in a heading goes without, all of them having it.
PREFIX, SUFFIXES = "bcos_", ("_patch16_224", "_patch4_window7_224")

Row = Mapping[str, str]


def heading(model: str) -> str:
    """The model's name, as short as it can be."""
    name = model.removeprefix(PREFIX)
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name.replace("_", " ")


def what(row: Row) -> str:
    """What a line of the table is of."""
    title = MEASURES[row["measure"]].title.replace("several", row["classes"])
    return ", ".join([title, *(row[field].replace("_", " ") for field in ("mode", "layout"))])


def bars(rows: Iterable[Row]) -> str:
    """What a line must reach; several where kinds of networks differ."""
    values = dict.fromkeys(bar for row in rows if (bar := target(row)) is not None)
    return " or ".join(f"{bar:g}" for bar in values) or NOTHING


def cell(row: Row | None) -> str:
    """A ratio; bold where it misses its target."""
    if row is None:
        return NOTHING
    return f"**{row['ratio']}**" if met(row) is False else row["ratio"]


def table(rows: Iterable[Row]) -> str:
    """A line for each measure, mode and layout; a column for each model with a target."""
    rows = [row for row in rows if row["model"] in MODELS]
    if not rows:
        return "Nothing is measured yet: `pathology benchmark speed`."
    models = [model for model in MODELS if any(row["model"] == model for row in rows)]
    order = {measure: i for i, measure in enumerate(MEASURES)}
    lines: dict[str, dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: order[row["measure"]]):
        lines.setdefault(what(row), {})[row["model"]] = row
    table = [
        ["ratio", "must reach", *map(heading, models)],
        ["---"] * (len(models) + 2),
        *(
            [name, bars(found.values()), *(cell(found.get(model)) for model in models)]
            for name, found in lines.items()
        ),
    ]
    verdicts = [met(row) for row in rows]
    missed, barred = verdicts.count(False), len(verdicts) - verdicts.count(None)
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in table), "", note(rows[0])]) + (
        f" {barred - missed} of {barred} targets are met; those in **bold** are not."
    )


def note(row: Row) -> str:
    """Where and how rows were measured."""
    threads = f"{row['threads']} thread{'' if row['threads'] == '1' else 's'}"
    return (
        f"{row['machine']}, {threads}, torch {row['torch']}, {row['batch']} images of"
        f" {row['size_px']} px at a time; medians, whose quartiles are in"
        f" [{FIGURES.name}]({FIGURES.name})."
    )


def main() -> None:
    """Write the table, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 2 if outdated")
    args = parser.parse_args()
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    old, end, after = rest.partition(END)
    if not (begin and end):
        parser.error(f"{PAGE.name} has no lines {BEGIN!r} and {END!r}; the table goes between them")
    new = f"\n{table(read_rows(FIGURES).values())}\n"
    if not args.check:
        PAGE.write_text(before + begin + new + end + after)
    elif old != new:
        parser.error(
            f"{PAGE.name}: the table of speed is not that of {FIGURES.name};"
            " run python scripts/speed_table.py"
        )


if __name__ == "__main__":
    main()
