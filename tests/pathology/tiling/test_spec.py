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
    spec = TileSpec(256, 0.2528, 32, 0.25, True, "file", exclude=("blur",), colour="srgb")
    assert TileSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_digest_tells_every_field_apart() -> None:
    specs = [
        TileSpec(),
        TileSpec(size_px=225),
        TileSpec(mpp=0.51),
        TileSpec(overlap_px=1),
        TileSpec(min_tissue=0.4),
        TileSpec(keep_edges=True),
        TileSpec(align="file"),
        TileSpec(placement="jittered"),
        TileSpec(placement="random", count=10),
        TileSpec(placement="random", count=11),
        TileSpec(seed=1),
        TileSpec(tissue="density"),
        TileSpec(exclude=("pen",)),
        TileSpec(colour="srgb"),
    ]
    assert len({spec.digest() for spec in specs}) == len(specs)
    # One for the defaults, two for count, which no grid has.
    assert len(specs) == 2 + len(dataclasses.fields(TileSpec))
    assert TileSpec(mpp=1).digest() == TileSpec(mpp=1.0).digest()


def test_the_order_of_artefacts_does_not_matter() -> None:
    one, other = TileSpec(exclude=("pen", "blur")), TileSpec(exclude=("blur", "pen", "pen"))
    assert one == other
    assert one.digest() == other.digest()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"placement": "random"}, "placement random needs count"),
        ({"placement": "annotated", "count": 0}, "placement annotated needs count"),
        ({"count": 5}, "count is for placement random and annotated"),
        ({"placement": "random", "count": 5, "overlap_px": 8}, "overlap_px is of a grid"),
        ({"placement": "jittered", "align": "file"}, "align file is for placement grid"),
        ({"tissue": "given"}, "exclude must be empty, got pen, fold"),
        ({"exclude": ("pen", "dust")}, r"exclude lists some of pen.*got \['dust'\]"),
        ({"exclude": "pen"}, "exclude lists some of pen.*got 'pen'"),
        ({"tissue": "green"}, "tissue must be one of colour.*given; got 'green'"),
    ],
)
def test_refuses_settings_that_do_not_go_together(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        TileSpec(**change)


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
        ({"align": "level"}, ValueError),
        ({"placement": "poisson"}, ValueError),
        ({"colour": "grey"}, ValueError),
        ({"seed": -1}, ValueError),
        ({"seed": 0.5}, TypeError),
    ],
)
def test_refuses(change: dict[str, Any], error: type[Exception]) -> None:
    (name,) = change
    with pytest.raises(error, match=name):
        TileSpec(**change)
