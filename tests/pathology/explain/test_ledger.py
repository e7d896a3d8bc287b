import json
import math

import pytest

from pathology.errors import LedgerError
from pathology.explain.ledger import Ledger, float32_tolerance


def ledger(**changes):
    numbers = {
        "score": 2.0,
        "bias": -1.0,
        "map_sum": 2.75,
        "cut_off": 0.125,
        "tolerance": 1e-4,
        "constants": {"position code": 0.125},
    }
    return Ledger(**(numbers | changes))


def test_parts_that_add_up_close_it():
    closed = ledger()
    assert closed.total == 2.0
    assert closed.gap == 0.0
    assert closed.is_closed
    closed.check()


def test_a_missing_part_is_an_error_with_numbers():
    with pytest.raises(LedgerError, match=r"cut off 0 .* gap 0\.125 above the tolerance") as error:
        ledger(cut_off=0.0).check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["score", "bias", "map_sum", "cut_off"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_not_finite_never_close(part, number):
    broken = ledger(**{part: number})
    assert not broken.is_closed
    with pytest.raises(LedgerError):
        broken.check()


def test_relative_gap_is_tame_near_a_score_of_zero():
    assert ledger(score=0.0, map_sum=0.75 + 1e-3).relative_gap == pytest.approx(1e-3)
    assert ledger(score=100.0, map_sum=101.75).relative_gap == pytest.approx(0.01)


def test_comes_back_from_json():
    original = ledger(constants={"position code": 0.1, "class token": 0.025})
    assert Ledger.from_dict(json.loads(json.dumps(original.to_dict()))) == original


def test_from_dict_names_what_is_missing():
    with pytest.raises(ValueError, match="missing tolerance"):
        Ledger.from_dict({"score": 1, "bias": 0, "map_sum": 1, "cut_off": 0})


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_a_tolerance_is_finite_and_not_negative(tolerance):
    with pytest.raises(ValueError, match="tolerance"):
        ledger(tolerance=tolerance)


def test_tolerance_follows_the_score_and_the_cancelling_parts():
    assert float32_tolerance(0.1, 1.0) == 1e-4
    assert float32_tolerance(-20.0, 1.0) == pytest.approx(2e-3)
    assert float32_tolerance(0.1, 1000.0) == pytest.approx(1e-2)


def test_reads_as_an_aligned_table():
    assert str(ledger()).splitlines() == [
        "bias           -1.000000",
        "position code  +0.125000",
        "map            +2.750000",
        "cut off        +0.125000",
        "------------------------",
        "= total        +2.000000",
        "score          +2.000000",
        "gap             0.00e+00  closed, tolerance 1.00e-04",
    ]
    assert "NOT CLOSED" in str(ledger(cut_off=0.0))
