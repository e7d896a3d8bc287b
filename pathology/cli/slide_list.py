"""Which slides a command is about: a manifest, a folder, or one file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from bcos_vit.errors import BcosError
from pathology.data.manifest import read_slide_manifest
from pathology.errors import ManifestError, OutputError, PathologyError

SUFFIXES = {
    ".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".bif", ".svslide", ".dcm",
    ".czi",
}  # fmt: skip


def list_slides(slides: Path, mpp: float | None = None) -> pd.DataFrame:
    """One row per slide: ``slide_id``, ``path``, ``mpp`` and whatever a manifest adds.

    Args:
        slides: a manifest (``.csv``), a folder that holds slide files, or one slide file.
        mpp: micrometres per level-0 pixel for slides whose manifest row does not say.

    Raises:
        ManifestError: nothing there, or a manifest that cannot be used.
    """
    if slides.suffix.lower() == ".csv":
        table = read_slide_manifest(slides)
    else:
        if slides.is_dir():
            files = sorted(
                p for p in slides.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES
            )
        else:
            files = [slides]
        if not files:
            raise ManifestError(
                f"{slides}: no slide in this folder; wanted files ending in"
                f" {', '.join(sorted(SUFFIXES))}"
            )
        table = pd.DataFrame({"slide_id": [p.stem for p in files], "path": [str(p) for p in files]})
        twice = table["slide_id"].duplicated()
        if twice.any():
            raise ManifestError(
                f"{slides}: two files are called {table['slide_id'][twice].iloc[0]!r}; rename one"
            )
    given = table["mpp"].astype(float) if "mpp" in table else pd.Series(float("nan"), table.index)
    table["mpp"] = given if mpp is None else given.fillna(mpp)
    return table


def slide_mpp(row: dict[str, Any]) -> float | None:
    """The mpp to open a listed slide with, ``None`` to ask the file."""
    return None if pd.isna(row["mpp"]) else float(row["mpp"])


def each_slide(
    table: pd.DataFrame, work: Callable[[dict[str, Any]], str], what: str, keep_going: bool
) -> int:
    """Do ``work`` for every slide, with progress; returns the exit code.

    Args:
        table: see :func:`list_slides`.
        work: takes a row, returns one line about what it did.
        what: shown beside the progress.
        keep_going: list slides that fail and exit with 3, rather than stop at the first.
    """
    failures: list[str] = []
    with tqdm(table.to_dict("records"), desc=what, unit="slide", disable=len(table) < 2) as rows:
        for row in rows:
            try:
                tqdm.write(work({str(key): value for key, value in row.items()}))
            except OutputError:
                raise  # a full or read-only disk fails every slide alike
            except (PathologyError, BcosError, ValueError) as error:
                if not keep_going:
                    raise
                failures.append(f"{row['slide_id']}: {error}")
    if failures:
        print(f"{len(failures)} of {len(table)} slides failed:")
        print("\n".join(f"  {line}" for line in failures))
        return 3
    return 0
