"""Every way to score a slide, with every kind of target: its maps are the computation itself."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor, nn

from bcos_vit.models import BcosDenseNet, BcosVisionTransformer
from pathology.aggregators import AGGREGATORS, Aggregator, make_aggregator
from pathology.cli.explain_slide import SlideExplainer
from pathology.data.encoders import PooledFeatures
from pathology.errors import LedgerError
from pathology.explain.ledger import Undivided
from pathology.explain.scorers.aggregated_features import AggregatedFeatures
from pathology.explain.scorers.pooled_logits import PooledLogits
from pathology.explain.scorers.pooling import MeanPooling, TopPooling
from pathology.explain.slide import SlideExplanation, explain_slide, explain_targets
from pathology.geometry import Box
from pathology.runs.layering import Layering
from pathology.runs.loaded_runs import LoadedRuns, RunsChoice
from pathology.runs.ready_run import ReadyRun
from pathology.runs.scorers import Explainer
from pathology.slides import MemorySlide, Slide, open_slide
from pathology.tasks.encoding import TileEncoding
from pathology.tiling import TileGrid, TileSpec, tile_slide
from tests.conftest import settle_statistics, unsettle

CLASSES = ["a", "b", "c"]
TARGETS = ["a", "b", "c", "a - b", "b - mean"]
COEFFICIENTS = {
    "a": (1, 0, 0),
    "b": (0, 1, 0),
    "c": (0, 0, 1),
    "a - b": (1, -1, 0),
    "b - mean": (-1 / 3, 2 / 3, -1 / 3),
}
EXACT = [name for name, kind in AGGREGATORS.items() if kind.exact]
ADDITIVE = [
    name
    for name, kind in AGGREGATORS.items()
    if not kind.exact and kind.tile_contributions is not Aggregator.tile_contributions
]
SIDE = 32
TOP = 7


def vit(**options) -> nn.Module:
    args = {"img_size": SIDE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = BcosVisionTransformer(**(args | {"num_classes": 3, "mlp_ratio": 2.0} | options))
    return unsettle(model).eval()


def cnn(**options) -> nn.Module:
    args = {"growth_rate": 8, "block_config": (1, 1), "num_classes": 3}
    model = unsettle(BcosDenseNet(**(args | options)))
    return settle_statistics(model, torch.rand(4, 6, SIDE, SIDE))


@dataclass(frozen=True)
class Way:
    """A way to score a slide: a pooling or an aggregator over a network in an encoding."""

    score: str
    network: Any = cnn
    encoding: str = "complement"
    depth: str = "pixels"

    def scorer(self, depth: str | None = None) -> PooledLogits | AggregatedFeatures:
        torch.manual_seed(1)
        model = self.network(encoding=self.encoding)
        encoding, depth = TileEncoding(model), depth or self.depth
        if self.score in ("mean of tiles", "top of tiles"):
            pooling = MeanPooling() if self.score == "mean of tiles" else TopPooling(TOP)
            return PooledLogits(model, encoding, CLASSES, pooling, depth)
        features = PooledFeatures(model).eval()
        options = {"hidden": 16} if self.score.startswith("bcos") else {}
        if self.score == "bcos_transformer":
            options = {"dim": 16, "num_heads": 2}
        aggregator = make_aggregator(self.score, features.dims, 3, **options).eval()
        return AggregatedFeatures(features, encoding, aggregator, CLASSES, depth)

    def __str__(self) -> str:
        return "-".join((self.score, self.network.__name__, self.encoding, self.depth))


WAYS = [
    Way("mean of tiles"),
    Way("mean of tiles", vit, "stain"),
    Way("top of tiles", vit),
    Way("top of tiles", cnn, "stain"),
    *(Way(name, (cnn, vit)[i % 2]) for i, name in enumerate(EXACT)),
    Way("bcos_gated_sum", vit, "stain"),
    *(Way(name, vit, depth="tiles") for name in ADDITIVE),
]


def made_slide(width: int = 108, height: int = 60) -> MemorySlide:
    rng = np.random.default_rng(3)
    coarse = rng.integers(40, 256, (height // 12, width // 12, 3)).astype(np.float64)
    pixels = np.kron(coarse, np.ones((12, 12, 1))) + rng.normal(0, 20, (height, width, 3))
    return MemorySlide(pixels.clip(0, 255).astype(np.uint8), mpp=0.5)


def cut(slide: Slide, **options) -> TileGrid:
    return tile_slide(slide, TileSpec(SIDE, 0.5, min_tissue=0.0, **options))


@dataclass(frozen=True)
class Made:
    """A way's explanations of one slide, all targets in one pass."""

    way: Way
    scorer: PooledLogits | AggregatedFeatures
    slide: Slide
    grid: TileGrid
    all: dict[str, SlideExplanation]


