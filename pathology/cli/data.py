"""``pathology data VERB``: data sets as they lie on a disk, their checks, manifests and splits."""

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pathology.cli.run_function import run_function
from pathology.cli.split import split as split_rows
from pathology.errors import ManifestError, OutputError

if TYPE_CHECKING:
    import pandas as pd

    from pathology.data.open_data.open_set import Found, OpenSet, Problem

REGIONS = "regions.json"  # where `pathology tile` looks for it
SHOWN = 3  # files named per problem; the rest goes into a file
TABLE_CLASSES = 40  # more classes than this are not printed one by one
PATIENT_KEYS = (
    "patient_id", "patient", "case id", "case_id", "bcr_patient_barcode", "case_submitter_id",
    "submitter_id",
)  # fmt: skip
SLIDE_KEYS = ("slide_id", "slide", "filename", "file_name", "file name")


def check(
    folder: Path,
    name: str = "",
    decode: Literal["sample", "all", "none"] = "sample",
    duplicates: bool = True,
    checksums: bool = False,
    problems: Path = Path("data_problems.txt"),
    path_column: str = "",
    label_column: str = "",
    split_column: str = "",
    patient_column: str = "",
) -> int:
    """Say which data set a folder holds, what is in it, and what is missing or broken.

    Exit code 0 when nothing is, 2 when something is or no set is recognised.

    Args:
        folder: the data set's folder, a folder of class folders, or a CSV table.
        name: of the set (see `pathology data list`), where the folder holds more than one.
        decode: which images to decode, or slides to read a piece of: a sample of 500, all, or none.
        duplicates: look for images that are in two splits or under two labels.
        checksums: compute the published checksums of archives and slides; reads all of them.
        problems: file for the full list of what is wrong, where that is long.
        path_column: of a CSV table, the column of files.
        label_column: likewise of labels.
        split_column: likewise of train, val and test.
        patient_column: likewise of patients.
    """
    from pathology.data.open_data.check import check_files
    from pathology.data.open_data.csv_table import Columns
    from pathology.data.open_data.sets import recognise

    columns = Columns(path_column, label_column, split_column, patient_column)
    source, evidence = recognise(folder, name, columns)
    found = source.read(folder)
    wrong = found.problems + check_files(
        found, source.kind, decode, duplicates, checksums, _progress
    )
    print(_summary(source, evidence, found))
    if checksums and not found.checksums:
        print("  note       no file here has a published checksum")
    if not wrong:
        print(f"  checked    {_checked(found, source, decode, duplicates, checksums)}: fine")
        return 0
    print("\n".join(_line(problem) for problem in wrong))
    raise ManifestError(f"{folder}: {_verdict(wrong)}{_listed(wrong, problems)}")


