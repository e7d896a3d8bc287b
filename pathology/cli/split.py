"""``pathology data split``: train, val and test, or folds, of a manifest."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def split(
    manifest: Path,
    out: Path,
    folds: int = 0,
    val: float = 0.15,
    test: float = 0.15,
    groups: list[str] | str = "patient_id",
    stratify: str | None = "label",
    seed: int = 0,
    keep_test: bool = False,
) -> int:
    """Split a manifest into train, val and test, so that no patient is on two sides.

    Writes OUT/manifest.csv, or OUT/fold_0.csv and so on, and OUT/splits.json with checksums: a
    split that was edited later is refused when it is read. A `split` column in the manifest is
    replaced, but for its test rows with `--keep-test`.

    Args:
        manifest: of slides or of tiles.
        out: folder.
        folds: so many folds, each row in the test split of one of them; 0 for one split.
        val: fraction for validation, without folds.
        test: fraction for test, without folds.
        groups: columns whose values stay together, with commas: patient_id,site to keep sites
            together too. Patients, slides and files do anyway where they are known; none for
            nothing else, and for rows without a patient.
        stratify: column whose values are spread evenly; null for none.
        seed: of the shuffling.
        keep_test: leave the authors' test rows as they are and split the others, into train and
            val or into folds that take turns at val.
    """
    from pathology.data.splits import SplitSpec, split_manifest

    names = groups.split(",") if isinstance(groups, str) else groups
    together = tuple(name.strip() for name in names if name.strip() not in ("", "none"))
    spec = SplitSpec(folds, val, test, together, stratify, seed, keep_test)
    for name, table in split_manifest(manifest, out, spec).items():
        print(f"{out / name}: {_counts(table, together, stratify)}")
    return 0


def _counts(table: "pd.DataFrame", groups: tuple[str, ...], stratify: str | None) -> str:
    """Rows, groups and labels of each split, as words."""
    parts = []
    for name in ("train", "val", "test"):
        rows = table[table["split"] == name]
        if rows.empty:
            continue
        words = [f"{len(rows):,} rows"] + [f"{rows[g].nunique():,} {g}" for g in groups]
        if stratify is not None:
            words += [
                f"{value} {count:,}" for value, count in rows[stratify].value_counts().items()
            ]
        parts.append(f"{name} {', '.join(words)}")
    return "; ".join(parts)
