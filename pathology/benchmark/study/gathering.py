"""What a study's cells say, as one table and the pictures of its page."""

import csv
import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pathology.benchmark.report.pictures import Picture
from pathology.benchmark.study.cells import BlockedError, Cell, read_values
from pathology.benchmark.study.maps import MAPS
from pathology.benchmark.study.measures.catalogue import METRICS
from pathology.benchmark.study.place import Place
from pathology.benchmark.study.plan import Training, trainings, units
from pathology.benchmark.study.progress import Outcome, State
from pathology.benchmark.study.rows import COLUMNS
from pathology.outputs import complete_file

RESULTS, COMMANDS, FAILURES = "results.parquet", "commands.txt", "failures.csv"
CELL_ORDER = ("data", "backbone", "seed", "method", "group")


def gather(place: Place, outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """All rows of a study, of the cells that are there.

    Args:
        place: the study in its folder.
        outcomes: of its work; refusals and failures become rows.
    """
    frames = [
        _rows(place, read_values(cell.folder(place.out)), training, method)
        for training, method, cell in _cells(place)
        if cell.is_done(place.out)
    ]
    frames += _of_slides(place)
    frames.append(_told(place, outcomes))
    table = pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)
    return ordered(place, table)


def ordered(place: Place, table: pd.DataFrame) -> pd.DataFrame:
    """In the study's own order: data, backbones and methods as its config lists them."""
    study = place.study
    order = {
        "data": list(study.data),
        "backbone": [each.name for each in study.backbones],
        "method": ["", *(each.label for each in study.methods)],
        "group": list(METRICS),
    }
    ranks = pd.DataFrame(
        {
            name: table[name]
            .map({one: i for i, one in enumerate(order.get(name, []))})
            .fillna(10**6)
            if name in order
            else table[name]
            for name in CELL_ORDER
        }
    )
    # Within a cell rows stay as they were measured.
    at = ranks.sort_values(list(CELL_ORDER), kind="stable").index
    return table.loc[at].reset_index(drop=True).astype(COLUMNS)[list(COLUMNS)]


def _cells(place: Place) -> Iterator[tuple[Training, str, Cell]]:
    for training in trainings(place.study):
        if training.variant:
            continue
        try:
            yield training, "", place.network_values.cell(training)
        except BlockedError:
            continue
    for timed in (False, True):
        for unit in units(place.study, timed):
            for group in unit.groups:
                try:
                    yield unit.training, unit.method.label, place.maps.group_cell(unit, group)
                except BlockedError:
                    continue


def _rows(place: Place, values: pd.DataFrame, training: Training, method: str) -> pd.DataFrame:
    backbone = place.networks.backbone(training.backbone)
    return values.assign(
        study=place.study.name,
        data=training.data,
        backbone=training.backbone,
        family=backbone.family,
        architecture=backbone.architecture,
        pair=backbone.pair,
        seed=training.seed,
        method=method,
    )[list(COLUMNS)]


def _of_slides(place: Place) -> Iterator[pd.DataFrame]:
    """Rows of the part on slides, whose values say themselves of which aggregator they are."""
    for seed in place.study.seeds if place.study.slides else ():
        try:
            cell = place.slides.cell(seed)
        except BlockedError:
            continue
        if cell.is_done(place.out):
            values = read_values(cell.folder(place.out))
            ours = values["backbone"].str.contains(r"(?:^|, )bcos_", regex=True)
            yield values.assign(
                study=place.study.name,
                data="slides",
                family=np.where(ours, "bcos", "conventional"),
                architecture="",
                pair="",
                seed=seed,
            )[list(COLUMNS)]


def _told(place: Place, outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Refusals and failures as rows without a value."""
    rows: list[dict[str, Any]] = []
    by_name = {unit.name: unit for timed in (False, True) for unit in units(place.study, timed)}
    by_run = {each.name: each for each in trainings(place.study)}
    seen = set()
    for each in outcomes:
        if each.study != place.study.name or each.state not in ("refused", "failed"):
            continue
        if each.state == "refused" and each.what in seen:
            continue
        seen.add(each.what)
        unit = by_name.get(each.what)
        training = unit.training if unit else by_run.get(each.what)
        row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
        row |= {
            "study": place.study.name,
            "seed": training.seed if training else 0,
            "data": training.data if training else (each.what if each.kind == "data" else ""),
            "method": unit.method.label if unit else "",
            "group": each.state,
            "metric": each.state if each.state == "refused" else each.kind,
            "value": math.nan,
            "low": math.nan,
            "high": math.nan,
            "better": "none",
            "headline": False,
            "note": each.message,
        }
        if training:
            backbone = place.networks.backbone(training.backbone)
            row |= {"backbone": backbone.name, "family": backbone.family,
                    "architecture": backbone.architecture, "pair": backbone.pair}  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def pictures(place: Place) -> list[Picture]:
    """Maps that the page shows."""
    found: list[Picture] = []
    for unit in units(place.study, False):
        try:
            folder = place.maps.pictures_cell(unit).folder(place.out)
        except BlockedError:
            continue
        if not unit.pictures or not (folder / MAPS).is_file():
            continue
        with np.load(folder / MAPS) as stored:
            arrays = {name: stored[name] for name in stored.files}
        found += [
            Picture(
                place.study.name,
                unit.training.data,
                unit.training.backbone,
                unit.training.seed,
                unit.method.label,
                str(arrays["names"][i]),
                arrays["images"][i],
                arrays["maps"][i],
                str(arrays["targets"][i]),
                arrays["masks"][i] if arrays["masks"][i].any() else None,
                str(arrays["unit"]),
            )
            for i in range(len(arrays["names"]))
        ]
    return found


def commands(places: Sequence[Place], asked: Sequence[str]) -> list[str]:
    """Exact commands: the study's own, and of every training that it started."""
    found = [shlex.join(["pathology", *asked])]
    for place in places:
        for training in trainings(place.study):
            try:
                if not place.networks.is_trained(training):
                    continue
                words = place.networks.command(training)
            except BlockedError:
                continue
            found.append(shlex.join(["pathology", *words]))
    return found


def write_failures(out: Path, outcomes: Sequence[Outcome]) -> None:
    """What failed and what was refused, a line each."""
    with complete_file(out / FAILURES) as draft, draft.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["study", "state", "kind", "what", "message"])
        for each in sorted(outcomes, key=lambda one: (one.study, one.state, one.kind, one.what)):
            if each.state in ("failed", "refused"):
                writer.writerow([each.study, each.state, each.kind, each.what, each.message])


def read_failures(out: Path) -> list[Outcome]:
    """What the last run wrote of failures and refusals."""
    if not (out / FAILURES).is_file():
        return []
    with (out / FAILURES).open(newline="") as file:
        return [
            Outcome(row["study"], row["kind"], row["what"], _state(row["state"]), row["message"])
            for row in csv.DictReader(file)
        ]


def _state(word: str) -> State:
    return "refused" if word == "refused" else "failed"


def write_results(out: Path, results: pd.DataFrame) -> None:
    """The tidy table."""
    with complete_file(out / RESULTS) as draft:
        results.to_parquet(draft, index=False)


def write_commands(out: Path, words: Sequence[str]) -> None:
    """A command per line."""
    with complete_file(out / COMMANDS) as draft:
        draft.write_text("\n".join(words) + "\n")
