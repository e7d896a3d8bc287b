"""Members of a mean: shifted grids, several models, one target for all."""

import numpy as np
import pytest
import torch

from bcos_vit.models import BcosDenseNet, create_model
from bcos_vit.models.dense import Dense
from pathology.aggregators.registry import make_aggregator
from pathology.data.encoders import PooledFeatures
from pathology.errors import LedgerError, NoTissueError
from pathology.explain.layers.explain import explain_layers
from pathology.explain.layers.members import Member, shifted, shifts
from pathology.explain.layers.random_weights import norms
from pathology.explain.scorers.aggregated_features import AggregatedFeatures
from pathology.explain.scorers.dense_logits import DenseLogits
from pathology.explain.scorers.pooled_logits import PooledLogits
from pathology.explain.scorers.pooling import TopPooling
from pathology.explain.slide import explain_slide, explain_targets
from pathology.geometry import Box
from pathology.slides import MemorySlide
from pathology.tasks.encoding import TileEncoding
from pathology.tiling import TileSpec, tile_slide

CLASSES = ["normal", "tumour"]


def small_cnn(outputs=2):
    """With batch norms, and quick."""
    return BcosDenseNet(growth_rate=8, block_config=(2, 1), num_classes=outputs).eval()


def scorer(seed=0, name=None, classes=CLASSES, bias=None, encoding="complement", **options):
    torch.manual_seed(seed)
    if name is None:
        model = small_cnn(len(classes))
    else:
        model = create_model(name, num_classes=len(classes), encoding=encoding, depth=2).eval()
    if bias is not None:
        model.logits.bias.copy_(torch.tensor(bias))
    return PooledLogits(model, TileEncoding(model), classes, **options)


@pytest.fixture
def slide(rng):
    return MemorySlide(
        rng.integers(0, 256, (150, 170, 3), dtype=np.uint8), mpp=(0.5, 0.41),
        bounds=Box(11, 7, 150, 140),
    )  # fmt: skip


@pytest.fixture
def grid(slide):
    spec = TileSpec(size_px=32, mpp=0.53, min_tissue=0.0)
    return tile_slide(slide, spec)


# --- shifted tiles


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13])
def test_shifts_are_spread_evenly(count):
    found = np.array(shifts(count))
    assert tuple(found[0]) == (0, 0)
    assert found.shape == (count, 2)
    assert ((found >= -0.5) & (found < 0.5)).all()
    apart = found[:, None] - found[None]
    distance = np.hypot(*np.moveaxis(apart - np.rint(apart), -1, 0))
    least = distance[~np.eye(count, dtype=bool)].min() if count > 1 else 1
    # Points of the best lattice there is are no further apart than (2 / (sqrt(3) n))^(1/2).
    assert least > 0.65 * np.sqrt(2 / (np.sqrt(3) * count))
    assert shifts(count) == shifts(count)


def test_no_shift_is_an_error():
    with pytest.raises(ValueError, match="at least 1"):
        shifts(0)


def test_tiles_move_together_by_whole_pixels_of_theirs(slide, grid):
    moved = shifted(grid, (0.25, -1 / 3))
    x, y = moved.x - grid.x, moved.y - grid.y
    assert np.ptp(x) < 1e-9
    # 8 and -11 px at 0.53 um/px, in level-0 px of 0.5 and 0.41 um.
    assert x[0] == pytest.approx(8 * 0.53 / 0.5)
    assert y[0] == pytest.approx(-11 * 0.53 / 0.41)
    assert shifted(grid, (0, 0)).boxes().tolist() == grid.boxes().tolist()


# --- means


def jittered(grid, one, count):
    return [Member(f"shift {share}", one, shifted(grid, share)) for share in shifts(count)]


def test_the_mean_over_shifts_is_that_of_explanations_by_themselves(slide, grid, tmp_path):
    one = scorer()
    members = jittered(grid, one, 3)
    (mean,) = explain_layers(slide, members, ["tumour"], scratch=tmp_path / "mean", out_mpp=1.9)
    alone = [
        explain_slide(slide, m.grid, one, "tumour", scratch=tmp_path / str(i), out_mpp=1.9)
        for i, m in enumerate(members)
    ]
    assert mean.logit == pytest.approx(np.mean([each.logit for each in alone]), abs=1e-12)
    stack = np.stack([each.contributions.values for each in alone]).astype(np.float64)
    wanted = np.nan_to_num(stack).mean(0).astype(np.float32)
    assert np.array_equal(np.nan_to_num(mean.contributions.values), wanted)
    assert np.isnan(mean.contributions.values).sum() == np.isnan(stack).all(0).sum()
    # Tiles that were moved over the edge: what they contribute there is told.
    assert mean.ledger.cut_off != 0
    assert mean.ledger.is_closed
    assert [each["score"] for each in mean.told["members"]] == [each.logit for each in alone]
    assert mean.told["members"][1]["ledger"] == alone[1].ledger.to_dict()
    assert set(mean.layers) == {"spread", "agreement", "members"}
    assert mean.layers["members"].values.max() == 3


