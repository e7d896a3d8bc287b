"""A tile set that is made in no time."""

from pathlib import Path

import numpy as np
import pytest

from pathology.benchmark.tile_sets import TileSet
from pathology.benchmark.tile_sets.writing import Tile, write_set

SIDE = 32


@pytest.fixture(scope="session")
def spots(tmp_path_factory: pytest.TempPathFactory) -> TileSet:
    """Tiles of noise, a dark spot in those of class ``spot``; test tiles in two strata."""
    return write_spots(tmp_path_factory.mktemp("spots") / "set")


def write_spots(folder: Path) -> TileSet:
    rng = np.random.default_rng(0)
    tiles = []
    for split, count in {"train": 16, "val": 4, "test": 12}.items():
        for i in range(count):
            image = rng.integers(180, 240, (SIDE, SIDE, 3)).astype(np.uint8)
            evidence = np.zeros((SIDE, SIDE), bool)
            if i % 2:
                evidence[4:20, 4:20] = True
                image[evidence] //= 4
            tiles.append(
                Tile(
                    f"{split}_{i}",
                    image,
                    ("plain", "spot")[i % 2],
                    split,
                    f"{split}{i // 3}",
                    {"evidence": evidence},
                    {"stratum": ("aligned", "swapped")[i // 3 % 2]},
                )
            )
    classes = ("plain", "spot")
    return write_set(folder, {"by": "spots"}, classes, SIDE, "spot", ("evidence",), tiles)
