"""Nests: what both classes share, and what tells them apart."""

from dataclasses import replace

import numpy as np
import pytest

from pathology.synthetic import SyntheticSlideSpec
from pathology.synthetic.nests import nest_interior, nests_around

SPEC = SyntheticSlideSpec(2, (4000, 4000))


def test_a_tumour_nest_takes_over_lumen_and_nuclear_area() -> None:
    areas: dict[int, list[float]] = {1: [], 2: []}
    counts = {1: 0, 2: 0}
    for kind in (1, 2):
        spec = replace(SPEC, tumour_fraction=kind - 1.0)
        nests = nests_around(spec, 500, 500, 1300, 1300)
        assert (nests.kind == kind).all()
        for ix, iy in zip(nests.ix, nests.iy, strict=True):
            cells, _ = nest_interior(spec, int(ix), int(iy))
            assert (cells.kind == kind).all()
            areas[kind].append(float((cells.long * cells.short).sum() * np.pi))
            counts[kind] += len(cells)
    assert len(areas[1]) > 100
    assert np.mean(areas[2]) == pytest.approx(np.mean(areas[1]), rel=0.03)
    assert counts[1] > 1.6 * counts[2]


def test_both_classes_share_outlines_and_lumen_shapes() -> None:
    normal, tumour = (replace(SPEC, tumour_fraction=f) for f in (0.0, 1.0))
    a, b = (nests_around(spec, 500, 500, 900, 900) for spec in (normal, tumour))
    assert np.array_equal(a.radius, b.radius)
    for ix, iy in zip(a.ix, a.iy, strict=True):
        one = nest_interior(normal, int(ix), int(iy))[1]
        other = nest_interior(tumour, int(ix), int(iy))[1]
        assert np.array_equal(one[:, 2:], other[:, 2:])


def test_nests_stay_within_their_cells() -> None:
    nests = nests_around(SPEC, 0, 0, 1000, 1000)
    turns = np.arange(nests.radius.shape[1]) * (2 * np.pi / nests.radius.shape[1])
    x = nests.x[:, None] + nests.radius * np.cos(turns)
    y = nests.y[:, None] + nests.radius * np.sin(turns)
    assert nests.radius.min() > 0
    inside = (nests.x > 0) & (nests.x < 1000) & (nests.y > 0) & (nests.y < 1000)
    away = np.hypot(x[inside, :, None] - nests.x, y[inside, :, None] - nests.y)
    assert np.array_equal(
        away.argmin(-1), np.broadcast_to(np.flatnonzero(inside)[:, None], x[inside].shape)
    )
