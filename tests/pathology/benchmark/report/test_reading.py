"""Sentences follow the numbers: losses are told, wins are not made up."""

import re

import pandas as pd
import pytest

from pathology.benchmark.report.findings import Findings
from pathology.benchmark.report.reading import reading
from pathology.benchmark.report.results import read_studies
from tests.pathology.benchmark.report.made import planted, results

SMALL = {"data": ("tissue",), "examples": 16, "patients": 16}
FEW = {
    **SMALL, "seeds": (0,), "metrics": ("epg",),
    "methods": ("bcos", "rise", "occlusion", "random", "edge"),
}  # fmt: skip


def told(rows):
    (study,) = read_studies(rows)
    return reading(Findings(study))


def read(**options):
    return told(results(**{**SMALL, **options}))


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
    wins, open_, untested = re.split(r" No test on | One value per network, ", won.text)
    assert "EPG (14 of 14)" in wins
    assert "ABPC" not in won.text
    assert "SaCo (ahead in 1" in open_
    assert "so without a test, on the same network: Pooled AP" in untested


def test_what_is_behind_without_a_test_is_told_as_a_loss():
    rows = results(**{**FEW, "metrics": ("pooled_ap",)})
    ours = (rows["method"] == "bcos") & (rows["metric"] == "pooled_ap")
    rows.loc[ours, "value"] = 0.1
    found = one_of(told(rows), "B-cos maps are behind on the same network")
    assert found.kind == "worse"
    assert "Pooled AP in 4 of 4 (0.100; best that ran everywhere 0.6" in found.text
    assert re.search(r"farthest behind \w+ on \w+, tissue: \u22120\.[45]\d+\)", found.text)


def test_a_network_that_knows_little_is_told():
    rows = results(**FEW)
    dull = (rows["backbone"] == "vit_tiny") & (rows["metric"] == "balanced_accuracy")
    assert not [s for s in told(rows) if "below 0.6" in s.text]
    rows.loc[dull, "value"] = 0.52
    found = one_of(told(rows), "Balanced accuracy below 0.6: vit_tiny on tissue")
    assert found.kind == "warn"
    assert "(0.520)" in found.text
    assert "bcos" not in found.text
    # Of a network that learnt a planted mark, half is what is expected.
    marked = planted(rows, "tissue", {"bcos": 0.6})
    assert not [s for s in told(marked) if "below 0.6" in s.text]


def test_tests_that_a_control_leads_are_told_beside_the_count():
    (study,) = read_studies(results(**FEW))
    rows = study.rows.copy()
    wins = (rows["metric"] == "epg") & (rows["method"] == "edge")
    rows.loc[wins & (rows["backbone"] == "bcos_resnet18"), "value"] = 5.0
    (cheated,) = read_studies(rows)
    assert "control" not in reading(Findings(study))[0].text
    # Two rivals on each network.
    assert "of 4 tests by 1 headline metric. 2 of these" in reading(Findings(cheated))[0].text
    assert one_of(reading(Findings(cheated)), "Does not separate").kind == "warn"


@pytest.mark.parametrize(("ours", "kind"), [(0.6, "better"), (0.05, "worse")])
def test_a_planted_mark_is_told_of(ours, kind):
    mean = {"bcos": ours, "random": 0.02}
    (study,) = read_studies(planted(results(**FEW), "tissue", mean))
    found = one_of(reading(Findings(study)), "A mark is planted in tissue: the logit owes +2.0")
    assert found.kind == kind
    assert "more than nothing on 4 of 4 networks" in found.text
    told = float(re.search(r"of B-cos maps ([\d.]+) lie", found.text).group(1))
    assert told == pytest.approx(ours + 0.0075, abs=0.003)
    count = {"better": "better in 4, worse in 0", "worse": "better in 0, worse in 4"}[kind]
    assert f"{count} of 4 tests" in found.text


def test_a_mark_that_nobody_relies_on_need_not_be_pointed_at():
    rows = planted(results(**FEW), "tissue", {"bcos": 0.6}, owed=-0.1)
    found = one_of(told(rows), "A mark is planted")
    assert "more than nothing on 0 of 4 networks." in found.text
    assert "tests" not in found.text


def test_a_metric_that_does_not_separate_is_told_loudly(sentences):
    assert one_of(sentences, "Does not separate").kind == "warn"
    assert "SaCo in" in one_of(sentences, "Does not separate").text


def test_networks_that_are_behind_are_told(sentences):
    found = one_of(sentences, "B-cos networks less their twins")
    assert found.kind == "worse"
    assert "behind in 2 of 2" in found.text
    assert "Training seconds 1." in one_of(sentences, "Their cost").text


def test_the_share_of_pixels_and_what_is_missing(sentences):
    assert "bcos 0.930 and ledger 0.080;" in one_of(sentences, "Pixel share").text
    missing = next(s for s in sentences if "are not defined" in s.text)
    assert "that are refused: 10, pieces of work that failed: 1." in missing.text
    assert missing.kind == "warn"


def test_every_sentence_has_a_number(sentences):
    assert all(re.search(r"\d", one.text) for one in sentences)


def test_a_planted_defeat_is_no_victory():
    rows = results(**FEW)
    ours = rows["method"].str.startswith("bcos") & (rows["metric"] == "epg")
    rows.loc[ours, "value"] -= 0.6
    (study,) = read_studies(rows)
    found = reading(Findings(study))
    assert found[0].kind == "worse"
    assert not [one for one in found if one.text.startswith("B-cos maps lose no test")]
    assert [one for one in found if one.text.startswith("B-cos maps lose by EPG")]


def test_one_seed_and_few_patients_are_told():
    found = read(seeds=(0,), examples=4, patients=4, metrics=("epg", "sds"))
    assert one_of(found, "One seed").kind == "warn"
    few = one_of(found, "Too few patients: no test can decide by EPG and SDS, whose 4 independent")
    assert few.kind == "warn"
    assert few.text.endswith(
        "no p-value below 0.125 before correction for 14 on the same network and 16 on the twin."
    )
    assert not [one for one in found if one.text.startswith("B-cos maps lose no test")]


def test_metrics_that_are_one_are_told():
    rows = results(**{**FEW, "methods": ("bcos", "rise", "occlusion", "gradcam", "random")})
    again = rows[(rows["metric"] == "epg") & (rows["stratum"] == "")].assign(metric="concentration")
    both = pd.concat([rows, again], ignore_index=True)
    assert not [s for s in told(rows) if "nearly the same" in s.text]
    found = one_of(told(both), "Metrics that say nearly the same (tau above")
    assert found.kind == "warn"
    assert "EPG and Concentration (tau 1.00)" in found.text