def manifest(
    folder: Path,
    out: Path,
    name: str = "",
    split: Literal["official", "proposed", "none"] = "official",
    where: list[str] | str = "",
    labels: Path | None = None,
    rest: bool = False,
    incomplete: bool = False,
    problems: Path = Path("data_problems.txt"),
    path_column: str = "",
    label_column: str = "",
    split_column: str = "",
    patient_column: str = "",
    patient_pattern: str = "",
) -> int:
    """Write the manifest of a data set, for `pathology train` and `pathology tile`.

    Paths are relative to the manifest. Where regions are drawn, `regions.json` beside it says
    which make which class. Nothing is decoded here: `pathology data check` does.

    Args:
        folder: the data set's folder, a folder of class folders, or a CSV table.
        out: CSV to write, e.g. tiles.csv or slides.csv.
        name: of the set (see `pathology data list`), where the folder holds more than one.
        split: official, the authors' own where they gave one; proposed, what others published
            where they did not; none, to split later with `pathology data split`.
        where: keep rows of which this is true, e.g. magnification=40X; several with commas.
        labels: CSV or TSV of labels by patient or slide, joined as label_column.
        rest: make tissue outside of the lesions a class too (normal), on slides that were annotated
            exhaustively or have no lesion; writes regions/ beside the manifest.
        incomplete: go on with what is there, without what is missing or has no contents.
        problems: file for the full list of what is wrong, where that is long.
        path_column: of a CSV table, the column of files.
        label_column: of a CSV table, or of labels, the column of labels.
        split_column: of a CSV table, the column of train, val and test.
        patient_column: likewise of patients.
        patient_pattern: regular expression whose group finds the patient in a file's path below the
            folder, where names tell: "(p[0-9]+)_" of tumour/p07_3.png.
    """
    from pathology.data.open_data.check import empty_files
    from pathology.data.open_data.csv_table import Columns
    from pathology.data.open_data.open_set import Problem
    from pathology.data.open_data.sets import recognise

    columns = Columns(path_column, label_column, split_column, patient_column)
    source, evidence = recognise(folder, name, columns)
    found = source.read(folder)
    if patient_pattern:
        _find_patients(found, folder, patient_pattern)
    empty = empty_files(found.table)
    wrong = list(found.problems)
    if empty:
        wrong.append(Problem("files without contents", tuple(empty), absent=True))
        found.table = found.table[~found.table["path"].isin(empty)].reset_index(drop=True)
    if wrong:
        print("\n".join(_line(problem) for problem in wrong))
        if not incomplete or not all(problem.absent for problem in wrong):
            way = "; correct them"
            if all(problem.absent for problem in wrong):
                way += ", or go on with what is there: --incomplete"
            raise ManifestError(f"{folder}: {_verdict(wrong)}{_listed(wrong, problems)}{way}")
    table = _split(found.table, source, split)
    if labels is not None:
        table = _labelled(table, labels, label_column)
    table = _where(table, where)
    if table.empty:
        raise ManifestError(f"{folder}: no row is left to write")
    table, regions = _regions(table, found, out.parent, rest)
    _write(table, source, out, regions)
    found.table = table
    print(_summary(source, evidence, found))
    print(f"  written    {out}, {len(table):,} rows{f' and {REGIONS}' if regions else ''}")
    if "split" not in table:
        print(f"  next       pathology data split {out} --out FOLDER makes train, val and test")
    elif "val" not in set(table["split"]):
        ways = "--split proposed or " if source.propose and split == "official" else ""
        ways += "`pathology data split --keep-test`"
        print(f"  next       it has no val part, which training needs: {ways}")
    return 0


def _find_patients(found: "Found", folder: Path, pattern: str) -> None:
    """Adds the patients that names tell."""
    from pathology.data.open_data.open_set import AT_RANDOM

    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--patient-pattern {pattern!r}: {error}") from error
    if expression.groups != 1:
        raise ValueError(f"--patient-pattern {pattern!r} needs one group, as in '(p[0-9]+)_'")
    if "patient_id" in found.table:
        raise ValueError("--patient-pattern: patients are told already; leave it out")
    base = folder if folder.is_dir() else folder.parent
    names = [Path(os.path.relpath(path, base)).as_posix() for path in found.table["path"]]
    matches = [expression.search(name) for name in names]
    lost = [name for name, match in zip(names, matches, strict=True) if not match or not match[1]]
    if lost:
        raise ManifestError(
            f"{folder}: --patient-pattern {pattern!r} finds no patient in {lost[0]}"
            f" ({len(lost):,} of {len(names):,} files)"
        )
    found.table["patient_id"] = [match[1] for match in matches if match]
    found.notes = [note for note in found.notes if not note.endswith(AT_RANDOM)]


def list_sets() -> int:
    """Print the data sets that are recognised, what they may be used for, and where to get them."""
    from pathology.data.open_data.sets import all_sets

    for source in all_sets():
        print(f"{source.name}: {source.title}")
        print(f"  {source.kind}, {source.size}; {source.source}")
        print(f"  licence: {source.licence or 'yours to know'}")
        print(f"  split: {source.split}")
        if source.proposal:
            print(f"  proposed split: {source.proposal}")
    return 0


def _progress(items: Iterable[Any], desc: str, total: int | None = None) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(items, desc=desc, total=total, leave=False, disable=total is not None and total < 2)


def _summary(source: "OpenSet", evidence: str, found: "Found") -> str:
    """What was found, to be read."""
    licence = found.licence or source.licence
    lines = [f"{source.name}: {source.title} ({evidence})"]
    lines.append(f"  licence    {licence or 'not known; it is with whoever gave you the data'}")
    lines.append(f"  split      {source.split}")
    if source.proposal:
        lines.append(f"  proposed   {source.proposal}: --split proposed")
    lines += [f"  {'':<10} {row}" for row in _counts(found.table, found.classes)]
    if "patient_id" in found.table:
        patients = set(found.table["patient_id"]) - {""}
        lines.append(f"  patients   {len(patients):,}")
    lines += [f"  note       {note}" for note in found.notes]
    return "\n".join(lines)


