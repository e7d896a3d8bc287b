"""Tables say of how many, of what, and which way."""

import math

import pandas as pd
import pytest

from pathology.benchmark.report import tables
from pathology.benchmark.report.findings import Findings
from pathology.benchmark.report.markdown import table_markdown
from pathology.benchmark.report.results import read_studies
from tests.pathology.benchmark.report.made import results, without_masks

OPTIONS = {"data": ("tissue",), "examples": 12, "patients": 6, "metrics": ("epg", "saco", "abpc")}


@pytest.fixture(scope="module")
def study():
    (found,) = read_studies(results(**OPTIONS))
    return found


def row(table, *names):
    return next(r for r in table.rows if tuple(c.text for c in r[: len(names)]) == names)


def test_a_mean_of_fewer_examples_says_so(study):
    table = tables.headline_tables(study)[0]
    cell = row(table, "input_x_gradient")[1]
    assert cell.small.endswith("; 10 of 12")
    assert "12 examples of 6 patients, each patient drawn as a whole" in table.caption
    # A constant map has no order: no value at all, and none is made up.
    assert row(table, "constant")[table.columns.index("SaCo \u2191")].small == "0 of 12"


def test_controls_are_muted(study):
    table = tables.headline_tables(study)[0]
    assert {table.rows[i][0].text for i in table.muted} == {"oracle", "random", "constant", "edge"}


def test_what_is_undefined_is_counted_with_its_reason(study):
    table = tables.undefined_table(study)
    # 4 networks with 2 seeds and 12 examples each.
    assert [c.text for c in row(table, "SaCo", "constant")][2:] == [
        "96 of 96", "a constant map has no order",
    ]  # fmt: skip
    assert row(table, "EPG", "input_x_gradient")[2].text == "16 of 96"


def test_what_no_method_can_have_is_told_once():
    rows = results(**{**OPTIONS, "data": ("tissue", "cells")})
    (study,) = read_studies(without_masks(rows, "cells", ["epg", "saco"]))
    table = tables.undefined_table(study)
    assert [[c.text for c in r] for r in table.rows if "masks" in r[3].text] == [
        ["EPG", "all", "all of cells", "the tile set has no masks of evidence"],
        ["SaCo", "all", "all of cells", "the tile set has no masks of evidence"],
    ]
    assert row(table, "SaCo", "constant")[2].text == "96 of 96"


def test_refusals_and_failures_have_their_reasons(study):
    refused = tables.refused_table(study)
    rollout = row(refused, "rollout")
    assert rollout[1].text == "bcos_resnet18, resnet18"
    assert rollout[3].text == "rollout needs attention; a CNN has none"
    failed = tables.failed_table(study)
    assert [c.text for c in failed.rows[0]] == [
        "lime", "vit_tiny", "tissue; seeds 1", "MemoryError: 12 GB wanted",
    ]  # fmt: skip


def test_strata_stand_side_by_side(study):
    found = tables.group_tables(study)[tables.GROUPS["confounder"]]
    assert list(found[0].columns) == ["network", "method", "mark: pen", "no mark"]
    assert row(found[0], "resnet18", "rise")[2].text == "0.380"


def test_the_scoreboard_counts_tests_and_flags_controls(study):
    table = tables.scoreboard(Findings(study))
    epg, abpc, saco = table.rows[0], row(table, "ABPC \u2191"), row(table, "SaCo \u2191")
    assert epg[2].small == "occlusion"
    assert abpc[2].small == "rise"
    assert abpc[4].small == "not comparable"
    assert saco[-1].kind == "warn"


def test_a_set_without_masks_leaves_the_scoreboard_of_the_others(study):
    rows = results(**{**OPTIONS, "patients": 12, "data": ("tissue", "cells")})
    (both,) = read_studies(without_masks(rows, "cells", ["epg"]))
    (alone,) = read_studies(rows[rows["data"] == "tissue"])
    boards = [tables.scoreboard(Findings(one)).rows[0] for one in (both, alone)]
    assert [cell.text for cell in boards[0]] == [cell.text for cell in boards[1]]
    assert boards[0][3].text == "14 / 0 / 0"


def test_contests_without_a_test_have_no_columns_of_tests():
    (study,) = read_studies(results(**{**OPTIONS, "metrics": ("epg", "pooled_ap")}))
    same = Findings(study).same
    tested, one_value = (tables.contest_table(found, "same network") for found in same.values())
    assert list(tested.columns[-4:]) == ["pairs", "p", "p, Holm", "verdict"]
    assert list(one_value.columns) == ["data", "network", "ours", "other", "difference"]
    assert {len(row) for row in tested.rows} == {9}
    assert {len(row) for row in one_value.rows} == {5}
    assert "so no test" in one_value.caption


def test_a_contest_without_a_value_is_no_contest():
    rows = results(**{**OPTIONS, "patients": 12, "metrics": ("epg",)})
    rise = (rows["method"] == "rise") & (rows["backbone"] == "bcos_resnet18")
    rows.loc[rise & (rows["metric"] == "epg"), "value"] = math.nan
    (less,) = read_studies(rows)
    row = tables.scoreboard(Findings(less)).rows[0]
    assert (row[3].text, row[3].small) == ("13 / 0 / 0", "1 not defined")


def test_markdown_is_a_table_of_its_numbers(study):
    table = tables.Table(
        "t", "caption", ["a|b", "c"], [[tables.Cell("x"), tables.Cell("1", "0 to 2")]]
    )
    assert tables.markdown(table).splitlines() == [
        "| a\\|b | c |", "|---|---:|", "| x | 1 (0 to 2) |", "", "caption",
    ]  # fmt: skip
    text = table_markdown(study.rows, "made")
    assert text.startswith("**Ours against the rest**")
    assert "bcos_vitc_tiny on tissue" in text
    with pytest.raises(ValueError, match="no study 'other' in the results, which have made"):
        table_markdown(study.rows, "other")


def test_what_networks_do_on_parts_of_the_examples():
    """As slides with a cut lesion have them; they are of no method."""
    made = results(**OPTIONS)
    parts = made[(made["stratum"] != "") & (made["method"] == "oracle")]
    (found,) = read_studies(pd.concat([made, parts.assign(method="", metric="small_lesion")]))
    (table,) = (one for one in tables.backbone_tables(found) if "Small lesion" in one.title)
    assert table.columns == ["network", "mark: pen", "no mark"]
    for cells in table.rows:
        assert float(cells[1].text) < float(cells[2].text)
