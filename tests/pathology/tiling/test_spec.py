"""TileSpec: what it accepts and what it refuses."""

import dataclasses
import json
from typing import Any

import pytest

from pathology.tiling import TileSpec


def test_defaults_and_stride() -> None:
    spec = TileSpec(overlap_px=24)
    assert (spec.size_px, spec.mpp, spec.stride_px) == (224, 0.5, 200)


def test_comes_back_from_a_dictionary() -> None:
    spec = TileSpec(256, 0.2528, 32, 0.25, True)
    assert TileSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_digest_tells_every_field_apart() -> None:
    specs = [
        TileSpec(),
        TileSpec(size_px=225),
        TileSpec(mpp=0.51),
        TileSpec(overlap_px=1),
        TileSpec(min_tissue=0.4),
        TileSpec(keep_edges=True),
    ]
    assert len({spec.digest() for spec in specs}) == len(specs)
    assert len(specs) == 1 + len(dataclasses.fields(TileSpec))
    assert TileSpec(mpp=1).digest() == TileSpec(mpp=1.0).digest()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"size_px": 0}, ValueError),
        ({"size_px": 224.0}, TypeError),
        ({"size_px": True}, TypeError),
        ({"overlap_px": -1}, ValueError),
        ({"overlap_px": 224}, ValueError),
        ({"overlap_px": 0.5}, TypeError),
        ({"mpp": 0}, ValueError),
        ({"mpp": float("nan")}, ValueError),
        ({"min_tissue": 1.1}, ValueError),
        ({"min_tissue": float("nan")}, ValueError),
    ],
)
def test_refuses(change: dict[str, Any], error: type[Exception]) -> None:
    (name,) = change
    with pytest.raises(error, match=name):
        TileSpec(**change)
