"""Splits of a manifest that keep what belongs together on one side, and are never mixed up.

Rows that share a patient, a slide or a file -- or, when asked, a site -- are one group; a group is
in one split. Splits are stratified by label as far as groups allow. Sites that stay together
measure what a model makes of a hospital it has not seen (Howard et al., Nature Communications 2021,
"preserved-site" validation).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pathology.data.manifest import (
    CHECKSUMS,
    SOURCES,
    SPLITS,
    check_apart,
    checksum,
    image_names,
    read_table,
    write_manifest,
)
from pathology.errors import ManifestError, StampMismatchError
from pathology.outputs import complete_file, writable_folder

FINEST = 20  # fractions are told apart to a twentieth: more folds than that make crumbs of patients
DRAWS = 200  # ways to deal folds to test and validation that are compared
CLOSE = 0.02  # of the fractions asked for, summed over test and validation: looked no further


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """How a manifest is split.

    Args:
        folds: 0 for one split into train, val and test; else so many, each row being in the test
            split of exactly one of them, with the next fold for validation.
        val: fraction of rows for validation, without folds.
        test: fraction of rows for test, without folds.
        keep_test: rows of the source's own test split stay in it, and only the others are split:
            ``test`` counts for nothing, and folds take turns at validation.
        groups: columns whose values stay together; patients, slides and files do anyway.
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
    keep_test: bool = False

    def __post_init__(self) -> None:
        if self.keep_test:
            object.__setattr__(self, "test", 0.0)
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
        source: a manifest of either kind; a ``split`` column in it is replaced.
        out: folder.
        spec: how.

    Returns:
        The tables by file name.

    Raises:
        ManifestError: unreadable; a group column missing or empty; too few groups for a label;
            no test split to keep.
        LeakageError: a group is in the test split that is kept, and outside of it.
        StampMismatchError: ``out`` holds splits of something else.
        OutputError: it cannot be written.
    """
    source, out = Path(source), Path(out)
    table = read_table(source)
    is_kept = _kept(source, table, spec)
    made: dict[str, Any] = {
        "source": checksum(source),
        "spec": asdict(spec) | {"groups": list(spec.groups)},
    }
    before = _check_same(out / CHECKSUMS, made)
    part = table[~is_kept]
    groups = row_groups(source, part, spec.groups)
    strata = _strata(source, part, spec.stratify)
    _check_enough(source, part, groups, strata, spec)
    splits = _folds(groups, strata, spec) if spec.folds else [_one(source, groups, strata, spec)]
    names = [f"fold_{i}.csv" for i in range(spec.folds)] or ["manifest.csv"]
    tables = {}
    for name, split in zip(names, splits, strict=True):
        _check_usable(source, part.assign(split=split), groups, strata, spec)
        whole = np.full(len(table), "test", dtype="<U5")
        whole[~is_kept] = split
        tables[name] = table.drop(columns="split", errors="ignore").assign(split=whole)
    for name, each in tables.items():
        check_apart(source, each, [*spec.groups, *_sources(table)])
        if (out / name).exists() and (out / name).samefile(source):
            raise ManifestError(f"{source}: would be replaced by its split; choose another --out")
        if before.get(name, {}).get("split", _digest(each)) != _digest(each):
            raise StampMismatchError(
                f"{out / name}: rows were put into other splits by another version of this"
                " software; keep it as it is, or choose another --out"
            )
    for name, each in tables.items():
        write_manifest(each, writable_folder(out) / name)
    # Last: where it stands, all stands.
    made["manifests"] = {name: _summary(out / name, each) for name, each in tables.items()}
    with complete_file(out / CHECKSUMS) as draft:
        draft.write_text(json.dumps(made, indent=2) + "\n")
    return tables


def _kept(source: Path, table: pd.DataFrame, spec: SplitSpec) -> NDArray[np.bool_]:
    """Which rows keep the split that they have."""
    if not spec.keep_test:
        return np.zeros(len(table), np.bool_)
    if "split" not in table or not (table["split"] == "test").any():
        raise ManifestError(f"{source}: no row has split 'test', so there is none to keep")
    is_kept: NDArray[np.bool_] = (table["split"] == "test").to_numpy()
    if is_kept.all():
        raise ManifestError(f"{source}: every row has split 'test'; there is nothing to split")
    return is_kept


def row_groups(source: Path, table: pd.DataFrame, groups: Sequence[str]) -> NDArray[np.intp]:
    """Which rows belong together: those that share any group, slide or file, however indirectly.

    Args:
        source: the manifest, for messages.
        table: its rows.
        groups: columns, in which no row may be empty; patients, slides and files (with their place
            in an array) count always, where they are known.

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
    owners = [table[name] for name in dict.fromkeys([*groups, *_sources(table)])]
    # Rows and values are nodes; a row is joined to each of its values.
    count, rows, values = len(table), [], []
    for owner in [*owners, image_names(table)]:
        codes, known = pd.factorize(owner.mask(owner == ""))
        rows.append(np.flatnonzero(codes >= 0))
        values.append(codes[codes >= 0] + count)
        count += len(known)
    i, j = np.concatenate(rows), np.concatenate(values)
    _, part = connected_components(coo_array((np.ones(len(i)), (i, j)), (count, count)), False)
    numbers: NDArray[np.intp] = pd.factorize(part[: len(table)])[0]
    return numbers


