"""A tile taken apart anew, held against the network itself and against what is stored."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bcos_vit.explain import explain
from bcos_vit.models.dense import Dense
from bcos_vit.render import colour_explanation
from pathology.aggregators.registry import make_aggregator
from pathology.data.encoders import PooledFeatures
from pathology.explain.scorers.aggregated_features import AggregatedFeatures
from pathology.explain.scorers.dense_logits import DenseLogits
from pathology.explain.scorers.pooling import TopPooling
from pathology.viewer.model.question import TileQuestion
from pathology.viewer.model.worker.ask_tile import ask_tile
from tests.pathology.viewer.model.made_subject import (
    CLASSES,
    TILE,
    encoded,
    grid_of,
    network,
    pixels,
    pooled,
    silent,
    slide_of,
    subject_of,
    tile_of,
)

EXACT = 1e-10  # all is float64
PIXEL_MM2 = 0.25e-6


def ask(subject, index, targets=None, depth=None):
    return ask_tile(subject, TileQuestion(index, targets, depth), silent)


def values(answer, number=0):
    told = answer.result["maps"][number]
    part = np.frombuffer(answer.parts[told["values"]], "<f4")
    return part.reshape(told["height"], told["width"])


def picture(answer, name):
    return np.asarray(Image.open(io.BytesIO(answer.parts[name])))


@pytest.fixture(scope="module")
def asked():
    """A mean of overlapping tiles, some of them undivided; a subject and its pixels."""
    array = pixels()
    slide = slide_of(array)
    grid = grid_of(slide, overlap_px=4)
    return subject_of(pooled(), grid, slide, detail=0.5), array


def test_pixels_are_those_of_the_network_times_the_tiles_weight(asked):
    subject, array = asked
    grid, weight = subject.members[0].grid, 1 / len(subject.tiles)
    for index in (0, 7):
        answer = ask(subject, index)
        names = [each["target"] for each in answer.result["maps"]]
        assert names == ["tumour", "normal", "other"]
        for number, name in enumerate(names):
            found = explain(network(), tile_of(array, grid[index].box), CLASSES.index(name))
            contributions = found.contributions[0].numpy()
            told = answer.result["maps"][number]
            # The part is float32.
            wanted = contributions * weight / PIXEL_MM2
            np.testing.assert_allclose(values(answer, number), wanted, rtol=1e-6)
            assert told["sum"] == pytest.approx(contributions.sum() * weight, abs=EXACT)
            assert told["sum"] == pytest.approx(told["positive"] + told["negative"], abs=EXACT)
            assert told["own"]["number"] == pytest.approx(float(found.logit), abs=EXACT)
            assert told["own"]["gap"] < EXACT
            assert told["pixel_um"] == [0.5, 0.5]
            assert told["weight"] == pytest.approx(weight)
            shown = picture(answer, told["picture"])
            wanted = colour_explanation(
                found.weights[0].float().numpy(), found.contributions[0].float().numpy()
            )
            np.testing.assert_array_equal(shown, wanted)
        box = grid[index].box
        x, y = round(box.x), round(box.y)
        shown = picture(answer, "tile.png")
        np.testing.assert_array_equal(shown, array[y : y + TILE, x : x + TILE])
        assert answer.result["box"] == [box.x, box.y, box.width, box.height]
        assert answer.parts["weights.png"] == answer.parts["weights/0.png"]


def test_what_was_undivided_gets_its_detail_and_the_sum_it_had(asked):
    subject, _ = asked
    undivided = subject.tiles.index[subject.tiles["positive"].isna()]
    assert len(undivided)
    index = int(undivided[0])
    answer = ask(subject, index)
    row = subject.tiles.loc[index]
    assert answer.result["maps"][0]["sum"] == pytest.approx(
        row["weight"] * row["contribution"], abs=EXACT
    )
    assert len(np.unique(values(answer))) > 50
    check = answer.result["check"]
    assert "positive" not in check["stored"]
    assert {"contribution", "bias", "logit_tumour"} <= set(check["stored"])
    assert not check["differs"]


def test_other_numbers_than_stored_are_told_with_the_largest(asked):
    subject, _ = asked
    tiles = subject.tiles.copy()
    tiles.loc[3, "logit_normal"] += 0.5
    tiles.loc[3, "contribution"] -= 0.125
    other = replace(subject, explanation=replace(subject.explanation, tiles=tiles))
    check = ask(other, 3).result["check"]
    assert check["differs"]
    assert check["differences"]["logit_normal"] == pytest.approx(-0.5, abs=EXACT)
    assert check["differences"]["contribution"] == pytest.approx(0.125, abs=EXACT)
    assert check["line"].startswith("recomputed, logit_normal is ")
    assert check["line"] in ask(other, 3).result["notes"]
    assert not ask(subject, 3).result["check"]["differs"]


def test_a_number_that_is_none_is_refused(asked, monkeypatch):
    subject, _ = asked

    class Odd(type(subject.members[0].scorer)):
        def look(self, grid, images, windows):
            numbers, rows = super().look(grid, images, windows)
            return numbers, torch.where(torch.arange(3) == 2, torch.nan, rows)

    scorer = subject.members[0].scorer
    odd = Odd(scorer.model, scorer.encoding, scorer.classes, scorer.pooling, scorer.depth)
    other = replace(subject, members=[replace(subject.members[0], scorer=odd)])
    with pytest.raises(ValueError, match="recomputed, logit_other of tile 3 is nan"):
        ask(other, 3)


def test_a_tile_of_which_nothing_is_stored_says_so(asked):
    subject, _ = asked
    tiles = subject.tiles.copy()
    names = ["contribution", "positive", "negative", "bias"]
    tiles.loc[3, [*names, *(f"logit_{name}" for name in CLASSES)]] = np.nan
    other = replace(subject, explanation=replace(subject.explanation, tiles=tiles))
    result = ask(other, 3).result
    assert result["check"]["stored"] == {}
    assert any("is held against none" in note for note in result["notes"])


def test_targets_are_those_asked_for(asked):
    subject, _ = asked
    one = ask(subject, 2, targets=())
    assert [each["target"] for each in one.result["maps"]] == ["tumour"]
    two = ask(subject, 2, targets=("tumour - mean", "tumour"))
    assert [each["target"] for each in two.result["maps"]] == ["tumour", "tumour - mean"]
    classes = ask(subject, 2)
    by_class = {
        told["target"]: values(classes, number).astype(float)
        for number, told in enumerate(classes.result["maps"])
    }
    mean = by_class["tumour"] - sum(by_class.values()) / 3
    # Parts in float32, of up to some hundred logits per mm2.
    np.testing.assert_allclose(values(two, 1), mean, atol=1e-4 * np.abs(mean).max())
    with pytest.raises(ValueError, match="target must be one of normal, tumour, other"):
        ask(subject, 2, targets=("tumor",))
    with pytest.raises(ValueError, match="index must be below"):
        ask(subject, len(subject.tiles))


def test_a_difference_of_highest_tiles_mixes_classes_as_the_score_does():
    array, pooling = pixels(), TopPooling(4)
    slide = slide_of(array)
    subject = subject_of(pooled(pooling), grid_of(slide), slide, "tumour - normal")
    tiles = subject.tiles
    logits = tiles[["logit_normal", "logit_tumour"]].to_numpy()
    normal, tumour = (pooling.weights(column) for column in logits.T)
    index = int(np.flatnonzero((tumour > 0) & (normal == 0))[0])
    answer = ask(subject, index, targets=("tumour",))
    # A tile that only tumour counts: of the difference it is tumour's share.
    first, second = (values(answer, number) for number in (0, 1))
    np.testing.assert_allclose(first, second, rtol=1e-6)
    assert answer.result["maps"][0]["sum"] == pytest.approx(
        float(tiles["weight"][index] * tiles["contribution"][index]), abs=EXACT
    )
    left_out = int(np.flatnonzero((tumour == 0) & (normal == 0))[0])
    answer = ask(subject, left_out, targets=("tumour",))
    told = answer.result["maps"][1]
    assert not told["counts"]
    assert told["weight"] == pytest.approx(1 / 4)
    assert any("weight 0" in note for note in answer.result["notes"])
    assert "contribution" not in answer.result["check"]["stored"]
    assert not answer.result["check"]["differs"]


def test_a_depth_is_gone_beyond_where_the_model_can():
    slide = slide_of(pixels())
    grid = grid_of(slide)
    deep = subject_of(pooled(depth="head"), grid, slide)
    found = ask(deep, 1)
    assert found.result["depth"] == "pixels"
    assert found.result["explained_depth"] == "head"
    assert found.result["depths"] == ["pixels", "head"]
    assert values(found).shape == (TILE, TILE)
    assert any("finer than the explanation" in note for note in found.result["notes"])
    assert not found.result["check"]["differs"]
    as_explained = ask(deep, 1, depth="head")
    places = values(as_explained)
    assert places.shape == tuple(as_explained.result["places"]) != (TILE, TILE)
    row = deep.tiles.loc[1]
    told = as_explained.result["maps"][0]
    assert told["sum"] == pytest.approx(row["weight"] * row["contribution"], abs=EXACT)
    assert told["picture"] is None
    area = np.prod(told["pixel_um"]) * 1e-6
    assert places.astype(float).sum() * area == pytest.approx(told["sum"], rel=1e-6)
    with pytest.raises(ValueError, match="depth must be one of pixels, head, got 'stem'"):
        ask(deep, 1, depth="stem")


def test_a_model_that_stops_at_tiles_says_so():
    slide = slide_of(pixels())
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6 * TILE**2, 3)).eval().double()
    scorer = replace(pooled(depth="tiles"), model=plain)
    answer = ask(subject_of(scorer, grid_of(slide), slide), 0)
    assert answer.result["depths"] == ["tiles"]
    assert values(answer).shape == (1, 1)
    assert answer.result["notes"] == [
        "the tile as a whole, for the model cannot be explained to pixels"
    ]


def test_a_slide_models_weights_are_of_the_whole_bag():
    slide = slide_of(pixels())
    features = PooledFeatures(network()).eval()
    torch.manual_seed(1)
    aggregator = make_aggregator("bcos_attention", features.dims, 2).eval().double()
    scorer = AggregatedFeatures(features, encoded, aggregator, ["normal", "tumour"])
    subject = subject_of(scorer, grid_of(slide), slide)
    passes = []

    def progress(batches, total, what):
        passes.append(what)
        return batches

    for index in (0, 5):
        answer = ask_tile(subject, TileQuestion(index), progress)
        told = answer.result["maps"][0]
        assert told["sum"] == pytest.approx(subject.tiles["contribution"][index], abs=EXACT)
        assert told["weight"] == 1
        assert not answer.result["check"]["differs"]
        # As small as a share of many is what counts as different.
        largest = subject.tiles["contribution"].abs().max()
        assert answer.result["check"]["tolerance"] < 1e-3 * largest
    assert passes.count("encoding all tiles") == 1  # kept for the next question


def test_a_dense_tile_comes_with_its_halo():
    array = pixels()
    slide = slide_of(array)
    grid = grid_of(slide)
    scorer = DenseLogits(Dense(network()), encoded, CLASSES)
    subject = subject_of(scorer, grid, slide)
    halo = scorer.model.halo_px
    answer = ask(subject, 4)
    box = grid[4].box
    side = TILE + 2 * halo
    assert answer.result["box"] == [box.x - halo, box.y - halo, side, side]
    assert values(answer).shape == (side, side)
    told, row = answer.result["maps"][0], subject.tiles.loc[4]
    assert told["sum"] == pytest.approx(row["weight"] * row["contribution"], abs=EXACT)
    assert not answer.result["check"]["differs"]
