"""A region painted over: predictions and the real score, against loops over tiles in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bcos_vit.layers import BcosConv2d
from bcos_vit.models.dense import Dense
from pathology.aggregators.registry import make_aggregator
from pathology.data.encoders import PooledFeatures
from pathology.explain.scorers.aggregated_features import AggregatedFeatures
from pathology.explain.scorers.dense_logits import DenseLogits
from pathology.explain.scorers.pooling import TopPooling
from pathology.explain.slide import explain_slide
from pathology.explain.targets import parse_target
from pathology.viewer.model.question import MaskQuestion
from pathology.viewer.model.worker.ask_mask import ask_mask
from tests.pathology.viewer.model.made_subject import (
    CLASSES,
    GLASS,
    POLYGONS,
    SIDES,
    TILE,
    by_loops,
    encoded,
    grid_of,
    inside,
    logits_by_loops,
    network,
    painted,
    pixels,
    pooled,
    silent,
    slide_of,
    subject_of,
)

EXACT = 1e-10  # all is float64
TUMOUR = CLASSES.index("tumour")


def ask(subject, fill="background", polygons=POLYGONS):
    return ask_mask(subject, MaskQuestion(polygons, fill), silent).result


@pytest.mark.parametrize(("fill", "colour"), [("background", GLASS), ("grey", (128, 128, 128))])
@pytest.mark.parametrize("overlap", [0, 4])
def test_a_mean_of_tiles(fill, colour, overlap):
    array = pixels()
    slide, scorer = slide_of(array), pooled()
    grid = grid_of(slide, overlap_px=overlap)
    result = ask(subject_of(scorer, grid, slide), fill)
    changed = painted(array, colour)
    weights = np.full(len(grid), 1 / len(grid))
    contributed, change = by_loops(scorer.model, grid, array, changed, TUMOUR, weights)
    before = logits_by_loops(scorer.model, grid, array)[:, TUMOUR].mean()
    after = logits_by_loops(scorer.model, grid, changed)[:, TUMOUR].mean()
    assert result["score"]["stored"] == pytest.approx(before, abs=EXACT)
    assert result["score"]["recomputed"] == pytest.approx(before, abs=EXACT)
    assert not result["score"]["differs"]
    assert result["subtraction"]["inside"] == pytest.approx(contributed, abs=EXACT)
    assert result["subtraction"]["predicted"] == pytest.approx(before - contributed, abs=EXACT)
    assert result["linear"]["change"] == pytest.approx(change, abs=EXACT)
    assert result["linear"]["predicted"] == pytest.approx(before + change, abs=EXACT)
    assert result["real"] == pytest.approx(after, abs=EXACT)
    # The network is not linear, so neither prediction is what happens; that is what is shown.
    assert abs(result["gaps"]["subtraction"]) > 1e-4
    assert result["gaps"]["subtraction"] == pytest.approx(after - (before - contributed), abs=EXACT)
    assert result["gaps"]["linear"] == pytest.approx(after - (before + change), abs=EXACT)
    assert result["fill"] == {"name": fill, "colour": "#{:02x}{:02x}{:02x}".format(*colour)}
    touched = sum(changed_tile(array, changed, tile.box) for tile in grid)
    assert touched <= result["tiles"]["run"] < result["tiles"]["all"] == len(grid)
    if not overlap:
        whole = slice(0, SIDE_IN_TILES[0]), slice(0, SIDE_IN_TILES[1])
        area = inside()[whole].sum() * 0.25e-6
        assert result["painted_mm2"] == pytest.approx(area, rel=1e-9)


SIDE_IN_TILES = 70 // TILE * TILE, 90 // TILE * TILE


def changed_tile(array, changed, box):
    x, y = round(box.x), round(box.y)
    part = slice(y, y + TILE), slice(x, x + TILE)
    return bool((array[part] != changed[part]).any())


@pytest.mark.parametrize("target", ["tumour", "tumour - normal", "other - mean"])
def test_the_highest_tiles_are_chosen_anew(target):
    array, pooling = pixels(), TopPooling(3)
    slide, scorer = slide_of(array), pooled(pooling)
    grid = grid_of(slide)
    result = ask(subject_of(scorer, grid, slide, target))
    changed = painted(array, GLASS)
    logits = [logits_by_loops(scorer.model, grid, each) for each in (array, changed)]
    shares = {
        "tumour": (0, 1, 0),
        "tumour - normal": (-1, 1, 0),
        "other - mean": (-1 / 3, -1 / 3, 2 / 3),
    }[target]
    scores, contributed, change = [], 0.0, 0.0
    for each in logits:
        tops = [np.sort(each[:, k])[-3:].mean() for k in range(3)]
        scores.append(float(np.dot(shares, tops)))
    for k, share in enumerate(shares):
        weights = pooling.weights(logits[0][:, k])
        a, b = by_loops(scorer.model, grid, array, changed, k, weights)
        contributed, change = contributed + share * a, change + share * b
    assert result["score"]["recomputed"] == pytest.approx(scores[0], abs=EXACT)
    assert result["real"] == pytest.approx(scores[1], abs=EXACT)
    assert result["subtraction"]["inside"] == pytest.approx(contributed, abs=EXACT)
    assert result["linear"]["change"] == pytest.approx(change, abs=EXACT)
    # Other tiles than before are the highest now, or this would not be tested.
    assert set(np.argsort(logits[0][:, 1])[-3:]) != set(np.argsort(logits[1][:, 1])[-3:])


def test_a_slide_model_sees_all_tiles_again(tmp_path):
    array = pixels()
    slide, grid = slide_of(array), grid_of(slide_of(array))
    features = PooledFeatures(network()).eval()
    torch.manual_seed(1)
    aggregator = make_aggregator("bcos_attention", features.dims, 2).eval().double()
    scorer = AggregatedFeatures(features, encoded, aggregator, ["normal", "tumour"])
    subject = subject_of(scorer, grid, slide)
    result = ask(subject)
    painted_slide = slide_of(painted(array, GLASS))
    real = explain_slide(painted_slide, grid, scorer, "tumour", out_mpp=0.5, scratch=tmp_path / "1")
    assert result["real"] == pytest.approx(real.logit, abs=EXACT)
    assert result["score"]["recomputed"] == pytest.approx(subject.explanation.logit, abs=EXACT)
    # Of tiles on the slide's own pixels the map has those; they are stored in float32.
    values = np.nan_to_num(subject.explanation.contributions.values).astype(float)
    contributed = values[inside()].sum()
    assert result["subtraction"]["inside"] == pytest.approx(contributed, abs=1e-6)
    assert result["tiles"]["run"] < result["tiles"]["all"]


def test_a_region_ends_where_the_slide_does(tmp_path):
    array = pixels()
    slide = slide_of(array)
    torch.manual_seed(0)
    # Halos, and a tile half beside the slide: what is read there is no part of it.
    grid = grid_of(slide)
    grid = replace(grid, x=np.where(np.arange(len(grid)) == 3, SIDES[1] - 6, grid.x))
    scorer = DenseLogits(Dense(network()), encoded, CLASSES)
    ring = (70.0, -20.0), (300.0, -20.0), (300.0, 300.0), (70.0, 300.0)
    subject = subject_of(scorer, grid, slide)
    result = ask(subject, "grey", ((ring,),))
    changed = array.copy()
    changed[:, 70:] = 128
    real = explain_slide(
        slide_of(changed), grid, scorer, "tumour", out_mpp=0.5, scratch=tmp_path / "1"
    )
    assert result["real"] == pytest.approx(real.logit, abs=EXACT)
    assert result["area_mm2"] == pytest.approx(20 * SIDES[0] * 0.25e-6)
    beside = (((100.0, 0.0), (120.0, 0.0), (120.0, 50.0)),)
    with pytest.raises(ValueError, match="no area on the slide"):
        ask(subject, polygons=(beside,))


@pytest.mark.parametrize("block_tiles", [1, 3])
def test_a_dense_model_sees_the_region_in_halos_too(block_tiles, tmp_path):
    array = pixels()
    slide, grid = slide_of(array), grid_of(slide_of(array))
    torch.manual_seed(0)
    dense = Dense(network())
    scorer = DenseLogits(dense, encoded, CLASSES, block_tiles=block_tiles)
    subject = subject_of(scorer, grid, slide)
    result = ask(subject)
    real = explain_slide(
        slide_of(painted(array, GLASS)), grid, scorer, "tumour", out_mpp=0.5, scratch=tmp_path
    )
    assert result["real"] == pytest.approx(real.logit, abs=EXACT)
    values = np.nan_to_num(subject.explanation.contributions.values).astype(float)
    contributed = values[inside()].sum()
    assert result["subtraction"]["inside"] == pytest.approx(contributed, abs=1e-6)
    alone = [tile for tile in grid if changed_tile(array, painted(array, GLASS), tile.box)]
    assert result["tiles"]["run"] > len(alone)


def test_a_region_is_painted_before_tiles_are_normalised():
    def inverted(tiles):
        return 255 - tiles

    array = pixels()
    slide, scorer = slide_of(array), pooled()
    grid = grid_of(slide)
    subject = subject_of(scorer, grid, slide, normalise=inverted)
    subject.members[0].normalise = inverted
    result = ask(subject)
    seen, changed = inverted(array), inverted(painted(array, GLASS))
    weights = np.full(len(grid), 1 / len(grid))
    contributed, change = by_loops(scorer.model, grid, seen, changed, TUMOUR, weights)
    after = logits_by_loops(scorer.model, grid, changed)[:, TUMOUR].mean()
    assert result["subtraction"]["inside"] == pytest.approx(contributed, abs=EXACT)
    assert result["linear"]["change"] == pytest.approx(change, abs=EXACT)
    assert result["real"] == pytest.approx(after, abs=EXACT)


def test_places_count_by_their_share_inside():
    array = pixels()
    slide = slide_of(array)
    grid = grid_of(slide)
    deep = pooled(depth="head")
    result = ask(subject_of(deep, grid, slide))
    at_pixels = ask(subject_of(pooled(), grid, slide))
    mask, wanted = inside(), 0.0
    plan = deep.planned(grid, torch.zeros(len(grid), 3), [parse_target("tumour", CLASSES)])
    for window in deep.windows(grid, np.arange(len(grid))):
        x, y = round(window.box.x), round(window.box.y)
        crop = torch.from_numpy(array[y : y + TILE, x : x + TILE].copy()).permute(2, 0, 1)[None]
        (found,) = plan.explain(encoded(crop), [window])
        places = found.contributions[0].numpy()
        side = TILE // places.shape[0]
        of_tile = mask[y : y + TILE, x : x + TILE].astype(float)
        shares = of_tile.reshape(len(places), side, len(places), side).mean((1, 3))
        wanted += float((places * shares).sum()) / len(grid)
    assert result["subtraction"]["inside"] == pytest.approx(wanted, abs=EXACT)
    assert result["depth"] == "head"
    assert any("places of head" in note for note in result["notes"])
    # What the network really says, and W(x) of pixels, have nothing to do with the depth.
    assert result["real"] == pytest.approx(at_pixels["real"], abs=EXACT)
    assert result["linear"]["change"] == pytest.approx(at_pixels["linear"]["change"], abs=EXACT)


def test_a_model_without_pixels_has_no_linear_prediction():
    array = pixels()
    slide = slide_of(array)
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6 * TILE**2, 3)).eval().double()
    scorer = replace(pooled(depth="tiles"), model=plain)
    result = ask(subject_of(scorer, grid_of(slide), slide))
    assert result["linear"] is None
    assert result["gaps"]["linear"] is None
    assert any("no linear prediction" in note for note in result["notes"])


class Linear(torch.nn.Module):
    """One B-cos layer with b = 1, whose scale is 1: W(x) is the same for all x."""

    dynamic_linear = True

    def __init__(self):
        super().__init__()
        self.conv = BcosConv2d(6, 3, 3, padding=1, b=1)

    def forward(self, images):
        return self.conv(images).mean((2, 3))


def test_a_linear_network_is_foretold_exactly():
    slide = slide_of(pixels())
    torch.manual_seed(0)
    scorer = replace(pooled(), model=Linear().eval().double())
    result = ask(subject_of(scorer, grid_of(slide), slide))
    assert abs(result["change"]) > 1e-3
    assert abs(result["gaps"]["linear"]) < EXACT


def test_a_region_beside_all_tiles_changes_nothing():
    array = pixels()
    slide = slide_of(array)
    far = ((((81.0, 1.0), (89.0, 1.0), (85.0, 60.0)),),)
    result = ask(subject_of(pooled(), grid_of(slide), slide), polygons=far)
    assert result["tiles"]["run"] == 0
    assert result["change"] == 0
    assert result["real"] == result["score"]["recomputed"]
    assert any("meets no tile" in note for note in result["notes"])


def test_a_line_is_no_region():
    slide = slide_of(pixels())
    line = ((((1.0, 1.0), (5.0, 5.0), (1.0, 1.0)),),)
    with pytest.raises(ValueError, match="no area"):
        ask(subject_of(pooled(), grid_of(slide), slide), polygons=line)


def test_giving_up_ends_between_two_batches():
    slide, seen = slide_of(pixels()), []

    class GivenUp(Exception):
        pass

    def progress(batches, total, what):
        for batch in batches:
            seen.append(what)
            if len(seen) == 2:
                raise GivenUp
            yield batch

    subject = subject_of(pooled(), grid_of(slide, overlap_px=12), slide)
    everything = ((((-1.0, -1.0), (100.0, -1.0), (100.0, 100.0), (-1.0, 100.0)),),)
    with pytest.raises(GivenUp):
        ask_mask(subject, MaskQuestion(everything), progress)
    assert len(seen) == 2