def test_sums_over_the_tiles_of_all_members_are_the_means(slide, grid, tmp_path):
    members = jittered(grid, scorer(pooling=TopPooling(5)), 2)
    (mean,) = explain_layers(slide, members, ["tumour"], scratch=tmp_path)
    tiles, ledger = mean.tiles, mean.ledger
    assert len(tiles) == 2 * len(grid)
    assert tiles["member"].value_counts().tolist() == [len(grid), len(grid)]
    used = tiles[tiles["weight"] > 0]
    assert len(used) == 10
    assert used["weight"].sum() == pytest.approx(1)
    on_map = (used["weight"] * used["contribution"]).sum()
    # Storage in float32.
    assert on_map == pytest.approx(ledger.map_sum + ledger.cut_off, abs=1e-7)
    assert (used["weight"] * used["logit_tumour"]).sum() == pytest.approx(mean.logit, abs=1e-6)
    shown = mean.tiles_for + mean.tiles_against
    first = tiles[(tiles["member"] == 0) & (tiles["weight"] > 0)]
    shares = (first["weight"] * first["contribution"]).to_numpy()
    assert shown
    for tile in shown:
        assert np.abs(shares - tile.contribution).min() < 1e-9


def test_a_mean_of_models_closes_against_the_mean_score(slide, grid, tmp_path):
    ours = [scorer(seed, bias=[-3.0, -3.0 + seed]) for seed in range(3)]
    members = [Member(f"run {i}", each, grid) for i, each in enumerate(ours)]
    first, difference = explain_layers(
        slide, members, ["normal", "tumour - normal"], scratch=tmp_path
    )
    assert first.ledger.bias == pytest.approx(-3)
    assert difference.ledger.bias == pytest.approx(1)
    assert difference.ledger.gap < 1e-6
    assert difference.target == "tumour - normal"
    sizes = np.abs(np.nan_to_num(difference.contributions.values))
    agreed = sizes[difference.layers["agreement"].values == 1].sum() / sizes.sum()
    # The mean map is stored in float32.
    assert difference.told["share_where_all_agree"] == pytest.approx(agreed, rel=1e-5, abs=1e-12)


def test_one_target_is_chosen_for_all_by_the_mean_score(slide, grid, tmp_path):
    # Two prefer the first class by little, one the second by much.
    biases = [[-3.0, -3.4], [-3.0, -3.4], [-3.0, -1.0]]
    members = [Member(f"run {i}", scorer(i, bias=bias), grid) for i, bias in enumerate(biases)]
    alone = [explain_slide(slide, grid, m.scorer, scratch=tmp_path / m.name) for m in members]
    assert [each.target for each in alone] == ["normal", "normal", "tumour"]
    (mean,) = explain_layers(slide, members, scratch=tmp_path / "mean")
    assert mean.target == "tumour"
    assert mean.logit == pytest.approx(
        np.mean([each.tiles["logit_tumour"].mean() for each in alone]), abs=1e-6
    )


def test_members_of_other_classes_are_refused(slide, grid):
    other = scorer(classes=["tumour", "normal"])
    members = [Member("one", scorer(), grid), Member("two", other, grid)]
    with pytest.raises(ValueError, match="one has normal, tumour; two has tumour, normal"):
        explain_layers(slide, members)
    with pytest.raises(ValueError, match="at least one member"):
        explain_layers(slide, [])


def test_stains_are_averaged_where_all_members_tell_them(slide, grid, tmp_path):
    vit = {"name": "bcos_vit_tiny_patch16_224", "encoding": "stain"}
    members = [Member(f"run {i}", scorer(i, **vit), grid) for i in range(2)]
    (mean,) = explain_layers(slide, members, ["tumour"], scratch=tmp_path / "a")
    total = sum(np.nan_to_num(part.additive.values) for part in mean.stains.values())
    # float32, in each of three maps and in their sum
    assert np.allclose(total, np.nan_to_num(mean.contributions.values), atol=1e-7)
    on_map = mean.ledger.map_sum + mean.ledger.cut_off
    assert sum(mean.stain_sums.values()) == pytest.approx(on_map, abs=1e-6)
    members[1] = Member("in colour", scorer(1, name=vit["name"]), grid)
    (mixed,) = explain_layers(slide, members, ["tumour"], scratch=tmp_path / "b")
    assert mixed.stains == {}
    assert "in colour" in mixed.told["stains_left_out"]


def test_a_slide_without_tiles_has_no_mean(slide, grid, tmp_path):
    empty = grid.select(np.arange(0))
    members = [Member(name, scorer(), empty) for name in ("one", "two")]
    with pytest.raises(NoTissueError, match="no tiles"):
        explain_layers(slide, members, scratch=tmp_path)


# --- nulls