@pytest.fixture(scope="module", params=WAYS, ids=str)
def made(request, tmp_path_factory) -> Made:
    way, slide = request.param, made_slide()
    grid = cut(slide, overlap_px=8, keep_edges=True)
    scorer = way.scorer()
    scratch = tmp_path_factory.mktemp("maps")
    found = explain_targets(slide, grid, scorer, TARGETS, out_mpp=0.5, scratch=scratch)
    return Made(way, scorer, slide, grid, dict(zip(TARGETS, found, strict=True)))


def pixels_of(explanation: SlideExplanation) -> np.ndarray:
    """The map, 0 where nothing was placed, in float64."""
    return np.nan_to_num(np.asarray(explanation.contributions.values, np.float64))


@torch.no_grad()
def by_forward_passes(made: Made) -> np.ndarray:
    """The slide's logits in float64, from all tiles at once and pooling written here."""
    scorer, slide, grid = made.scorer, made.slide, made.grid
    tiles = np.stack([slide.read(tile.box, grid.spec.mpp) for tile in grid])
    images = scorer.encoding(torch.from_numpy(tiles).permute(0, 3, 1, 2)).double()
    if isinstance(scorer, AggregatedFeatures):
        features = copy.deepcopy(scorer.encoder).double()(images)
        return copy.deepcopy(scorer.aggregator).double()(features[None])[0].numpy()
    logits = copy.deepcopy(scorer.model).double()(images).numpy()
    if made.way.score == "mean of tiles":
        return logits.mean(0)
    return np.sort(logits, axis=0)[-TOP:].mean(0)


def test_the_score_is_the_models_and_the_map_adds_up_to_it(made):
    logits = by_forward_passes(made)
    for name, result in made.all.items():
        score = float(np.dot(COEFFICIENTS[name], logits))
        ledger = result.ledger
        # float32 forward passes of tiles against float64 of all of them
        size = 1e-5 * max(1.0, np.abs(logits).max())
        assert result.logit == pytest.approx(score, abs=size), name
        known = ledger.bias + sum(ledger.constants.values()) + ledger.cut_off
        assert known + pixels_of(result).sum() == pytest.approx(score, abs=2 * size), name
        assert ledger.is_closed


def test_maps_of_differences_are_differences_of_maps(made):
    a, b, c = (pixels_of(made.all[name]) for name in "abc")
    # float32 on each side, of terms as large as the largest
    size = 2e-6 * np.abs([a, b, c]).max()
    for name, wanted in (("a - b", a - b), ("b - mean", b - (a + b + c) / 3)):
        np.testing.assert_allclose(pixels_of(made.all[name]), wanted, rtol=0, atol=size)


def test_several_targets_at_once_are_what_each_is_alone(made, tmp_path):
    for name in ("b", "a - b"):
        alone = explain_slide(
            made.slide, made.grid, made.scorer, name, out_mpp=0.5, scratch=tmp_path / name
        )
        together = made.all[name]
        # The same to the last bit, unless a pooling makes other batches of other tiles.
        size = 1e-6 * np.abs(pixels_of(alone)).max() if made.way.score == "top of tiles" else 0
        np.testing.assert_allclose(pixels_of(alone), pixels_of(together), rtol=0, atol=size)
        assert alone.logit == pytest.approx(together.logit, abs=float(size))