def _sources(table: pd.DataFrame) -> list[str]:
    """Columns that reading a manifest holds against a split."""
    return [name for name in SOURCES if name in table]


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
    """The fold of every row: of its group, which went where least was of what it holds.

    scikit-learn's ``StratifiedGroupKFold`` does likewise, but takes groups by size, so that its
    seed changes nothing where no two are alike; and it takes minutes for many. Here an order by
    size, without which large groups find no room, is blurred by the seed.
    """
    rng = np.random.default_rng(seed)
    holds = _counts(groups, strata)
    size = holds.sum(axis=1) / len(groups)
    holds /= holds.sum(axis=0)  # of each stratum, the share that a group holds
    order = np.argsort(-holds.max(axis=1) * rng.uniform(0.5, 1, len(holds)), kind="stable")
    number = np.zeros(len(holds), np.intp)
    filled, sizes = np.zeros((folds, holds.shape[1])), np.zeros(folds)
    for group in order:
        # What it adds to the variance over folds, summed over strata. Among equals the smallest.
        adds = filled @ holds[group]
        best = np.flatnonzero(adds <= adds.min() + 1e-12)
        best = best[sizes[best] <= sizes[best].min() + 1e-12]
        fold = best[rng.integers(len(best))]
        number[group] = fold
        filled[fold] += holds[group]
        sizes[fold] += size[group]
    return number[groups]


def _counts(owners: NDArray[np.intp], strata: NDArray[np.intp]) -> NDArray[np.float64]:
    """Rows of each owner (a group, a fold) in each stratum."""
    width = int(strata.max()) + 1
    table = np.bincount(owners * width + strata, minlength=(int(owners.max()) + 1) * width)
    return table.reshape(-1, width).astype(np.float64)


def _folds(
    groups: NDArray[np.intp], strata: NDArray[np.intp], spec: SplitSpec
) -> list[NDArray[np.str_]]:
    fold = _fold_numbers(groups, strata, spec.folds, spec.seed)
    if spec.keep_test:
        return [np.where(fold == i, "val", "train") for i in range(spec.folds)]
    return [
        np.where(fold == i, "test", np.where(fold == (i + 1) % spec.folds, "val", "train"))
        for i in range(spec.folds)
    ]


