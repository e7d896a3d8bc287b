"""Tiles as QuPath reads them."""

import gzip
import itertools
import json
import tracemalloc
import uuid

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from shapely.geometry import shape

from pathology.errors import OutputError
from pathology.explain.results import tile_features
from pathology.explain.results.tile_features import measurements, write_tile_features
from pathology.geometry import Box
from pathology.slides.memory import MemorySlide
from pathology.tiling import TileSpec, tile_slide

BOUNDS = Box(137, 59, 900, 700)
SLIDE = MemorySlide(np.full((1000, 1200, 3), 200, np.uint8), 0.2528, bounds=BOUNDS)


def table(count=5, weight=None):
    rng = np.random.default_rng(count)
    boxes = np.array([[137 + 110.76 * (i % 40), 59 + 110.76 * (i // 40)] for i in range(count)])
    return pd.DataFrame(
        {
            "x": boxes[:, 0],
            "y": boxes[:, 1],
            "width": 221.5189873417722,
            "height": 221.5189873417722,
            "tissue": rng.random(count),
            "weight": 1 / count if weight is None else weight,
            "logit_normal": rng.normal(size=count),
            "logit_tumour": rng.normal(size=count),
            "contribution": rng.normal(size=count),
            "positive": rng.random(count),
            "negative": -rng.random(count),
            "bias": 0.1,
            "gap": 1e-7,
        }
    )


def write(tiles, path, **changed):
    told = {"slide_id": "s", "target": "tumour", "bounds": BOUNDS, "metadata": {}, **changed}
    assert write_tile_features(tiles, path, **told) == len(tiles)
    return read(path)


def read(path):
    return json.loads(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_text()
    )


def shown(feature):
    return feature["properties"]["measurements"]


@pytest.mark.parametrize("name", ["tiles.geojson", "tiles.geojson.gz"])
def test_polygons_lie_where_tiles_do_less_the_bounds(tmp_path, name):
    # 0.2528 to 0.5: tiles of 31.64... level-0 px, which begin at no whole pixel.
    grid = tile_slide(SLIDE, TileSpec(size_px=16, mpp=0.5, overlap_px=5, min_tissue=0.0))
    boxes = grid.boxes()
    assert len(boxes) > 500
    tiles = pd.DataFrame(boxes, columns=["x", "y", "width", "height"])
    content = write(tiles.assign(weight=0.5, contribution=1.0), tmp_path / name)
    polygons = [shape(feature["geometry"]) for feature in content["features"]]
    corners = boxes[:, :2] - (BOUNDS.x, BOUNDS.y)
    wanted = shapely.box(*corners.T, *(corners + boxes[:, 2:]).T)
    # Rounded to a thousandth of a pixel.
    assert np.abs(shapely.bounds(polygons) - shapely.bounds(wanted)).max() <= 0.0005 + 1e-9
    assert all(polygon.is_valid and polygon.area > 0 for polygon in polygons)
    own = content["bcos_pathology"]["tiles"]
    assert own == {"origin": [BOUNDS.x, BOUNDS.y], "unit": "level-0 px", "count": len(boxes)}


def test_neighbours_share_their_edge(tmp_path):
    content = write(table(12).assign(width=110.76, height=110.76), tmp_path / "t.geojson")
    rings = [feature["geometry"]["coordinates"][0] for feature in content["features"]]
    assert all(a[1] == b[0] and a[2] == b[3] for a, b in itertools.pairwise(rings))


def test_the_whole_slides_corner_when_asked_for(tmp_path):
    content = write(table(1), tmp_path / "t.geojson", origin="slide")
    assert content["features"][0]["geometry"]["coordinates"][0][0] == [137.0, 59.0]
    assert content["bcos_pathology"]["tiles"]["origin"] == [0.0, 0.0]
    with pytest.raises(ValueError, match='origin must be "bounds" or "slide"'):
        write(table(1), tmp_path / "t.geojson", origin="corner")


def test_numbers_survive_two_decimals(tmp_path):
    # A mean over 60,000 tiles: a tile of one logit has 1.7e-5 of the score.
    tiles = table(50, weight=1 / 60000)
    content = write(tiles, tmp_path / "t.geojson")
    for feature, row in zip(content["features"], tiles.itertuples(), strict=True):
        values = shown(feature)
        share = row.weight * row.contribution
        assert values["tumour: share [µlogit]"] == pytest.approx(1e6 * share, rel=1e-6)
        assert abs(round(values["tumour: share [µlogit]"], 2) / 1e6 - share) <= 5e-9 + 1e-12
        assert values["tumour: share for [µlogit]"] == pytest.approx(
            1e6 * row.weight * row.positive, rel=1e-6
        )
        assert values["tumour: contribution [mlogit]"] == pytest.approx(
            1e3 * row.contribution, rel=1e-6
        )
        assert values["logit of normal"] == pytest.approx(row.logit_normal, rel=1e-6)
        assert values["tissue [%]"] == pytest.approx(100 * row.tissue, rel=1e-6)
        assert not any("gap" in name or "bias" in name for name in values)


def test_shares_sum_to_the_score_of_the_tiles(tmp_path):
    tiles = table(400)
    content = write(tiles, tmp_path / "t.geojson")
    total = sum(shown(feature)["tumour: share [µlogit]"] for feature in content["features"])
    absolute = (tiles.weight * tiles.contribution).abs().sum()
    # Seven digits each.
    assert abs(total / 1e6 - (tiles.weight * tiles.contribution).sum()) <= 5e-7 * absolute


def test_a_slide_model_tells_shares_once_and_what_it_knows_more(tmp_path):
    tiles = table(4, weight=1.0).drop(columns=["logit_normal", "logit_tumour"])
    tiles = tiles.assign(
        attention=[0.25, 1e-6, 0.5, np.nan],
        removal_effect=[1e-5, -2e-5, np.nan, np.inf],
        haematoxylin=2e-6,
        undivided=[True, False, True, False],
        note=["a", "b", "c", "d"],
    )
    first, second, third, last = (
        shown(f) for f in write(tiles, tmp_path / "t.geojson")["features"]
    )
    assert "tumour: contribution [mlogit]" not in first
    assert first["tumour: removal effect [µlogit]"] == pytest.approx(10)
    assert second["tumour: attention [ppm]"] == pytest.approx(1)
    assert first["tumour: share of haematoxylin [µlogit]"] == pytest.approx(2)
    assert (first["tumour: undivided"], second["tumour: undivided"]) == (1, 0)
    assert "tumour: removal effect [µlogit]" not in {*third, *last}
    assert "tumour: attention [ppm]" not in last
    assert not any("note" in name for name in first)


def test_a_tile_that_was_not_explained_says_nothing_of_its_share(tmp_path):
    tiles = table(3, weight=[0.5, 0.5, 0.0])
    tiles.loc[2, ["contribution", "positive", "negative"]] = np.nan
    values = shown(write(tiles, tmp_path / "t.geojson")["features"][2])
    assert set(values) == {
        "tumour: weight [ppm]",
        "tissue [%]",
        "logit of normal",
        "logit of tumour",
    }


def test_what_qupath_takes_a_tile_by(tmp_path):
    content = write(table(3), tmp_path / "t.geojson", metadata={"ledger": {"score": 1.5}})
    assert content["type"] == "FeatureCollection"
    assert content["bcos_pathology"]["ledger"] == {"score": 1.5}
    for feature in content["features"]:
        assert feature["type"] == "Feature"
        assert str(uuid.UUID(feature["id"])) == feature["id"]
        assert feature["properties"]["objectType"] == "tile"
        assert all(type(value) is float for value in shown(feature).values())
        ring = feature["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
        assert len(ring) == 5


def test_equal_tiles_give_equal_bytes_and_identities_follow_the_place(tmp_path):
    tiles = table(30)
    paths = [tmp_path / "a.geojson.gz", tmp_path / "b.geojson.gz"]
    first, _ = (write(tiles, path) for path in paths)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    names = [feature["id"] for feature in first["features"]]
    assert len(set(names)) == 30
    again = write(tiles[::-1], tmp_path / "c.geojson")["features"]
    assert [feature["id"] for feature in again] == names[::-1]
    for changed in ({"target": "normal"}, {"slide_id": "t"}):
        other = write(tiles, tmp_path / "d.geojson", **changed)["features"]
        assert not {feature["id"] for feature in other} & set(names)


def test_members_have_tiles_of_their_own_in_one_place(tmp_path):
    alone = write(table(8), tmp_path / "a.geojson")["features"]
    members = [table(8).assign(member=number) for number in range(3)]
    features = write(pd.concat(members, ignore_index=True), tmp_path / "b.geojson")["features"]
    names = [feature["id"] for feature in features]
    assert len(set(names)) == 24
    assert names[:8] == [feature["id"] for feature in alone]
    assert [shown(feature)["tumour: member"] for feature in features] == [0] * 8 + [1] * 8 + [2] * 8


def test_geopandas_reads_what_was_written(tmp_path):
    tiles = table(60)
    path = tmp_path / "tiles.geojson.gz"
    # A record longer than what GDAL looks at to tell a format.
    write(tiles, path, metadata={"settings": "x" * 30_000})
    frame = geopandas.read_file(f"/vsigzip/{path}")
    corners = tiles[["x", "y"]].to_numpy() - (BOUNDS.x, BOUNDS.y)
    wanted = np.hstack([corners, corners + tiles[["width", "height"]].to_numpy()])
    assert np.abs(frame.bounds.to_numpy() - wanted).max() <= 0.0005 + 1e-9
    share = [values["tumour: share [µlogit]"] for values in frame["measurements"]]
    assert share == pytest.approx(1e6 * tiles.weight * tiles.contribution, rel=1e-6)


def test_memory_does_not_grow_with_the_tiles(tmp_path, monkeypatch):
    monkeypatch.setattr(tile_features, "CHUNK", 64)

    def peak(count):
        tiles = table(count)
        tracemalloc.start()
        write_tile_features(
            tiles, tmp_path / "t.geojson.gz", slide_id="s", target="t", bounds=BOUNDS, metadata={}
        )
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    small, large = peak(200), peak(1200)
    # The columns, 8 bytes a number, and not the text, some 700 bytes a tile.
    assert large - small < 1000 * 30 * 8


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ValueError, match="tiles need the columns weight, contribution"):
        write(table(2).drop(columns=["weight", "contribution"]), tmp_path / "t.geojson")
    with pytest.raises(ValueError, match="JSON compliant"):
        write(table(2), tmp_path / "t.geojson", metadata={"gap": float("nan")})
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write(table(2), tmp_path / "file" / "t.geojson")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_measurement_per_column_in_the_order_of_interest():
    names = [each.name for each in measurements(table(2), "tumour - normal")]
    assert names[0] == "tumour - normal: share [µlogit]"
    assert names.index("logit of normal") > names.index("tissue [%]")
    assert len(set(names)) == len(names)