def _counts(table: "pd.DataFrame", classes: Sequence[str]) -> list[str]:
    """Rows by label and split, as the lines of a table."""
    splits = [
        s for s in ("train", "val", "test", "") if "split" in table and s in set(table["split"])
    ]
    by_label = table.get("label")
    names = [*classes, *([""] if by_label is not None and (by_label == "").any() else [])]
    shown = names if by_label is not None and len(names) <= TABLE_CLASSES else []
    width = max([len(name) for name in shown] + [len("no label"), len("all")])
    heads = [*(s or "no split" for s in splits), "all"]
    lines = [" ".join([" " * width, *(f"{head:>9}" for head in heads)])]

    def row(head: str, part: Any) -> str:
        counts = [int((part["split"] == s).sum()) for s in splits] + [len(part)]
        return " ".join([f"{head:<{width}}", *(f"{count:>9,}" for count in counts)])

    lines += [row(name or "no label", table[by_label == name]) for name in shown]
    return [*lines, row("all", table)]


def _checked(
    found: "Found", source: "OpenSet", decode: str, duplicates: bool, checksums: bool
) -> str:
    """What was looked at."""
    from pathology.data.open_data.check import SAMPLE

    count = len(found.table)
    read = {"none": 0, "sample": min(SAMPLE, count), "all": count}[decode]
    done = [f"{count:,} {source.kind} are there, {read:,} read"]
    if duplicates:
        done.append("no duplicates across splits or labels")
    if checksums:
        done.append(f"{len(found.checksums):,} checksums")
    return ", ".join(done)


def _line(problem: "Problem") -> str:
    """A problem with its first files."""
    shown = ", ".join(problem.files[:SHOWN])
    more = f" and {len(problem.files) - SHOWN:,} more" if len(problem.files) > SHOWN else ""
    count = f" ({len(problem.files):,})" if problem.files else ""
    kind = "missing" if problem.absent else "wrong"
    return f"  {kind:<10} {problem.what}{count}{': ' if shown else ''}{shown}{more}"


def _verdict(problems: "Sequence[Problem]") -> str:
    """All problems in one line."""
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    count = f" ({len(problems[0].files):,})" if problems[0].files else ""
    return f"{problems[0].what}{count}{more}"


def _listed(problems: "Sequence[Problem]", path: Path) -> str:
    """Writes the full list where the printed one is cut; returns where it is."""
    from pathology.outputs import complete_file

    if all(len(problem.files) <= SHOWN for problem in problems):
        return ""
    with complete_file(path) as draft:
        lines = [
            line
            for problem in problems
            for line in (problem.what, *(f"\t{name}" for name in problem.files))
        ]
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"; all of it is in {path}"


def _split(table: "pd.DataFrame", source: "OpenSet", split: str) -> "pd.DataFrame":
    if split == "proposed":
        if source.propose is None:
            raise ManifestError(
                f"{source.name}: no split by others is known to us; take the official one, or"
                " none and `pathology data split`"
            )
        return table.assign(split=source.propose(table))
    if split == "none" and "split" in table:
        return table.drop(columns="split")
    return table


def _where(table: "pd.DataFrame", where: list[str] | str) -> "pd.DataFrame":
    words = where.split(",") if isinstance(where, str) else where
    for word in filter(None, words):
        column, equals, value = (part.strip() for part in word.partition("="))
        if not equals or column not in table:
            raise ValueError(
                f"where must be COLUMN=VALUE with one of {', '.join(table.columns)}; got {word!r}"
            )
        values = table[column].astype(str)
        if value not in set(values):
            known = sorted(set(values))
            raise ValueError(
                f"no row has {column} {value!r}; got {', '.join(known[:10])}"
                f"{' ...' if len(known) > 10 else ''}"
            )
        table = table[values == value]
    return table.reset_index(drop=True)


