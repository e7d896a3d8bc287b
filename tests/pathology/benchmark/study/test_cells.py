"""Cells are whole or not there, and named by what decides their numbers."""

import math

import pandas as pd
import pytest

from pathology.benchmark.study.cells import FIELDS, Cell, read_values, write_values
from pathology.benchmark.study.rows import Value

VALUES = [
    Value("epg", 0.5, "localisation", example="a", patient="p", headline=True),
    Value("epg", math.nan, "localisation", example="b", note="the mask is empty"),
]


def test_another_setting_is_another_cell():
    cell = Cell("methods/grid", "a", {"cells": 2, "model": "m"})
    assert cell.key == Cell("methods/grid", "b", {"model": "m", "cells": 2}).key
    for other in ({"cells": 3, "model": "m"}, {"cells": 2}, {"cells": 2, "model": "m", "x": 0}):
        assert cell.key != Cell("methods/grid", "a", other).key
    assert cell.key != Cell("methods/cost", "a", {"cells": 2, "model": "m"}).key


def test_values_are_kept_as_they_were(tmp_path):
    cell = Cell("methods/localisation", "a", {})
    with cell.written(tmp_path) as draft:
        assert not cell.is_done(tmp_path)
        write_values(draft, VALUES)
    assert cell.is_done(tmp_path)
    table = read_values(cell.folder(tmp_path))
    assert list(table) == list(FIELDS)
    assert table["note"].tolist() == ["", "the mask is empty"]
    assert table["value"].tolist()[0] == 0.5
    assert math.isnan(table["value"][1])
    first = (cell.folder(tmp_path) / "values.parquet").read_bytes()
    with cell.written(tmp_path) as draft:
        write_values(draft, VALUES)
    assert (cell.folder(tmp_path) / "values.parquet").read_bytes() == first
    assert [p.name for p in cell.folder(tmp_path).parent.iterdir()] == [f"a-{cell.key}"]


def test_no_values_are_a_table_without_rows(tmp_path):
    write_values(tmp_path, [])
    assert isinstance(read_values(tmp_path), pd.DataFrame)
    assert read_values(tmp_path).empty


def test_what_fails_leaves_nothing(tmp_path):
    cell = Cell("methods/grid", "a", {})

    def work():
        with cell.written(tmp_path) as draft:
            write_values(draft, VALUES)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert not cell.is_done(tmp_path)
    assert not list((tmp_path / "cells" / "methods" / "grid").iterdir())
