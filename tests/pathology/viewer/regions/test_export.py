"""Regions for QuPath; what a file of them holds is in the tests of the routes."""

import math

from pathology.viewer.regions.export import measurements
from pathology.viewer.regions.ledger import RegionLedger
from pathology.viewer.regions.sums import RegionSum


def test_two_decimals_are_enough_for_qupath():
    sums = RegionSum(2e-6, -1e-6, 1e-5, 8.0)
    ledger = RegionLedger([("inside", 1e-6)], 1.0, sums, 2e-5, 3.0, 4, 0)
    shown = {name: f"{number:.2f}" for name, number in measurements("a", ledger).items()}
    assert shown == {
        "a: share [µlogit]": "1.00",
        "a: share for [µlogit]": "2.00",
        "a: share against [µlogit]": "-1.00",
        "a: for and against within [µm]": "8.00",
        "a: density [mlogit/mm²]": "50.00",
        "a: part of the map [%]": "0.00",
        "a: covered [%]": "50.00",
        "a: tiles": "4.00",
    }


def test_what_is_not_known_is_not_shown():
    sums = RegionSum(0.0, 0.0, 0.0, 8.0)
    ledger = RegionLedger([("bias", math.nan)], 1.0, sums, 2e-5, 0.0, None, None)
    shown = measurements("a", ledger)
    assert "a: tiles" not in shown
    assert math.isnan(shown["a: part of the map [%]"])  # left out where it is written
    assert math.isnan(ledger.total)
