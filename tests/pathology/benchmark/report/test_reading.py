"""Sentences follow the numbers: losses are told, wins are not made up."""

import re

import pytest

from pathology.benchmark.report.page import _reading
from pathology.benchmark.report.results import read_studies
from tests.pathology.benchmark.report.made import results

SMALL = {"data": ("tissue",), "examples": 16, "patients": 16}


def read(**options):
    (study,) = read_studies(results(**{**SMALL, **options}))
    return _reading(study)


@pytest.fixture(scope="module")
def sentences():
    return read()


def one_of(sentences, start):
    return next(s for s in sentences if s.text.startswith(start))


def test_losses_are_told_with_their_size_and_their_winner(sentences):
    lost = one_of(sentences, "B-cos maps lose by ABPC on the same network in 4 of")
    assert lost.kind == "worse"
    assert "rise (2)" in lost.text
    assert "occlusion (2)" in lost.text
    assert re.search(
        r"largest loss: \u22120\.\d+ \[.* to .*\], p [<0-9. ]+ against rise", lost.text
    )


def test_wins_are_told_with_their_counts(sentences):
    won = one_of(sentences, "B-cos maps lose no test on the same network and win")
    assert won.kind == "better"
    assert "EPG (14 of 14)" in won.text
    assert "ABPC" not in won.text
    assert "SaCo" not in won.text


def test_what_is_not_tested_is_not_a_win(sentences):
    assert "Pooled AP" in one_of(sentences, "One value per network, so without a test").text


def test_a_metric_that_does_not_separate_is_told_loudly(sentences):
    assert one_of(sentences, "Does not separate").kind == "warn"
    assert "SaCo in" in one_of(sentences, "Does not separate").text


def test_networks_that_are_behind_are_told(sentences):
    found = one_of(sentences, "B-cos networks less their twins")
    assert found.kind == "worse"
    assert "behind in 2 of 2" in found.text
    assert "Training seconds 1." in one_of(sentences, "Their cost").text


def test_the_share_of_pixels_and_what_is_missing(sentences):
    assert "bcos 0.930 to 0.930" in one_of(sentences, "Pixel share").text
    missing = next(s for s in sentences if "are not defined" in s.text)
    assert "that are refused: 10, pieces of work that failed: 1." in missing.text
    assert missing.kind == "warn"


def test_every_sentence_has_a_number(sentences):
    assert all(re.search(r"\d", one.text) for one in sentences)


def test_a_planted_defeat_is_no_victory():
    rows = results(**SMALL, metrics=("epg",))
    ours = rows["method"].str.startswith("bcos") & (rows["metric"] == "epg")
    rows.loc[ours, "value"] -= 0.6
    (study,) = read_studies(rows)
    found = _reading(study)
    assert found[0].kind == "worse"
    assert not [one for one in found if one.text.startswith("B-cos maps lose no test")]
    assert [one for one in found if one.text.startswith("B-cos maps lose by EPG")]


def test_one_seed_and_few_patients_are_told():
    found = read(seeds=(0,), examples=4, patients=4, metrics=("epg", "sds"))
    assert one_of(found, "One seed").kind == "warn"
    assert (
        "no p-value is below 0.125"
        in one_of(found, "Where there are only 4 independent patients").text
    )
    assert not [one for one in found if one.text.startswith("B-cos maps lose no test")]