def test_a_map_is_held_against_nulls_of_the_first_member(slide, grid, tmp_path):
    one = scorer()
    state = {name: value.clone() for name, value in one.model.state_dict().items()}
    modes = [(norm.training, norm.momentum) for norm in norms(one.model)]
    drawn = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    said = []

    def progress(batches, total, what):
        said.append(what)
        return batches

    members = jittered(grid, one, 2)
    (found,) = explain_layers(
        slide, members, seeds=[0, 1], scratch=tmp_path, progress=progress, batch_size=7
    )
    null = found.told["null"]
    assert null["of"] == members[0].name
    assert null["randomised"] == ["model"]
    assert [each["seed"] for each in null["nulls"]] == [0, 1]
    assert all(each["ledger"]["is_closed"] for each in null["nulls"])
    assert null["nulls"][0]["score"] != null["nulls"][1]["score"]
    assert {"spread", "null_mean", "null_spread", "null_z", "null_p"} <= set(found.layers)
    assert found.layers["null_z"].values.shape == found.contributions.values.shape
    assert any("null 2" in what for what in said)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert [(norm.training, norm.momentum) for norm in norms(one.model)] == modes
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert np.random.get_state()[1].tolist() == drawn[1]  # noqa: NPY002
    # Of maps that others were made of, nothing is left.
    assert [each.name for each in tmp_path.iterdir()] == ["mean0"]


def test_nulls_do_not_depend_on_the_size_of_batches(slide, grid, tmp_path):
    # Batch norms are fitted on batches.
    members = [Member("run", scorer(), grid)]
    first, other = (
        explain_layers(
            slide, members, ["tumour"], seeds=[0, 1], scratch=tmp_path / f"{size}", batch_size=size
        )[0].told["null"]["nulls"]
        for size in (3, 16)
    )
    for one, two in zip(first, other, strict=True):
        # Not nothing, and the same up to float32.
        assert abs(one["score"] - one["ledger"]["bias"]) > 1e-4
        assert one["score"] == pytest.approx(two["score"], abs=1e-6)


def test_a_null_that_does_not_add_up_says_so(slide, grid, tmp_path, monkeypatch):
    from pathology.explain.layers import explain

    def broken(slide, grid, scorer, *args, **options):
        if "part1" in str(options["scratch"]):
            raise LedgerError("the map does not account for the score")
        return explain_targets(slide, grid, scorer, *args, **options)

    monkeypatch.setattr(explain, "explain_targets", broken)
    with pytest.raises(LedgerError, match="null 1: the map does not account"):
        explain_layers(
            slide, [Member("run", scorer(), grid)], ["tumour"], seeds=[0, 1], scratch=tmp_path
        )


def of_slides():
    """An aggregator behind an encoder with batch norms."""
    torch.manual_seed(0)
    model = small_cnn()
    features = PooledFeatures(model).eval()
    aggregator = make_aggregator("bcos_pooled", features.dims, 2).eval()
    return AggregatedFeatures(features, TileEncoding(model), aggregator, CLASSES)


def of_blocks():
    """A dense model, explained in blocks of tiles."""
    torch.manual_seed(0)
    network = small_cnn()
    return DenseLogits(Dense(network), TileEncoding(network), CLASSES, block_tiles=2)


@pytest.mark.parametrize("make", [of_slides, of_blocks])
def test_slide_models_and_dense_models_have_members_and_nulls(slide, grid, make, tmp_path):
    one = make()
    modules = {name: module for name, module in vars(one).items() if hasattr(module, "parameters")}
    state = {
        (name, key): value.clone()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
        if hasattr(value, "clone")
    }
    members = jittered(grid, one, 2)
    (found,) = explain_layers(slide, members, seeds=[0, 1], scratch=tmp_path, out_mpp=1.9)
    alone = [
        explain_slide(slide, m.grid, one, found.target, scratch=tmp_path / m.name, out_mpp=1.9)
        for m in members
    ]
    assert found.logit == pytest.approx(np.mean([each.logit for each in alone]), abs=1e-12)
    null = found.told["null"]
    assert null["randomised"] == (["encoder", "aggregator"] if make is of_slides else ["model"])
    assert all(each["ledger"]["is_closed"] for each in null["nulls"])
    assert min(null["mass"]) > 0
    on_map = found.layers["null_z"].values[np.isfinite(alone[0].contributions.values)]
    assert np.isfinite(on_map).mean() > 0.9
    for (name, key), value in state.items():
        assert torch.equal(modules[name].state_dict()[key], value), (name, key)


def test_the_same_seeds_are_the_same_nulls(slide, grid, tmp_path):
    members = [Member("run", scorer(name="bcos_vit_tiny_patch16_224"), grid)]
    first, again = (
        explain_layers(slide, members, ["tumour"], seeds=[0, 1], scratch=tmp_path / name)[0]
        for name in "ab"
    )
    assert first.told == again.told
    assert np.array_equal(
        first.layers["null_z"].values, again.layers["null_z"].values, equal_nan=True
    )


def test_a_single_null_is_refused(slide, grid):
    with pytest.raises(ValueError, match="at least 2"):
        explain_layers(slide, [Member("run", scorer(), grid)], seeds=[0])
