"""Logits of bags are sums over tiles, and over the pixels of tiles."""

import numpy as np
import pytest
import torch

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain import check_explainable, explain, explanation_mode
from pathology.aggregators import AGGREGATORS, make_aggregator
from pathology.aggregators.explain import explain_bag, explain_bag_classes
from pathology.aggregators.readout import Readout
from tests.pathology.aggregators.cases import EXACT, EXACT_CASES, bag, case_name, make

exact = pytest.mark.parametrize("case", EXACT_CASES, ids=case_name)


def magnitude(explanation):
    """What roundings are relative to."""
    return float(explanation.contributions.abs().sum()) + abs(explanation.logit)


@exact
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_tiles_sum_to_the_logit(case, dtype, tolerance):
    """In float32 each of some hundred roundings is 6e-8 of what is summed."""
    model, tiles = make(case[0], dtype=dtype, **case[1]), bag(40, dtype=dtype)
    for target, found in enumerate(explain_bag_classes(model, tiles)):
        assert found.target == target
        assert found.completeness_gap <= tolerance * magnitude(found)
        total = found.bias + sum(found.constants.values())
        total += float((found.weights * tiles).double().sum())
        logit = float(model(tiles[None])[0, target].detach())
        assert abs(total - logit) <= tolerance * magnitude(found)
        if case[0].startswith("bcos"):
            assert found.bias == -2.5
            assert found.constants == {}
        # A sum that holds of zeros only would say nothing.
        assert float(found.contributions.abs().sum()) > 10 * tolerance


@exact
def test_tiles_sum_to_the_logit_of_a_bag_of_one(case):
    model = make(case[0], **case[1])
    found = explain_bag(model, bag(1), 1)
    assert found.completeness_gap <= 1e-12 * magnitude(found)


@exact
def test_a_tile_scaled_keeps_its_direction(case):
    """W(x) is a matrix at x, not the slope: contributions are not those of the plain gradient."""
    if not case[0].startswith("bcos"):
        pytest.skip("linear in the features once attention is held")
    model, tiles = make(case[0], **case[1]), bag()
    leaf = tiles.clone().requires_grad_()
    model(leaf[None])[0, 0].backward()
    plain = (leaf.grad * tiles).sum(1)
    found = explain_bag(model, tiles, 0)
    assert float((plain - found.contributions).abs().max()) > 1e-3 * magnitude(found)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def norm(x, weight):
    """By loops over nothing: one vector at a time."""
    centred = x - x.mean()
    return centred / np.sqrt(centred.var() + 1e-5) * weight


def bcos_matrix(x, weight):
    rows = unit(weight)
    return np.abs(rows @ x)[:, None] / np.linalg.norm(x) * rows


def scores(model, tiles):
    p = {name: value.detach().numpy() for name, value in model.scorer.named_parameters()}
    half = len(p["weight"]) // 2
    found = []
    for h in tiles:
        x = norm(h, 1.0)
        v = np.tanh(p["weight"][:half] @ x + p["bias"][:half])
        u = 1 / (1 + np.exp(-(p["weight"][half:] @ x + p["bias"][half:])))
        found.append(float((p["out_weight"] @ (v * u) + p.get("out_bias", 0))[0]))
    return np.array(found)


