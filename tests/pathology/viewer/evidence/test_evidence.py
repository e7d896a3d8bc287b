"""Explanations and differences as numbers, against what their files say read by other means."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from pathology.errors import PathologyError, StampMismatchError
from pathology.explain.ledger import Ledger, Undivided
from pathology.geometry import Box, Mpp
from pathology.maps.ome_tiff import read_ome_tiff, write_ome_tiff
from pathology.maps.slide_map import SlideMap
from pathology.maps.stored_map import StoredMap
from pathology.viewer.evidence.evidence import ledger_difference, open_evidence
from pathology.viewer.evidence.heat_tiles import heat_tile
from pathology.viewer.evidence.limits import colour_limits
from pathology.viewer.evidence.maps import DifferenceMap, OneMap, recorded_range
from pathology.viewer.evidence.tiles import Tiles
from pathology.viewer.library.library import HiddenError, Library, UnknownIdError
from tests.pathology.viewer.conftest import ODD

ALL = [
    ("cnn", "case_1", "tumour"),
    ("cnn", "case_1", "tumour_minus_normal"),
    ("vit", "case_1", "tumour"),
    ("cnn", ODD, "tumour"),
]


@pytest.fixture(scope="module")
def library(slides_folder, results_folder):
    return Library.find(slides_folder, [results_folder])


def id_of(library, run, slide, target):
    (found,) = (
        entry.id
        for entry in library.evidence
        if (entry.run.name, entry.slide.name, entry.folder.name) == (run, slide, target)
    )
    return found


@pytest.fixture(scope="module")
def opened(library):
    """Evidence by run, slide and target."""
    return {names: open_evidence(library, id_of(library, *names)) for names in ALL}


@pytest.fixture
def remade(results_folder, slides_folder, tmp_path):
    """``cnn/case_1/tumour`` beside a copy of it, which a function changes; both opened."""

    def make(change):
        for run in ("a", "b"):
            shutil.copytree(
                results_folder / "cnn" / "case_1" / "tumour", tmp_path / run / "case_1/t"
            )
        change(tmp_path / "b" / "case_1" / "t")
        library = Library.find(slides_folder, [tmp_path])
        return library, *(id_of(library, run, "case_1", "t") for run in ("a", "b"))

    return make


def change_record(folder, change):
    path = folder / "explanation.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def level_of(each, level):
    return each.read(level, 0, 0, *each.shapes[level])


@pytest.mark.parametrize("names", ALL)
def test_what_tiles_add_is_what_the_ledger_says(opened, names):
    evidence = opened[names]
    ledger, tiles = evidence.ledger, evidence.tiles
    assert len(tiles) > 20
    assert tiles.share.sum() == pytest.approx(ledger.map_sum + ledger.cut_off, abs=ledger.tolerance)
    bias = np.nansum(tiles.columns["weight"] * tiles.columns["bias"])
    assert bias == pytest.approx(ledger.bias, abs=ledger.tolerance)
    total = ledger.bias + sum(ledger.constants.values()) + tiles.share.sum()
    assert total == pytest.approx(ledger.score, abs=2 * ledger.tolerance)


@pytest.mark.parametrize("names", ALL)
def test_every_level_of_the_map_adds_up_to_the_ledger(opened, names):
    evidence = opened[names]
    heatmap = evidence.maps["heatmap"]
    for level in range(len(heatmap.shapes)):
        # float32 pixels, summed in float64: 6e-8 of each.
        slack = 1e-6 * np.nansum(np.abs(level_of(heatmap, level)))
        total = np.nansum(level_of(heatmap, level))
        assert total == pytest.approx(evidence.ledger.map_sum, abs=slack)


@pytest.mark.parametrize("names", ALL)
def test_shown_values_are_densities_of_what_is_stored(opened, names):
    for name, each in opened[names].maps.items():
        stored, _ = read_ome_tiff(each.stored.path)
        area = stored.mpp.x * stored.mpp.y / 1e6 if stored.unit == "logit" else 1.0
        shown = each.shown(0, 0, 0, *each.shapes[0])
        np.testing.assert_allclose(
            shown, stored.values.astype(float) / area, rtol=1e-12, err_msg=name
        )
        assert each.unit == {"logit": "logits/mm²", "logit/mm2": "logits/mm²"}.get(
            stored.unit, stored.unit
        )


@pytest.mark.parametrize("names", ALL)
def test_recorded_ranges_are_those_of_the_values_shown(opened, names):
    evidence = opened[names]
    assert set(evidence.record["ranges"]) == set(evidence.maps)
    for each in evidence.maps.values():
        sizes = np.abs(each.shown(0, 0, 0, *each.shapes[0]))
        sizes = sizes[np.isfinite(sizes)]
        limit, largest = each.range
        assert largest == pytest.approx(sizes.max() or 1.0, rel=1e-6)
        assert limit == pytest.approx(np.quantile(sizes, 0.995) or largest, rel=1e-6)


def test_maps_and_what_they_are_called(opened):
    maps = opened["vit", "case_1", "tumour"].maps
    told = {name: (each.label, each.unit, each.is_signed) for name, each in maps.items()}
    assert list(told)[:2] == ["heatmap", "density"]
    assert told["heatmap"] == ("evidence", "logits/mm²", True)
    assert told["layers/spread"] == ("spread of the members", "logits/mm²", False)
    assert told["layers/agreement"][1:] == ("share of members", False)
    assert told["layers/members"][2] is False


def test_undivided_tiles_are_told(opened):
    evidence = opened["cnn", "case_1", "tumour"]
    whole = evidence.ledger.undivided
    tiles = evidence.tiles
    assert 0 < whole.tiles < len(tiles)
    assert tiles.undivided.sum() == whole.tiles
    assert tiles.share[tiles.undivided].sum() == pytest.approx(whole.net, abs=1e-9)
    assert not opened["vit", "case_1", "tumour"].tiles.undivided.any()


@pytest.mark.parametrize("names", ALL)
def test_tiles_of_a_place_are_all_that_lie_over_it(opened, names):
    evidence, rng = opened[names], np.random.default_rng(0)
    table = pd.read_parquet(evidence.entries[0].folder / "tiles.parquet")
    most = 0
    for x, y in rng.uniform(0, 800, (200, 2)):
        expected = [
            index
            for index, row in enumerate(table.itertuples())
            if row.x <= x < row.x + row.width and row.y <= y < row.y + row.height
        ]
        assert evidence.tiles.at(x, y).tolist() == expected
        most = max(most, len(expected))
    assert most == (4 if names[1] == ODD else 2 if names[0] == "vit" else 1)


def test_a_tile_says_what_its_row_says(opened):
    evidence = opened["cnn", "case_1", "tumour"]
    table = pd.read_parquet(evidence.entries[0].folder / "tiles.parquet")
    for index in (0, len(table) - 1, int(np.flatnonzero(evidence.tiles.undivided)[0])):
        tile, row = evidence.tiles.tile(index), table.iloc[index]
        assert json.loads(json.dumps(tile, allow_nan=False)) == tile
        for name in ("x", "y", "width", "height", "weight", "contribution", "positive", "bias"):
            assert tile[name] == (None if pd.isna(row[name]) else row[name])
        assert tile["share"] == row["weight"] * row["contribution"]
        assert tile["logits"] == {"normal": row["logit_normal"], "tumour": row["logit_tumour"]}
        assert tile["undivided"] == pd.isna(row["gap"])


def test_members_of_a_mean_are_told_apart(opened):
    tiles = opened["vit", "case_1", "tumour"].tiles
    assert {tiles.tile(index)["member"] for index in range(len(tiles))} == {0, 1}


def test_tiles_in_view_are_those_that_share_area_with_it(opened):
    tiles = opened["cnn", ODD, "tumour"].tiles
    box = tiles.boxes[30]
    found = tiles.within(Box(*box)).tolist()
    expected = [
        index
        for index, other in enumerate(tiles.boxes)
        if (np.abs(other[:2] - box[:2]) < box[2:]).all()
    ]
    assert found == expected
    assert 30 in found
    assert len(found) > 1


def test_values_of_a_place_are_those_of_its_pixel(opened):
    evidence = opened["cnn", "case_1", "tumour"]
    heatmap = evidence.maps["heatmap"]
    whole = heatmap.shown(0, 0, 0, *heatmap.shapes[0])
    (down_x, down_y), rng = (
        read_ome_tiff(heatmap.stored.path)[0].downsample,
        np.random.default_rng(0),
    )
    for x, y in rng.uniform(0, 770, (50, 2)):
        np.testing.assert_equal(heatmap.value(x, y), whole[int(y / down_y), int(x / down_x)])
    assert np.isnan(heatmap.value(-1e-9, 10))
    assert np.isnan(heatmap.value(10, heatmap.box.bottom))


def test_a_difference_of_two_runs_subtracts_pixels_and_entries(library, opened):
    names = ("cnn", "case_1", "tumour"), ("vit", "case_1", "tumour")
    one, other = (opened[each] for each in names)
    found = open_evidence(library, f"{one.id}~{other.id}")
    a, b = (read_ome_tiff(each.maps["heatmap"].stored.path)[0].values for each in (one, other))
    assert (np.isnan(a) != np.isnan(b)).any()  # shifted tiles lie in other places
    expected = np.nan_to_num(a.astype(float)) - np.nan_to_num(b.astype(float))
    expected[np.isnan(a) & np.isnan(b)] = np.nan
    np.testing.assert_array_equal(level_of(found.maps["heatmap"], 0), expected)

    ledger = found.ledger
    assert ledger.score == one.ledger.score - other.ledger.score
    assert ledger.tolerance == one.ledger.tolerance + other.ledger.tolerance
    assert ledger.is_closed
    slack = 1e-6 * float(np.nansum(np.abs(a)) + np.nansum(np.abs(b)))
    assert np.nansum(expected) == pytest.approx(ledger.map_sum, abs=slack)

    # Densities differ where both have looked, and layers do not subtract.
    a, b = (level_of(each.maps["density"], 0) for each in (one, other))
    np.testing.assert_array_equal(level_of(found.maps["density"], 0), a - b)
    assert list(found.maps) == ["heatmap", "density"]
    assert found.title == "tumour, cnn \N{MINUS SIGN} tumour, vit"
    assert found.target == "tumour"
    assert found.record["coefficients"] == {}
    assert found.record["settings"]["out_mpp"] == 1.3
    assert "checkpoint" not in found.record["settings"]


def test_no_value_of_a_difference_is_beyond_its_range(library, opened):
    one, other = (opened[run, "case_1", "tumour"] for run in ("cnn", "vit"))
    found = open_evidence(library, f"{one.id}~{other.id}")
    for name, each in found.maps.items():
        largest = np.nanmax(np.abs(each.shown(0, 0, 0, *each.shapes[0])))
        assert largest <= each.range.largest
        assert each.range.limit == max(part.maps[name].range.limit for part in (one, other))


def test_levels_of_a_difference_are_those_of_the_map_of_differences(tmp_path):
    rng, maps = np.random.default_rng(0), []
    box, mpp = Box(0, 0, 700 * 31.6, 531 * 20.0), Mpp(0.25, 0.4)
    for name in ("one", "other"):
        values = rng.standard_normal((531, 700)).astype(np.float32)
        values[np.kron(rng.random((59, 70)), np.ones((9, 10))) < 0.4] = np.nan
        values[rng.random(values.shape) < 0.1] = np.nan
        maps.append(SlideMap(values, box, mpp, "logit"))
        write_ome_tiff(maps[-1], tmp_path / f"{name}.ome.tif")
    one, other = (each.values.astype(float) for each in maps)
    differences = np.nan_to_num(one) - np.nan_to_num(other)
    differences[np.isnan(one) & np.isnan(other)] = np.nan
    path = write_ome_tiff(SlideMap(differences, box, mpp, "logit"), tmp_path / "both.ome.tif")
    stored = [
        OneMap("heatmap", StoredMap(tmp_path / f"{name}.ome.tif"), {}) for name in ("one", "other")
    ]
    found = DifferenceMap(*stored)
    assert len(found.shapes) == 2
    for level in range(2):
        # Each of the three was rounded to float32; up to four pixels of order 4 add up.
        expected, _ = read_ome_tiff(path, level)
        np.testing.assert_allclose(level_of(found, level), expected.values, atol=1e-5)


def test_a_difference_of_infinities_is_nothing_and_no_warning(tmp_path):
    values = np.array([[np.inf, np.inf, 1.0]], np.float32)
    slide_map = SlideMap(values, Box(0, 0, 3, 1), Mpp(1, 1), "logit/mm2")
    stored = StoredMap(write_ome_tiff(slide_map, tmp_path / "map.ome.tif", "mean"))
    found = DifferenceMap(*(OneMap("density", stored, {}) for _ in range(2)))
    np.testing.assert_array_equal(level_of(found, 0), [[np.nan, np.nan, 0.0]])


def test_a_difference_of_two_classes_joins_their_tiles(library, opened):
    one = opened["cnn", "case_1", "tumour_minus_normal"]
    other = opened["cnn", "case_1", "tumour"]
    found = open_evidence(library, f"{one.id}~{other.id}")
    tiles = found.tiles
    # (tumour - normal) - tumour = -normal
    assert found.record["coefficients"] == {"normal": -1.0}
    np.testing.assert_array_equal(tiles.share, one.tiles.share - other.tiles.share)
    assert tiles.share.sum() == pytest.approx(
        found.ledger.map_sum + found.ledger.cut_off, abs=found.ledger.tolerance
    )
    tile = tiles.tile(3)
    assert (
        tile["contribution"]
        == one.tiles.tile(3)["contribution"] - other.tiles.tile(3)["contribution"]
    )
    assert tile["positive"] is tile["negative"] is None
    assert tile["logits"] == {"normal": 0.0, "tumour": 0.0}
    assert tiles.undivided.tolist() == (one.tiles.undivided | other.tiles.undivided).tolist()
    assert found.tiles_note is None


def test_tiles_of_other_places_do_not_subtract_and_it_is_said(library, opened):
    one, other = (opened[run, "case_1", "tumour"] for run in ("cnn", "vit"))
    found = open_evidence(library, f"{one.id}~{other.id}")
    assert found.tiles is None
    assert "different tiles" in found.tiles_note


def test_tiles_are_joined_by_place_in_any_order():
    rng = np.random.default_rng(0)
    boxes = np.column_stack(
        [rng.permutation(50) * 10.0, rng.integers(0, 3, 50), np.full((50, 2), 8)]
    )
    order = rng.permutation(50)

    def tiles(rows, numbers, weight):
        named = dict.fromkeys(("positive", "negative", "gap"), np.full(len(rows), np.nan))
        columns = {"weight": np.full(len(rows), weight), "contribution": numbers, "bias": numbers}
        return Tiles(
            boxes=rows, share=numbers * weight, columns=columns | named,
            logits={"a": numbers}, undivided=np.zeros(len(rows), bool),
        )  # fmt: skip

    mine, theirs = rng.standard_normal((2, 50))
    one, other = tiles(boxes, mine, 0.5), tiles(boxes[order], theirs[order], 0.25)
    found = one.minus(other)
    np.testing.assert_array_equal(found.boxes, boxes)
    np.testing.assert_allclose(found.share, mine * 0.5 - theirs * 0.25)
    np.testing.assert_array_equal(found.logits["a"], mine - theirs)
    # They weigh differently: what each is multiplied by is not one number.
    assert np.isnan(found.columns["weight"]).all()
    assert np.isnan(found.columns["contribution"]).all()
    same = one.minus(tiles(boxes[order], theirs[order], 0.5))
    np.testing.assert_array_equal(same.columns["contribution"], mine - theirs)

    moved = boxes.copy()
    moved[4, 0] += 1e-6
    assert one.minus(tiles(moved, theirs, 0.5)) is None
    assert one.minus(tiles(boxes[:-1], theirs[:-1], 0.5)) is None
    twice = boxes.copy()
    twice[1] = twice[0]
    assert tiles(twice, mine, 0.5).minus(tiles(twice, theirs, 0.5)) is None


def test_ledgers_subtract_entry_by_entry():
    one = Ledger(3.0, 1.0, 1.5, 0.25, 0.01, {"position code": 0.25}, Undivided(3, 0.5, 0.7))
    other = Ledger(1.0, 0.5, 0.375, 0.0, 0.02, {"token": 0.125}, Undivided(2, -0.125, 0.2))
    found = ledger_difference(one, other)
    assert found == Ledger(
        2.0, 0.5, 1.125, 0.25, 0.03, {"position code": 0.25, "token": -0.125},
        Undivided(5, 0.625, 0.8999999999999999),
    )  # fmt: skip
    assert found.is_closed
    assert ledger_difference(Ledger(1, 0, 1, 0, 0.1), Ledger(1, 0, 1, 0, 0.1)).undivided is None


def test_slides_are_not_subtracted_from_one_another(library, opened):
    one, other = opened["cnn", "case_1", "tumour"], opened["cnn", ODD, "tumour"]
    with pytest.raises(ValueError, match="a difference is of one slide"):
        open_evidence(library, f"{one.id}~{other.id}")


def test_grids_that_differ_say_how_to_make_them_alike(remade):
    def other_grid(folder):
        path = folder / "heatmap.ome.tif"
        given, _ = read_ome_tiff(path)
        width = given.values.shape[1]
        box = Box(0, 0, given.box.width / width * (width - 1), given.box.height)
        write_ome_tiff(SlideMap(given.values[:, 1:], box, given.slide_mpp, "logit"), path)

    library, one, other = remade(other_grid)
    with pytest.raises(ValueError, match="explain both with the same --out-mpp") as caught:
        open_evidence(library, f"{one}~{other}")
    assert "\n" not in str(caught.value)


def test_a_shifted_grid_is_another_grid(remade):
    def shifted(folder):
        path = folder / "heatmap.ome.tif"
        given, _ = read_ome_tiff(path)
        box = Box(0.1, 0, given.box.width, given.box.height)
        write_ome_tiff(SlideMap(given.values, box, given.slide_mpp, "logit"), path)

    library, one, other = remade(shifted)
    with pytest.raises(ValueError, match="--out-mpp"):
        open_evidence(library, f"{one}~{other}")


def test_explanations_of_different_files_are_not_subtracted(remade, tmp_path):
    def other_file(folder):
        change_record(folder, lambda record: record["settings"].update(slide="another"))

    library, one, other = remade(other_file)
    with pytest.raises(StampMismatchError, match="explained was another file"):
        open_evidence(library, f"{one}~{other}")

    # Of a slide that does not open nobody knows which of the two is of it.
    gone = tmp_path / "slides" / "case_1.tif"
    gone.parent.mkdir()
    gone.write_text("no slide")
    library = Library.find(gone, [tmp_path])
    one, other = (id_of(library, run, "case_1", "t") for run in ("a", "b"))
    assert open_evidence(library, one).ledger == open_evidence(library, other).ledger
    with pytest.raises(ValueError, match="different files of slide 'case_1'"):
        open_evidence(library, f"{one}~{other}")


def test_ranges_that_no_record_tells_are_looked_for(remade):
    library, told, untold = remade(
        lambda folder: change_record(folder, lambda record: record.pop("ranges"))
    )
    one, other = (open_evidence(library, each) for each in (told, untold))
    assert "ranges" not in other.record
    for name, each in one.maps.items():
        assert other.maps[name].range == pytest.approx(each.range, rel=1e-12)
    entries = [library.entry(each) for each in (told, untold)]
    one, other = (colour_limits(entry.explanation) for entry in entries)
    # These maps have a single level, so that nothing is estimated from a coarser one.
    assert set(one) == {"heatmap", "density"}
    assert other == pytest.approx(one, rel=1e-12)


def test_a_map_of_zeros_says_nothing_of_colours(remade):
    def emptied(folder):
        change_record(folder, lambda record: record.pop("ranges"))
        path = folder / "heatmap.ome.tif"
        given, _ = read_ome_tiff(path)
        write_ome_tiff(SlideMap(given.values * 0, given.box, given.slide_mpp, "logit"), path)

    library, full, empty = remade(emptied)
    one, none = (open_evidence(library, each).maps["heatmap"] for each in (full, empty))
    assert none.range == (0.0, 0.0)
    assert set(np.frombuffer(heat_tile(none, 0, 0, 0), "<i2")) == {0, -32768}
    assert "heatmap" not in colour_limits(library.entry(empty).explanation)
    # What is subtracted from nothing is as fine, and as strong, as by itself.
    assert open_evidence(library, f"{empty}~{full}").maps["heatmap"].range == one.range


@pytest.mark.parametrize(
    "told",
    [None, 3, {}, {"heatmap": None}, {"heatmap": {"limit": 1}},
     {"heatmap": {"limit": 2, "largest": 1}}, {"heatmap": {"limit": 0.0, "largest": 0.0}},
     {"heatmap": {"limit": "x", "largest": 1}}],
)  # fmt: skip
def test_a_record_that_tells_no_range_is_as_one_without(told):
    assert recorded_range({"ranges": told}, "heatmap") is None


def test_limits_of_large_maps_are_estimated_from_a_coarse_level(remade, monkeypatch):
    rng = np.random.default_rng(0)
    # Smooth, so that a coarse level is as strong as a fine one.
    values = np.outer(np.sin(np.arange(700) / 90), np.cos(np.arange(600) / 90)) + 1
    read = []

    def large(folder):
        change_record(folder, lambda record: record.pop("ranges"))
        noisy = (values + 1e-3 * rng.standard_normal(values.shape)).astype(np.float32)
        slide_map = SlideMap(noisy, Box(0, 0, 6000, 7000), Mpp(0.5, 0.41), "logit")
        write_ome_tiff(slide_map, folder / "heatmap.ome.tif")

    library, _, large_id = remade(large)
    monkeypatch.setattr("pathology.viewer.evidence.limits.OVERVIEW_PX", 400)
    entry = library.entry(large_id)
    blocks = StoredMap.blocks
    monkeypatch.setattr(
        StoredMap, "blocks", lambda self, level=0: read.append(level) or blocks(self, level)
    )
    limit = colour_limits(entry.explanation)["heatmap"]
    assert read == [0, 1]  # density, which is small, and the heatmap
    area = 5.0 * 4.1 * 1e-6
    assert limit == pytest.approx(np.quantile(values, 0.995) / area, rel=0.01)


def test_a_damaged_map_is_left_out_of_colours_and_an_error_when_looked_at(remade):
    def damaged(folder):
        change_record(folder, lambda record: record.pop("ranges"))
        path = folder / "density.ome.tif"
        path.write_bytes(path.read_bytes()[:-2000])

    library, _, damaged_id = remade(damaged)
    assert set(colour_limits(library.entry(damaged_id).explanation)) == {"heatmap"}
    with pytest.raises(PathologyError, match=r"density\.ome\.tif: .*cut short") as caught:
        _ = open_evidence(library, damaged_id).maps
    assert "\n" not in str(caught.value)


def test_damaged_tables_are_one_line(remade):
    library, _, damaged = remade(lambda folder: (folder / "tiles.parquet").write_bytes(b"PAR1"))
    with pytest.raises(PathologyError, match=r"tiles\.parquet: cannot be read") as caught:
        _ = open_evidence(library, damaged).tiles
    assert "\n" not in str(caught.value)

    library, _, damaged = remade_table(library, damaged)
    with pytest.raises(PathologyError, match="it has no column weight"):
        _ = open_evidence(library, damaged).tiles


def remade_table(library, damaged):
    """The same library with a table that lacks a column."""
    folder = library.entry(damaged).folder
    table = pd.read_parquet(folder.parents[2] / "a" / "case_1" / "t" / "tiles.parquet")
    table.drop(columns="weight").to_parquet(folder / "tiles.parquet")
    library.open_evidence.clear()
    return library, None, damaged


def test_parts_of_stains_are_maps_and_columns(remade):
    def stained(folder):
        shutil.copy(folder / "heatmap.ome.tif", folder / "heatmap_eosin.ome.tif")
        table = pd.read_parquet(folder / "tiles.parquet")
        table.assign(eosin=table["contribution"] / 4).to_parquet(folder / "tiles.parquet")

    library, _, stained_id = remade(stained)
    evidence = open_evidence(library, stained_id)
    eosin = evidence.maps["heatmap_eosin"]
    assert (eosin.label, eosin.is_signed, eosin.kind) == ("evidence of eosin", True, "sum")
    tile = evidence.tiles.tile(0)
    assert tile["stains"] == {"eosin": tile["contribution"] / 4}


def test_what_is_open_is_shared_and_nothing_is_held_twice(library, opened):
    one, other = (opened[run, "case_1", "tumour"] for run in ("cnn", "vit"))
    assert open_evidence(library, one.id) is one
    found = open_evidence(library, f"{one.id}~{other.id}")
    assert found.maps["heatmap"].first is one.maps["heatmap"]


def test_ids_that_there_are_not(library, opened):
    one = opened["cnn", "case_1", "tumour"].id
    for asked in ("", "nothing", f"{one}~", f"~{one}", f"{one}~{one}~{one}", f"{one}~none"):
        with pytest.raises(UnknownIdError):
            open_evidence(library, asked)


def test_blind_mode_hides_what_is_open_already(slides_folder, results_folder, tmp_path):
    library = Library.find(slides_folder, [results_folder], readings=tmp_path / "readings.csv")
    one, other = (id_of(library, run, "case_1", "tumour") for run in ("cnn", "vit"))
    odd = id_of(library, "cnn", ODD, "tumour")
    library.readings.commit("case_1", "tumour", 0.9, "")
    assert open_evidence(library, f"{one}~{other}").tiles is None
    for asked in (odd, f"{odd}~{one}", f"{one}~{odd}"):
        with pytest.raises(HiddenError):
            open_evidence(library, asked)
