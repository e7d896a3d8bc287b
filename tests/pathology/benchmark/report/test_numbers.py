"""Numbers are as long as they are worth reading."""

import math

import pytest

from pathology.benchmark.report.numbers import bounds, number, signed
from pathology.metrics.bootstrap import Estimate


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (12.34, "12.3"), (0.12345, "0.123"), (0.00123, "0.0012"), (0, "0.000"),
     (2.3e-7, "2e-7"), (math.nan, "\u2013")],
)  # fmt: skip
def test_numbers_have_the_digits_that_are_worth_reading(value, text):
    assert number(value) == text


def test_signs_are_always_there():
    assert signed(-0.5) == "\u22120.500"
    assert signed(0.5) == "+0.500"
    assert bounds(Estimate(1.0)) == ""
