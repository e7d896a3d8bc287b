"""The table of data sets, and which of them a folder is."""

from pathlib import Path

from pathology.data.open_data.bach import BACH
from pathology.data.open_data.breakhis import BREAKHIS
from pathology.data.open_data.camelyon16 import CAMELYON16
from pathology.data.open_data.camelyon17 import CAMELYON17
from pathology.data.open_data.csv_table import Columns, csv_table
from pathology.data.open_data.image_folder import IMAGE_FOLDER
from pathology.data.open_data.medmnist import MEDMNIST
from pathology.data.open_data.mhist import MHIST
from pathology.data.open_data.munich_aml import MUNICH_AML
from pathology.data.open_data.nct_crc import NCT_CRC, NCT_CRC_NONORM
from pathology.data.open_data.open_set import OpenSet, read_table
from pathology.data.open_data.panda import PANDA
from pathology.data.open_data.pcam import PCAM
from pathology.data.open_data.slide_table import SLIDE_TABLE
from pathology.data.open_data.tcga import TCGA
from pathology.errors import ManifestError

PUBLIC = (
    NCT_CRC, NCT_CRC_NONORM, PCAM, CAMELYON16, CAMELYON17, PANDA, BACH, BREAKHIS, MHIST, TCGA,
    MUNICH_AML, MEDMNIST,
)  # fmt: skip


def all_sets(columns: Columns | None = None) -> tuple[OpenSet, ...]:
    """Public sets, then the layouts that anybody's data may have."""
    return (*PUBLIC, SLIDE_TABLE, csv_table(columns or Columns()), IMAGE_FOLDER)


def recognise(folder: Path, name: str = "", columns: Columns | None = None) -> tuple[OpenSet, str]:
    """Which set a folder holds.

    Args:
        folder: the folder, or a file for sets that are one.
        name: of the set, where it is known.
        columns: of a table whose column names do not tell what they hold.

    Returns:
        The set and what speaks for it.

    Raises:
        ManifestError: nothing there, nothing recognised, or more than one public set.
        ValueError: no set has this name.
    """
    sets = all_sets(columns)
    if name and name not in [one.name for one in sets]:
        raise ValueError(f"no set is called {name!r}; one of {', '.join(s.name for s in sets)}")
    if not folder.exists():
        raise ManifestError(f"{folder}: no such folder or file")
    if name:
        found = next(one for one in sets if one.name == name)
        evidence = found.recognise(folder)
        if not evidence:
            raise ManifestError(f"{folder}: does not look like {found.title}")
        return found, evidence
    told = [(one, evidence) for one in sets if (evidence := one.recognise(folder))]
    public = [(one, evidence) for one, evidence in told if one in PUBLIC]
    if len(public) > 1:
        raise ManifestError(
            f"{folder}: holds {' and '.join(one.name for one, _ in public)}; say which with --name,"
            " or give the folder of one"
        )
    if not told and folder.suffix.lower() == ".csv" and folder.is_file():
        got = ", ".join(read_table(folder, ()).columns)
        raise ManifestError(
            f"{folder}: no column names files as far as is known; got {got}; say which does with"
            " --path-column"
        )
    if not told:
        raise ManifestError(
            f"{folder}: no data set is recognised in it; `pathology data list` tells which are, a"
            " folder of class folders or a CSV table of files and labels always works, and a folder"
            " of slides needs no manifest: `pathology tile` takes it"
        )
    return told[0]