def test_stains_sum_to_the_map(made):
    for name, result in made.all.items():
        assert bool(result.stains) == (made.way.encoding == "stain"), name
        if not result.stains:
            continue
        parts = np.array([np.nan_to_num(part.additive.values) for part in result.stains.values()])
        total = parts.sum(0, dtype=np.float64)
        # The stains' and the map's own pixels are rounded to float32, after a sum in float32.
        size = 1e-6 * np.abs(parts).max()
        np.testing.assert_allclose(total, pixels_of(result), rtol=0, atol=size)
        whole = result.ledger.map_sum + result.ledger.cut_off
        rounding = 1e-7 * float(np.abs(parts).sum())
        assert sum(result.stain_sums.values()) == pytest.approx(whole, abs=rounding)


SOME = [Way("mean of tiles"), Way("top of tiles", vit), Way("bcos_gated_sum", vit)]


@pytest.mark.parametrize("way", SOME, ids=str)
def test_weak_tiles_that_stay_whole_change_no_sum(way, tmp_path):
    slide = made_slide(192, 132)
    grid, scorer, names = cut(slide), way.scorer(), ["a", "b - mean"]
    full, part = (
        explain_targets(
            slide, grid, scorer, names, out_mpp=0.5, detail=detail, scratch=tmp_path / str(detail)
        )
        for detail in (1.0, 0.9)
    )
    shares = [
        np.nan_to_num((each.tiles["weight"] * each.tiles["contribution"]).to_numpy())
        for each in full
    ]
    divided = {i for of_target in shares for i in strongest(of_target, 0.9)}
    for whole, some, share in zip(full, part, shares, strict=True):
        left = [i for i in range(len(grid)) if i not in divided and share[i]]
        assert left
        assert some.ledger.undivided == Undivided(
            len(left),
            pytest.approx(share[left].sum(), abs=1e-6),
            pytest.approx(np.abs(share[left]).sum(), abs=1e-6),
        )
        assert some.logit == pytest.approx(whole.logit, abs=1e-6)
        for i, tile in enumerate(grid):
            x, y = int(tile.box.x), int(tile.box.y)
            before, after = (
                each.contributions.values[y : y + SIDE, x : x + SIDE] for each in (whole, some)
            )
            # float32 pixels
            assert np.nansum(after, dtype=np.float64) == pytest.approx(share[i], abs=1e-6)
            if i in left:
                assert np.ptp(after) <= 1e-6 * np.abs(after).max()
            else:  # but for rounding in batches of other tiles
                size = 1e-6 * np.nanmax(np.abs(before), initial=0)
                np.testing.assert_allclose(before, after, rtol=0, atol=size)


def strongest(shares: np.ndarray, detail: float) -> list[int]:
    """The fewest tiles that carry so much of the sum of all absolute shares."""
    chosen: list[int] = []
    while np.abs(shares[chosen]).sum() < detail * np.abs(shares).sum():
        chosen.append(max(set(range(len(shares))) - set(chosen), key=lambda i: abs(shares[i])))
    return chosen


@pytest.mark.parametrize("way", [*SOME, Way("bcos_pooled")], ids=str)
def test_at_every_depth_the_map_has_the_same_sum(way, tmp_path):
    slide = made_slide()
    grid = cut(slide, overlap_px=8)
    sums = {}
    for depth in (*network_of(way.scorer()).depths(), "tiles"):
        if way.score.startswith("bcos") and depth == "head":
            continue  # behind the features
        scratch = tmp_path / depth
        result = explain_slide(
            slide, grid, way.scorer(depth), "a - b", out_mpp=2.9, scratch=scratch
        )
        sums[depth] = float(np.nansum(result.contributions.values, dtype=np.float64))
    assert len(sums) > 3
    # float32 backward passes of different lengths
    assert np.ptp(list(sums.values())) < 1e-5


