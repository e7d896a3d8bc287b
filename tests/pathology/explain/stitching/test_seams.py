"""Seam energy: 1 for what has no lattice, large for steps, whatever gaps and odd periods."""

import numpy as np
import pytest
from scipy.signal import welch

from pathology.explain.stitching.seams import PERIODS, seam_energy
from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap

SIDE = 480


def as_map(values, down=2.0):
    height, width = values.shape
    return SlideMap(values, Box(0, 0, width * down, height * down), Mpp(0.5, 0.5), "logit/mm2")


def tissue(rng, exponent=2.0):
    """Noise whose power falls with frequency, as that of pictures does."""
    across, down = np.fft.rfftfreq(SIDE), np.fft.fftfreq(SIDE)[:, None]
    frequency = np.maximum(np.hypot(across, down), 0.5 / SIDE)
    noise = np.fft.rfft2(rng.normal(size=(SIDE, SIDE)))
    values = np.fft.irfft2(noise * frequency ** (-exponent / 2), s=(SIDE, SIDE))
    return values / values.std()


def rims(period):
    """The same in every tile: higher at its border."""
    x = np.arange(SIDE)
    rim = np.exp(-np.minimum(x % period, period - x % period) / 2)
    return rim[:, None] + rim[None, :]


def levels(period, rng):
    """Each tile higher or lower as a whole."""
    tile = (np.arange(SIDE) // period).astype(int)
    return rng.normal(size=(60, 60))[np.ix_(tile, tile)]


@pytest.mark.parametrize("of", ["values", "steps"])
@pytest.mark.parametrize("exponent", [0, 1, 2, 3])
@pytest.mark.parametrize("period", [12, 17.3, 24])
def test_without_a_lattice_it_is_one(rng, exponent, period, of):
    found = seam_energy(as_map(tissue(rng, exponent)), (2 * period, 2 * period), of=of)
    assert found.ratio == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("period", [12, 17.3, 24])
@pytest.mark.parametrize("of", ["values", "steps"])
def test_it_grows_with_what_repeats_and_with_steps(rng, period, of):
    plain, seams = tissue(rng), rims(period) if of == "values" else levels(period, rng)
    ratios = [
        seam_energy(as_map(plain + strength * seams), (2 * period,) * 2, of=of).ratio
        for strength in (0, 0.5, 2, 8)
    ]
    assert ratios == sorted(ratios)
    assert ratios[-1] > 3 * ratios[0]


def test_levels_are_told_by_their_steps_alone(rng):
    values = as_map(tissue(rng) + 3 * levels(24, rng))
    assert seam_energy(values, (48, 48)).ratio < 1.2
    assert seam_energy(values, (48, 48), of="steps").ratio > 3


def test_the_direction_of_seams_is_told(rng):
    columns = np.sin(2 * np.pi * np.arange(SIDE) / 24)[None, :]
    along_x, along_y = seam_energy(as_map(tissue(rng) + columns), (48, 48)).along
    assert along_x > 5
    assert along_y == pytest.approx(1, abs=0.3)


def test_power_is_that_of_welchs_method(rng):
    values, period = tissue(rng), 16
    found = seam_energy(as_map(values), (32, 32))
    length = PERIODS * period
    frequencies, power = welch(
        values, window=np.hanning(length + 2)[1:-1], nperseg=length, noverlap=length // 2,
        detrend=False, scaling="density", axis=1,
    )  # fmt: skip
    at = np.searchsorted(frequencies, found.harmonics / period)
    wanted = power.mean(0)[at]
    # One number scales all; the mean that is left in there does not reach a harmonic.
    np.testing.assert_allclose(found.power[0] / found.power[0, 3], wanted / wanted[3], rtol=1e-3)


def test_gaps_are_left_out(rng):
    values = tissue(rng) + rims(24)
    whole = seam_energy(as_map(values), (48, 48))
    holed = values.copy()
    holed[:40] = holed[:, -100:] = holed[200:210, 50:60] = np.nan
    some = seam_energy(as_map(holed), (48, 48))
    assert some.stretches < whole.stretches
    assert some.ratio == pytest.approx(whole.ratio, rel=0.3)
    # What lies in the gaps' place does not matter.
    assert np.isfinite(some.power).all()


def test_harmonics_of_the_networks_own_lattice_can_be_left_out(rng):
    cells = np.sin(2 * np.pi * np.arange(SIDE) / 8)
    values = as_map(tissue(rng) + 3 * (cells[:, None] + cells[None, :]))
    assert seam_energy(values, (48, 48)).ratio > 10
    found = seam_energy(values, (48, 48), own_lattice=(16, 16))
    assert 3 not in found.harmonics
    assert 4 in found.harmonics
    assert found.ratio == pytest.approx(1, abs=0.3)


def test_maps_too_coarse_or_too_small_are_refused(rng):
    with pytest.raises(ValueError, match="at least 4 pixels of the map, got 3: make"):
        seam_energy(as_map(tissue(rng)), (6, 6))
    with pytest.raises(ValueError, match=r"no stretch of 800 pixels \(8 periods\)"):
        seam_energy(as_map(tissue(rng)), (200, 200))
    with pytest.raises(ValueError, match="of must be one of values, steps; got 'edges'"):
        seam_energy(as_map(tissue(rng)), (48, 48), of="edges")
    with pytest.raises(ValueError, match="without gaps"):
        seam_energy(as_map(np.full((SIDE, SIDE), np.nan)), (48, 48))
