import numpy as np
import pytest

from pathology.maps.pyramid import Level
from pathology.maps.value_range import value_range


def spread(values):
    return value_range(Level(values, None, "sum"))


def test_a_small_map_is_looked_at_whole():
    values = np.linspace(-2.0, 1.0, 5000).reshape(50, 100)
    values[3, 4] = np.nan
    limit, largest = spread(values)
    assert largest == 2.0
    assert limit == pytest.approx(np.nanquantile(np.abs(values), 0.995))


def test_a_large_map_is_sampled_but_its_largest_value_is_found(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((701, 1003))
    values[517, 333] = -50.0
    monkeypatch.setattr("pathology.maps.value_range.SAMPLED", 10_000)
    limit, largest = spread(values)
    assert largest == 50.0
    # The 0.995 quantile of |normal| is 2.807; of 10 000 drawn its standard error is 0.05.
    assert limit == pytest.approx(2.807, abs=0.2)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_map_of_nothing_reaches_nowhere(value):
    assert spread(np.full((3, 4), value)) == (0.0, 0.0)


def test_the_limit_is_within_the_values(monkeypatch):
    monkeypatch.setattr("pathology.maps.value_range.SAMPLED", 1)
    values = np.zeros((10, 10))
    values[5, 5] = 1e-3  # not in the sample
    assert spread(values) == (1e-3, 1e-3)