def _labelled(table: "pd.DataFrame", path: Path, column: str) -> "pd.DataFrame":
    """The table with labels of another one, by patient or by slide."""
    from pathology.data.open_data.open_set import read_table

    separator = "\t" if path.suffix.lower() in (".tsv", ".txt") else ","
    if not column:
        raise ValueError("say which column of --labels is the label with --label-column")
    given = read_table(path, (column,), separator)
    names = {name.lower(): name for name in given.columns}
    for key, known in (("slide_id", SLIDE_KEYS), ("patient_id", PATIENT_KEYS)):
        found = next((names[name] for name in known if name in names), None)
        if found is None or key not in table:
            continue
        values = given[found].str.strip()
        if key == "slide_id":
            # File names are written with or without their suffix; barcodes have dots themselves.
            is_id = values.isin(set(table[key]))
            values = values.where(is_id, values.map(lambda name: Path(name).stem))
        told = given.assign(key=values)[["key", column]].drop_duplicates()
        told = told[told["key"].isin(set(table[key]))]
        if told.empty:
            continue
        twice = told["key"].duplicated()
        if twice.any():
            raise ManifestError(
                f"{path}: {told['key'][twice].iloc[0]!r} has more than one {column}; keep one"
            )
        label = table[key].map(told.set_index("key")[column]).fillna("").str.strip()
        if (label == "").any():
            print(f"  note       {(label == '').sum():,} of {len(table):,} rows have no {column}")
        return table.assign(label=label)
    raise ManifestError(
        f"{path}: no column names patients or slides of this data set; got"
        f" {', '.join(given.columns)}"
    )


def _regions(
    table: "pd.DataFrame", found: "Found", out: Path, rest: bool
) -> tuple["pd.DataFrame", str]:
    """The table, and what `regions.json` says of its regions; empty where it has none."""
    import json

    from pathology.data.open_data.rest import with_rest, write_rest

    if rest and (found.rest is None or found.regions is None):
        raise ValueError("rest is for data sets whose lesions are drawn, such as camelyon16")
    if "regions" not in table:
        return table, ""
    classes = found.regions(table) if found.regions and (rest or any(table["regions"])) else {}
    if not classes:
        return table.drop(columns="regions"), ""
    if rest and found.rest is not None:
        classes = with_rest(classes, found.rest)
    text = json.dumps(classes, indent=1) + "\n"
    path = out / REGIONS
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise OutputError(f"{path}: is there with other classes; choose another folder for --out")
    if rest and found.rest is not None:
        table = write_rest(table, found.rest, out / "regions", _progress)
    return table, text


def _write(table: "pd.DataFrame", source: "OpenSet", out: Path, regions: str) -> None:
    """Manifest and classes of regions, once the manifest has been read as others will read it."""
    from pathology.data.manifest import (
        read_slide_manifest,
        read_table,
        read_tile_manifest,
        write_manifest,
    )
    from pathology.outputs import complete_file

    read = read_slide_manifest if source.kind == "slides" else read_tile_manifest
    with complete_file(out) as draft:
        write_manifest(table, draft)
        try:
            (read if source.kind == "slides" or "split" in table else read_table)(draft)
        except ManifestError as error:
            raise type(error)(str(error).replace(str(draft), str(out))) from error
        if regions:
            with complete_file(out.parent / REGIONS) as other:
                other.write_text(regions, encoding="utf-8")


VERBS: dict[str, tuple[Callable[..., int], str]] = {
    "list": (list_sets, "data sets that are recognised, their licences, where to get them"),
    "check": (check, "what a folder holds, and what is missing or broken"),
    "manifest": (manifest, "write the manifest of a data set"),
    "split": (split_rows, "split a manifest into train, val and test, or into folds"),
}


def main(arguments: Sequence[str]) -> int:
    """Run a verb."""
    verbs = "\n".join(f"  {verb:<10} {what}" for verb, (_, what) in VERBS.items())
    usage = f"usage: pathology data VERB [FOLDER] [options]\n\nverbs:\n{verbs}"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    verb, *rest = arguments
    if verb not in VERBS:
        raise ValueError(f"no data verb is called {verb!r}; one of {', '.join(VERBS)}")
    function = VERBS[verb][0]
    if rest and not rest[0].startswith("-"):
        # What a verb is about may be given without its option's name.
        rest = [f"--{next(iter(inspect.signature(function).parameters), 'folder')}", *rest]
    return run_function(function, rest, f"data {verb}")