@pytest.mark.parametrize("name", ["bcos_mean", "bcos_attention", "bcos_gated_sum"])
def test_contributions_of_local_logits_by_hand(name):
    model, tiles = make(name, layers=0, max_out=1), bag(7).numpy()
    gamma = model.tile[0].weight.detach().numpy()
    weight, gain = model.tile[2].weight.detach().numpy(), model.tile[3].gamma.detach().numpy()
    if name == "bcos_mean":
        shares = np.full(7, 1 / 7)
    elif name == "bcos_attention":
        shares = np.exp(scores(model, tiles))
        shares /= shares.sum()
    else:
        shares = float(model.scale) / (1 + np.exp(-scores(model, tiles)))
    expected = []
    for share, h in zip(shares, tiles, strict=True):
        x = norm(h, gamma)
        expected.append(share * gain[1] * (bcos_matrix(x, weight) @ x)[1] / 1.5)
    found = explain_bag(model, torch.from_numpy(tiles), 1)
    np.testing.assert_allclose(found.contributions.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_contributions_of_pooled_features_by_hand():
    model, tiles = make("bcos_pooled", max_out=1), bag(7).numpy()
    shares = np.exp(scores(model, tiles))
    shares /= shares.sum()
    before, weight, after = (model.tile[i].weight.detach().numpy() for i in (0, 2, 3))
    entered = [norm(h, before) for h in tiles]
    normed = np.stack([norm(bcos_matrix(x, weight) @ x, after) for x in entered])
    pooled = shares @ normed
    x = norm(pooled, model.bag[0].weight.detach().numpy())
    row = bcos_matrix(x, model.bag[2].weight.detach().numpy())[2]
    row = row * float(model.bag[3].gamma[2].detach()) / 1.5 * model.bag[0].weight.detach().numpy()
    # The norm of what is pooled, as a matrix: centring, then a number.
    scale = 1 / np.sqrt(pooled.var() + 1e-5)
    expected = [a * row @ ((h - h.mean()) * scale) for a, h in zip(shares, normed, strict=True)]
    found = explain_bag(model, torch.from_numpy(tiles), 2)
    np.testing.assert_allclose(found.contributions.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_local_logits_that_do_not_count_contribute_nothing():
    model, tiles = make("bcos_top", k=3), bag(20)
    assert int((explain_bag(model, tiles, 0).contributions != 0).sum()) == 3


@pytest.fixture(params=["vit", "resnet", "vit_sincos"])
def encoder(request, make_vit, make_resnet):
    """Encoder and six images for it, float64."""
    if request.param == "resnet":
        return make_resnet(num_classes=0), torch.rand(6, 6, 12, 12, dtype=torch.float64)
    options = {"pos_embed": "sincos"} if request.param == "vit_sincos" else {}
    return make_vit(num_classes=0, **options), torch.rand(6, 6, 4, 4, dtype=torch.float64)


@exact
def test_pixels_sum_to_tiles_and_streaming_is_the_whole_graph(case, encoder):
    network, images = encoder
    with torch.no_grad():
        features = network(images)
    model = make(case[0], in_features=features.shape[1], **case[1])
    found = explain_bag(model, features, 1)
    maps, positions = [], []
    for i in range(len(images)):  # one tile in memory at a time
        tile = explain(Readout(network, found.weights[i : i + 1]), images[i : i + 1], target=0)
        position = float(tile.constants.get("position", 0.0))
        positions.append(position)
        gap = float(tile.contributions.sum()) + position - float(found.contributions[i])
        assert abs(gap) <= 1e-12 * magnitude(found)
        assert float(tile.completeness_gap) <= 1e-12 * magnitude(found)
        maps.append(tile.contributions[0])
    assert any(positions) == (getattr(network, "pos_embed", None) is not None)
    leaf = images.clone().requires_grad_()
    with explanation_mode():
        logit = model(network(leaf)[None])[0, 1]
    (whole,) = torch.autograd.grad(logit, leaf)
    expected = (whole * images).sum(1)
    torch.testing.assert_close(
        torch.stack(maps), expected, rtol=0, atol=1e-12 * float(expected.abs().max() + 1)
    )


def test_readout_stops_at_a_depth_of_the_encoder(make_vit):
    network, images = make_vit(num_classes=0), torch.rand(3, 6, 4, 4, dtype=torch.float64)
    weights = torch.randn(3, 8, dtype=torch.float64)
    expected = (network(images) * weights).sum(1).detach()
    for depth in network.depths():
        found = explain(Readout(network, weights), images, target=0, depth=depth)
        total = found.contributions.sum((1, 2))
        torch.testing.assert_close(total, expected, rtol=0, atol=1e-12)


def test_readout_refuses_weights_of_other_tiles(make_vit):
    network = make_vit(num_classes=0)
    with pytest.raises(ValueError, match=r"features must be \(2, 8\) as weights are"):
        Readout(network, torch.zeros(2, 8))(torch.rand(3, 6, 4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="weights must be"):
        Readout(network, torch.zeros(8))


def test_readout_refuses_what_cannot_be_explained():
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4), torch.nn.Sigmoid())
    with pytest.raises(NotExplainableError, match="encoder"):
        explain(Readout(plain, torch.zeros(1, 4)), torch.rand(1, 3, 2, 2), target=0)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_the_check_knows_exact_ones(name):
    model = make(name)
    if name in EXACT:
        check_explainable(model)
    else:
        with pytest.raises(NotExplainableError):
            check_explainable(model)


def test_dropout_is_not_explained():
    model = make("bcos_mean", drop=0.2).train()
    with pytest.raises(NotExplainableError, match=r"call model.eval"):
        explain_bag(model, bag(), 0)


@exact
def test_contexts_of_the_caller_do_not_matter(case):
    model, tiles = make(case[0], dtype=torch.float32, **case[1]), bag(dtype=torch.float32)
    before = tiles.clone()
    expected = explain_bag(model, tiles, 0)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = explain_bag(model, tiles, 0)
    torch.testing.assert_close(found.contributions, expected.contributions, rtol=0, atol=0)
    torch.testing.assert_close(found.weights, expected.weights, rtol=0, atol=0)
    assert torch.equal(tiles, before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_outputs_in_the_order_asked_for():
    model, tiles = make("bcos_transformer"), bag()
    for target, found in zip([2, 0], explain_bag_classes(model, tiles, [2, 0]), strict=True):
        expected = explain_bag(model, tiles, target)
        torch.testing.assert_close(found.weights, expected.weights, rtol=0, atol=0)
        torch.testing.assert_close(found.logits, model(tiles[None])[0], rtol=0, atol=1e-12)


def test_features_of_half_precision_are_taken_as_they_are():
    model, tiles = make("bcos_pooled", dtype=torch.float32), bag(dtype=torch.float16)
    expected = explain_bag(model, tiles.float(), 0)
    assert explain_bag(model, tiles, 0).logit == expected.logit


@pytest.mark.parametrize(
    ("features", "target", "error", "message"),
    [
        (torch.zeros(3, 11), 0, ValueError, r"features must be \(tiles, 12\), got \(3, 11\)"),
        (torch.zeros(1, 3, 12), 0, ValueError, r"features must be \(tiles, 12\)"),
        (torch.full((3, 12), torch.nan), 0, ValueError, "NaN or infinite"),
        (torch.zeros(3, 12, dtype=torch.int64), 0, TypeError, "floating point"),
        (torch.zeros(3, 12, dtype=torch.float64), 0, TypeError, "wider than the aggregator's"),
        (torch.zeros(3, 12), 3, ValueError, r"target must be in \[0, 3\), got 3"),
        (torch.zeros(3, 12), -1, ValueError, r"target must be in \[0, 3\), got -1"),
    ],
)
def test_bags_that_do_not_fit_are_refused(features, target, error, message):
    with pytest.raises(error, match=message):
        explain_bag(make("bcos_mean", dtype=torch.float32), features, target)


def test_the_scale_of_features_does_not_matter():
    """Encoders' features differ in length by orders of magnitude."""
    for name in EXACT:
        if name.startswith("bcos"):
            model, tiles = make_aggregator(name, 12, 2).double().eval(), bag()
            torch.testing.assert_close(
                model(tiles[None] * 1000), model(tiles[None]), rtol=1e-4, atol=1e-4
            )
