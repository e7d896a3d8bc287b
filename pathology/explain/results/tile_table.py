"""The table of an explanation's tiles as Parquet, which says itself what its columns are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bcos_vit.stain_space import STAINS
from pathology.outputs import complete_file

KEY = b"bcos_pathology"

# Unit and meaning by column.
COLUMNS = {
    "x": ("level-0 px", "left edge, from the left edge of the whole slide"),
    "y": ("level-0 px", "top edge, from the top edge of the whole slide"),
    "width": ("level-0 px", "width"),
    "height": ("level-0 px", "height"),
    "tissue": ("fraction", "share of the tile that is tissue"),
    "weight": ("1", "what the score multiplies the tile's contribution by; 0 leaves it out"),
    "contribution": ("logit", "what the tile's pixels add to what is weighed; none: not explained"),
    "positive": ("logit", "part of the contribution above zero; none: only the whole is known"),
    "negative": ("logit", "part of the contribution below zero; none: only the whole is known"),
    "bias": ("logit", "what is added to what is weighed for any pixels"),
    "gap": ("logit", "how far the explanation is from what the model computed"),
    "attention": ("1", "the tile's attention in the slide model"),
    "removal_effect": ("logit", "the slide's score, less what it would be without the tile"),
    "member": ("1", "number of the averaged explanation that the tile is of, from 0"),
} | {name: ("logit", f"part of the contribution that is {name}'s") for name in STAINS}
LOGIT = "logit_"


def described_columns(tiles: pd.DataFrame) -> dict[str, dict[str, str]]:
    """``unit`` and ``meaning`` of each column; those that are not ours are left out."""
    found = {}
    for name in map(str, tiles.columns):
        if name.startswith(LOGIT):
            meaning = f"the tile's own logit of {name.removeprefix(LOGIT)}"
            found[name] = {"unit": "logit", "meaning": meaning}
        elif name in COLUMNS:
            unit, meaning = COLUMNS[name]
            found[name] = {"unit": unit, "meaning": meaning}
    return found


def write_tile_table(tiles: pd.DataFrame, path: str | Path, metadata: Mapping[str, Any]) -> None:
    """Write tiles as Parquet, numbers as they are; NaN becomes null.

    Args:
        tiles: one row per tile, see :class:`~pathology.explain.slide.SlideExplanation`.
        path: file to write; an existing one is replaced.
        metadata: the explanation's record, kept under the key ``bcos_pathology`` of the file's own
            metadata, as JSON, with ``columns``: unit and meaning of each.

    Raises:
        OutputError: the file cannot be written.
        ValueError: metadata that JSON cannot hold.
    """
    record = json.dumps({**metadata, "columns": described_columns(tiles)}, allow_nan=False)
    table = pa.Table.from_pandas(tiles, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: record.encode()})
    with complete_file(Path(path)) as draft:
        pq.write_table(table, draft, compression="zstd")
