"""Maps that are kept for a study's page."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pathology.benchmark.study.cells import Cell
from pathology.benchmark.study.maps import MAPS, Maps
from tests.pathology.benchmark.study.made_subject import made_set, subject


@pytest.mark.parametrize("has_masks", [True, False])
def test_the_oracle_has_pictures_where_there_are_masks(tmp_path, has_masks):
    tiles = made_set()
    if not has_masks:
        parts = {name: replace(part, masks={}) for name, part in tiles.parts.items()}
        tiles = replace(tiles, masks=(), parts=parts)
    cell = Cell("pictures", "oracle", {})
    maps = Maps(SimpleNamespace(pictures=2), tmp_path, "cpu", networks=None)
    maps.keep_pictures(subject(None, tiles=tiles), cell)
    assert cell.folder(tmp_path).is_dir()  # it is done, and not asked for again
    kept = cell.folder(tmp_path) / MAPS
    assert kept.is_file() == has_masks
    if has_masks:
        with np.load(kept) as file:
            assert np.array_equal(file["maps"] > 0, file["masks"])