def _one(
    source: Path, groups: NDArray[np.intp], strata: NDArray[np.intp], spec: SplitSpec
) -> NDArray[np.str_]:
    """One split: folds dealt to test and validation as close to the fractions as works.

    Small folds come closer, but may lack a rare label or be too small for a large group; then
    larger ones are tried.
    """
    if not spec.test and not spec.val:
        return np.full(len(groups), "train")
    candidates = range(2, min(FINEST, int(groups.max()) + 1) + 1)
    possible = [n for n in candidates if np.isfinite(_misfit(spec, n))]
    if not possible:
        raise ManifestError(
            f"{source}: {groups.max() + 1} groups cannot be split by the fractions asked for"
        )
    rng = np.random.default_rng(spec.seed)
    best, split = (np.inf, np.inf), np.full(len(groups), "train")
    for n in sorted(possible, key=lambda n: (_misfit(spec, n), n)):
        fold = _fold_numbers(groups, strata, n, spec.seed)
        counts = _counts(fold, strata)
        test, val = (_share(fraction, n) for fraction in (spec.test, spec.val))
        for _ in range(DRAWS):
            # Without an order of their own: the first fold is where the largest group went.
            names = rng.permutation(["test"] * test + ["val"] * val + ["train"] * (n - test - val))
            fit = _fit(counts, names, spec)
            if fit < best:
                best, split = fit, names[fold]
        if best <= (0, CLOSE):
            break
    return split


def _fit(
    counts: NDArray[np.float64], names: NDArray[np.str_], spec: SplitSpec
) -> tuple[float, float]:
    """How many labels are lacking somewhere, then how far the parts are from the fractions."""
    parts = {name: counts[names == name].sum(axis=0) for name in SPLITS}
    lacking = sum(int((parts[name] == 0).sum()) for name in set(names))
    off = sum(abs(parts[name].sum() / counts.sum() - getattr(spec, name)) for name in SPLITS[1:])
    return lacking, round(off, 9)


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
        in_folds = spec.folds and not (spec.keep_test and name == "test")
        if in_folds or name == "train" or getattr(spec, name) > 0:
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
    if lacking is not None:
        split, stratum = lacking
        raise _too_few(source, table, groups, strata == stratum, spec, f", {split} has none")


def _check_enough(
    source: Path,
    table: pd.DataFrame,
    groups: NDArray[np.intp],
    strata: NDArray[np.intp],
    spec: SplitSpec,
) -> None:
    """Refuse fewer groups than folds, and a label of fewer than there are parts."""
    if spec.folds > groups.max() + 1:
        raise ManifestError(
            f"{source}: {groups.max() + 1} groups cannot make {spec.folds} folds; ask for fewer"
        )
    owners = (_counts(groups, strata) > 0).sum(axis=0)
    parts = spec.folds or 1 + (spec.val > 0) + (spec.test > 0)
    if spec.stratify is not None and owners.min() < parts:
        raise _too_few(source, table, groups, strata == int(owners.argmin()), spec, "")


def _too_few(
    source: Path,
    table: pd.DataFrame,
    groups: NDArray[np.intp],
    of_it: NDArray[np.bool_],
    spec: SplitSpec,
    where: str,
) -> ManifestError:
    value = "rows" if spec.stratify is None else repr(table.loc[of_it, spec.stratify].iloc[0])
    return ManifestError(
        f"{source}: {value} of {len(np.unique(groups[of_it]))} groups did not do for all splits"
        f"{where}; ask for fewer folds or another seed, merge labels, or do not stratify"
    )


def _check_same(path: Path, made: dict[str, Any]) -> dict[str, Any]:
    """What was said of each manifest before; nothing where none was made."""
    try:
        before: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}); remove it to split anew") from error
    for what in made:
        if before.get(what) != made[what]:
            raise StampMismatchError(
                f"{path.parent}: holds splits of another {what} ({before.get(what)!r}, wanted"
                f" {made[what]!r}); choose another --out, or remove the folder"
            )
    manifests: dict[str, Any] = before.get("manifests", {})
    return manifests


def _digest(table: pd.DataFrame) -> str:
    """Of which row is in which split, whatever else the manifest says."""
    return hashlib.sha256("\n".join(table["split"]).encode()).hexdigest()


def _summary(path: Path, table: pd.DataFrame) -> dict[str, Any]:
    counts = table["split"].value_counts()
    return {
        "sha256": checksum(path),
        "split": _digest(table),
        "rows": {name: int(counts.get(name, 0)) for name in SPLITS},
    }