@pytest.mark.parametrize("way", [Way("mean of tiles"), Way("bcos_pooled", vit)], ids=str)
def test_one_tile_and_tiles_over_every_edge(way, tmp_path):
    slide = made_slide(36, 24)  # lower than a tile
    grid = cut(slide, keep_edges=True)
    only = grid.select(np.array([0]))
    around = TileGrid(
        grid.spec,
        grid.source,
        np.array([-20.3, 20.1, -20.3, 20.1]),
        np.array([-21.7, -21.7, 9.9, 9.9]),
        np.ones(4),
    )
    for tiles in (only, around):
        found = explain_targets(
            slide, tiles, way.scorer(), TARGETS, out_mpp=2.9, scratch=tmp_path / str(len(tiles))
        )
        made = Made(way, way.scorer(), slide, tiles, dict(zip(TARGETS, found, strict=True)))
        test_the_score_is_the_models_and_the_map_adds_up_to_it(made)
        assert all(each.ledger.cut_off != 0 for each in found)


@pytest.mark.parametrize("way", [Way("mean of tiles"), Way("bcos_pooled")], ids=str)
def test_of_a_map_that_does_not_account_for_the_score_nothing_is_written(way, tmp_path):
    pixels = made_slide().read(Box(0, 0, 108, 60), 0.5)
    tags = {"tile": (64, 64), "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "s.tif", pixels, photometric="rgb", **tags)
    (tmp_path / "tiles").mkdir()
    with open_slide(tmp_path / "s.tif") as slide:
        cut(slide).save(tmp_path / "tiles" / "s.parquet")
    scorer = way.scorer()
    trained = SimpleNamespace(checkpoint="none", check_tiles=lambda spec, where: None)
    explainer = Explainer(scorer, trained, settings={}, words={})
    work = SlideExplainer(
        RunsChoice([]), tmp_path / "tiles", tmp_path / "out", ["a", "a - b"], 8.0, 1.0, 4,
        here=LoadedRuns(Layering([ReadyRun("run", explainer)])),
    )  # fmt: skip
    network = network_of(scorer)
    network.features.norm0 = nn.Sequential(network.features.norm0, HiddenBias())
    row = {"slide_id": "s", "path": tmp_path / "s.tif", "mpp": None}
    with pytest.raises(LedgerError, match="does not account for the score"):
        work(row)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize("pooling", ["mean of tiles", "top of tiles"])
@pytest.mark.parametrize("depth", ["pixels", "tiles"])
def test_a_network_that_is_not_finite_everywhere_is_refused(pooling, depth, tmp_path):
    scorer, slide = Way(pooling).scorer(depth), made_slide()
    scorer.model.logits = nn.Sequential(scorer.model.logits, NanForSome())
    with pytest.raises((ValueError, LedgerError), match=r"not finite|score nan"):
        explain_slide(slide, cut(slide, overlap_px=8), scorer, "a", scratch=tmp_path, gallery=0)


@pytest.mark.parametrize("name", ["bcos_pooled", "bcos_top", "max"])
def test_features_that_are_not_finite_are_refused(name, tmp_path):
    scorer, slide = Way(name).scorer(), made_slide()
    with torch.no_grad():
        next(scorer.encoder.parameters())[0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        explain_slide(slide, cut(slide), scorer, "a", scratch=tmp_path)


class HiddenBias(nn.Module):
    """Says of itself that it is a matrix times its input, and is not."""

    dynamic_linear = True

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3


class NanForSome(nn.Module):
    """Has no number for the images of a low logit."""

    dynamic_linear = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > x[:, :1].median(), x, np.nan)


def network_of(scorer: PooledLogits | AggregatedFeatures) -> nn.Module:
    return scorer.model if isinstance(scorer, PooledLogits) else scorer.encoder.model
