"""The table of tiles: numbers as they are, columns that say what they hold."""

import json
import math
import resource

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pathology.errors import OutputError
from pathology.explain.results.tile_table import described_columns, write_tile_table

TILES = pd.DataFrame(
    {
        "x": [0.0, 100.5],
        "weight": [1e-300, 0.0],
        "logit_a <b>\n腫瘍": [1e300, -0.0],
        "contribution": [1 / 3, math.nan],
        "removal_effect": [5e-324, math.nan],
        "own_idea": [1, 2],
    }
)


def test_numbers_come_back_bit_by_bit_and_nan_is_null(tmp_path):
    record = {"slide_id": 'case "1" & $x\n', "ledger": {"score": 0.1}}
    write_tile_table(TILES, tmp_path / "tiles.parquet", record)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "tiles.parquet"), TILES, rtol=0)
    table = pq.read_table(tmp_path / "tiles.parquet")
    assert table["contribution"].to_pylist() == [1 / 3, None]
    assert np.signbit(table[2].to_numpy()).tolist() == [False, True]
    found = json.loads(table.schema.metadata[b"bcos_pathology"])
    assert found.pop("columns") == described_columns(TILES)
    assert found == record
    again = tmp_path / "again.parquet"
    write_tile_table(TILES, again, record)
    assert again.read_bytes() == (tmp_path / "tiles.parquet").read_bytes()


def test_columns_say_what_they_hold_but_those_of_others():
    columns = described_columns(TILES)
    assert list(columns) == list(TILES.columns)[:-1]
    assert columns["x"]["unit"] == "level-0 px"
    assert columns["removal_effect"]["unit"] == "logit"
    assert columns["logit_a <b>\n腫瘍"]["meaning"].endswith("logit of a <b>\n腫瘍")


def test_metadata_is_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_tile_table(TILES, tmp_path / "tiles.parquet", {"gap": math.nan})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_table(tmp_path):
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, was[1]))
    try:
        with pytest.raises(OutputError, match=r"tiles\.parquet: cannot be written") as error:
            write_tile_table(TILES, tmp_path / "tiles.parquet", {"ledger": {}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
