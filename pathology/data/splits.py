"""Splits of a manifest that keep what belongs together on one side, and are never mixed up.

Rows that share a patient, a slide or a file -- or, when asked, a site -- are one group; a group is
in one split. Splits are stratified by label (:class:`sklearn.model_selection.StratifiedGroupKFold`)
as far as groups allow. Sites that stay together measure what a model makes of a hospital it has not
seen (Howard et al., Nature Communications 2021, "preserved-site" validation).
"""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathology.data.manifest import CHECKSUMS, SPLITS, check_apart, read_table, write_manifest
from pathology.errors import ManifestError, StampMismatchError
from pathology.outputs import complete_file, writable_folder

FINEST = 20  # fractions are told apart to a twentieth: more folds than that make crumbs of patients


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """How a manifest is split.

    Args:
        folds: 0 for one split into train, val and test; else so many, each row being in the test
            split of exactly one of them, with the next fold for validation.
        val: fraction of rows for validation, without folds.
        test: fraction of rows for test, without folds.
        groups: columns whose values stay together.
        stratify: column whose values are spread evenly; ``None`` for none.
        seed: of the shuffling.

    Raises:
        ValueError: fewer than 3 folds, a fraction outside [0, 1), nothing left for training.
    """

    folds: int = 0
    val: float = 0.15
    test: float = 0.15
    groups: tuple[str, ...] = ("patient_id",)
    stratify: str | None = "label"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds and self.folds < 3:
            raise ValueError(f"folds must be 0 or at least 3, got {self.folds}")
        for name in ("val", "test"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be a fraction in [0, 1), got {value}")
        if self.val + self.test >= 1:
            raise ValueError(f"val and test leave nothing to train on: {self.val} + {self.test}")


def split_manifest(source: str | Path, out: str | Path, spec: SplitSpec) -> dict[str, pd.DataFrame]:
    """Split a manifest and save it: ``OUT/manifest.csv``, or ``OUT/fold_0.csv`` and so on.

    ``OUT/splits.json`` holds the spec, the source's checksum and one for every manifest; a manifest
    that was changed since is refused when it is read. Splitting again by the same spec changes
    nothing.

    Args:
        source: a manifest of either kind; a ``split`` column in it is not looked at.
        out: folder.
        spec: how.

    Returns:
        The tables by file name.

    Raises:
        ManifestError: unreadable; a group column missing or empty; too few groups for a label.
        StampMismatchError: ``out`` holds splits of something else.
        OutputError: it cannot be written.
    """
    source, out = Path(source), Path(out)
    table = read_table(source).drop(columns="split", errors="ignore")
    made: dict[str, Any] = {
        "source": hashlib.sha256(source.read_bytes()).hexdigest(),
        "spec": asdict(spec) | {"groups": list(spec.groups)},
    }
    _check_same(out / CHECKSUMS, made)
    groups = row_groups(source, table, spec.groups)
    strata = _strata(source, table, spec.stratify)
    if spec.folds:
        splits = _folds(source, groups, strata, spec)
    else:
        splits = [_one(source, groups, strata, spec)]
    names = [f"fold_{i}.csv" for i in range(spec.folds)] or ["manifest.csv"]
    tables = {name: table.assign(split=split) for name, split in zip(names, splits, strict=True)}
    for name, each in tables.items():
        _check_usable(source, each, groups, strata, spec)
        check_apart(source, each, spec.groups)
        write_manifest(each, writable_folder(out) / name)
    # Last: where it stands, all stands.
    made["manifests"] = {name: _summary(out / name, each) for name, each in tables.items()}
    with complete_file(out / CHECKSUMS) as draft:
        draft.write_text(json.dumps(made, indent=2) + "\n")
    return tables


def row_groups(source: Path, table: pd.DataFrame, groups: Sequence[str]) -> NDArray[np.intp]:
    """Which rows belong together: those that share any group, slide or file, however indirectly.

    Args:
        source: the manifest, for messages.
        table: its rows.
        groups: columns; ``slide_id`` and files (with their place in an array) count always.

    Returns:
        A number per row, from 0.

    Raises:
        ManifestError: no such column, or a row that leaves it empty.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    for name in groups:
        if name not in table:
            raise ManifestError(
                f"{source}: column {name!r} is missing, so its rows cannot be kept together; got"
                f" {', '.join(table.columns)}; add it, or name what stays together with --groups"
            )
        empty = table.index[table[name].str.strip() == ""]
        if len(empty):
            raise ManifestError(
                f"{source}: row {empty[0] + 2} has no {name} ({len(empty)} rows in all); fill"
                " it in, or name another column with --groups"
            )
    files = table["path"] + "#" + table["index"] if "index" in table else table["path"]
    owners = [table[name] for name in (*groups, *({"slide_id"} & set(table.columns)))] + [files]
    # Rows and values are nodes; a row is joined to each of its values.
    count, rows, values = len(table), [], []
    for owner in owners:
        codes, known = pd.factorize(owner)
        rows.append(np.arange(len(table)))
        values.append(codes + count)
        count += len(known)
    i, j = np.concatenate(rows), np.concatenate(values)
    _, part = connected_components(coo_array((np.ones(len(i)), (i, j)), (count, count)), False)
    numbers: NDArray[np.intp] = pd.factorize(part[: len(table)])[0]
    return numbers


def _strata(source: Path, table: pd.DataFrame, column: str | None) -> NDArray[np.intp]:
    """The stratum of every row, all one where nothing is to be spread."""
    if column is None:
        return np.zeros(len(table), np.intp)
    if column not in table:
        raise ManifestError(
            f"{source}: column {column!r} to stratify by is missing; got"
            f" {', '.join(table.columns)}; name another with --stratify, or none (null)"
        )
    strata: NDArray[np.intp] = pd.factorize(table[column])[0]
    return strata


def _fold_numbers(
    groups: NDArray[np.intp], strata: NDArray[np.intp], folds: int, seed: int
) -> NDArray[np.intp]:
    """The fold of every row."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    # Where no two rows belong together the one that knows of groups takes minutes for the same.
    is_free = groups.max() + 1 == len(groups)
    kind = StratifiedKFold if is_free else StratifiedGroupKFold
    parts = kind(folds, shuffle=True, random_state=seed).split(
        groups, strata, None if is_free else groups
    )
    fold = np.zeros(len(groups), np.intp)
    with warnings.catch_warnings():
        # A label of fewer rows than folds; whether that matters is checked on the result.
        warnings.filterwarnings("ignore", message="The least populated class")
        for number, (_, test) in enumerate(parts):
            fold[test] = number
    return fold


def _most_folds(groups: NDArray[np.intp], strata: NDArray[np.intp]) -> int:
    """Folds that can be made at all: of groups, and of rows of some label."""
    return min(int(groups.max()) + 1, int(np.bincount(strata).max()))


def _folds(
    source: Path, groups: NDArray[np.intp], strata: NDArray[np.intp], spec: SplitSpec
) -> list[NDArray[np.str_]]:
    most = _most_folds(groups, strata)
    if spec.folds > most:
        raise ManifestError(
            f"{source}: {groups.max() + 1} groups cannot make {spec.folds} folds; ask for fewer"
        )
    fold = _fold_numbers(groups, strata, spec.folds, spec.seed)
    return [
        np.where(fold == i, "test", np.where(fold == (i + 1) % spec.folds, "val", "train"))
        for i in range(spec.folds)
    ]


def _one(
    source: Path, groups: NDArray[np.intp], strata: NDArray[np.intp], spec: SplitSpec
) -> NDArray[np.str_]:
    """One split: folds dealt to test and validation as close to the fractions as works.

    Small folds come closer but may lack a rare label; then larger ones are tried.
    """
    if not spec.test and not spec.val:
        return np.full(len(groups), "train")
    candidates = range(2, min(FINEST, _most_folds(groups, strata)) + 1)
    possible = [n for n in candidates if np.isfinite(_misfit(spec, n))]
    if not possible:
        raise ManifestError(
            f"{source}: {groups.max() + 1} groups cannot be split by the fractions asked for"
        )
    split = np.full(len(groups), "train")
    for n in sorted(possible, key=lambda n: (_misfit(spec, n), n)):
        test, val = (_share(fraction, n) for fraction in (spec.test, spec.val))
        fold = _fold_numbers(groups, strata, n, spec.seed)
        split = np.where(fold < test, "test", np.where(fold < test + val, "val", "train"))
        if not _lacking(split, strata, spec):
            break
    return split


def _share(fraction: float, folds: int) -> int:
    return max(1, round(fraction * folds)) if fraction else 0


def _misfit(spec: SplitSpec, folds: int) -> float:
    """How far whole folds are from the fractions; infinite where none is left to train on."""
    wanted = (spec.test, spec.val)
    parts = [_share(fraction, folds) for fraction in wanted]
    if sum(parts) >= folds:
        return float("inf")
    return round(sum(abs(n / folds - w) for n, w in zip(parts, wanted, strict=True)), 9)


def _lacking(
    split: NDArray[np.str_], strata: NDArray[np.intp], spec: SplitSpec
) -> tuple[str, int] | None:
    """A split and a stratum of which it has no row, if there is one."""
    for name in SPLITS:
        if spec.folds or name == "train" or getattr(spec, name) > 0:
            counts = np.bincount(strata[split == name], minlength=int(strata.max()) + 1)
            if not counts.all():
                return name, int(counts.argmin())
    return None


def _check_usable(
    source: Path,
    table: pd.DataFrame,
    groups: NDArray[np.intp],
    strata: NDArray[np.intp],
    spec: SplitSpec,
) -> None:
    """Refuse a split that lacks a label somewhere: no number measured on it would mean anything."""
    lacking = _lacking(table["split"].to_numpy(str), strata, spec)
    if lacking is None:
        return
    split, stratum = lacking
    of_it = strata == stratum
    value = "rows" if spec.stratify is None else repr(table.loc[of_it, spec.stratify].iloc[0])
    raise ManifestError(
        f"{source}: {value} of {len(np.unique(groups[of_it]))} groups did not do for all splits,"
        f" {split} has none; ask for fewer folds or another seed, merge labels, or do not stratify"
    )


def _check_same(path: Path, made: dict[str, Any]) -> None:
    try:
        before = json.loads(path.read_text())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}); remove it to split anew") from error
    for what in made:
        if before.get(what) != made[what]:
            raise StampMismatchError(
                f"{path.parent}: holds splits of another {what} ({before.get(what)!r}, wanted"
                f" {made[what]!r}); choose another --out, or remove the folder"
            )


def _summary(path: Path, table: pd.DataFrame) -> dict[str, Any]:
    counts = table["split"].value_counts()
    return {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "rows": {name: int(counts.get(name, 0)) for name in SPLITS},
    }
