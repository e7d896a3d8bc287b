"""RISE on linear networks: what it converges to, and how far from there it says it is."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import zoom
from scipy.stats import spearmanr

from bcos_vit.attribution import make_method
from bcos_vit.attribution.fillings import fill
from tests.bcos_vit.attribution.networks import Linear, classifier, images

ESTIMATES = ("centred", "expectation")
TARGET = torch.tensor([1, 0])


def smooth_network(bias=0.0):
    """A linear network with weights wider than a cell of the masks."""
    model = Linear(16, bias=bias)
    coarse = model.weight.detach().numpy()[:, :, ::8, ::8]
    model.weight.data = torch.from_numpy(zoom(coarse, (1, 1, 8, 8), order=1))
    return model


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_the_ranking_is_that_of_occlusion_on_a_linear_network(estimate):
    model, batch = smooth_network(), torch.ones(1, 3, 16, 16, dtype=torch.float64)
    options = {"filling": "black", "batch_size": 512}
    occluded = make_method("occlusion", window_px=2, stride_px=1, **options)
    expected = occluded(classifier(model), batch, TARGET[:1]).maps.flatten()
    correlations = []
    for n in (50, 8000):
        method = make_method("rise", n_masks=n, cells=8, estimate=estimate, **options)
        got = method(classifier(model), batch, TARGET[:1]).maps.flatten()
        correlations.append(spearmanr(expected, got).statistic)
    assert correlations[0] < correlations[1]
    # Masks are blurred, and vary more at the border: not the same map, see the limit below.
    assert correlations[1] > 0.9


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_the_limit_on_a_linear_network(estimate):
    # Masks are m = U g of coarse grids g, whose cells are independent with variance p (1 - p): over
    # all shifts cov(m) = p (1 - p) mean(U U^T).
    p, side, cells = 0.4, 8, 2
    cell = side // cells
    grids = torch.eye(cells**2).reshape(-1, 1, cells, cells)
    wide = F.interpolate(grids, size=((cells + 1) * cell,) * 2, mode="bilinear")[:, 0].double()
    shifts = [(top, left) for top in range(cell) for left in range(cell)]
    covariance = (
        p
        * (1 - p)
        * np.mean(
            [
                (u := wide[:, y : y + side, x : x + side].flatten(1).numpy()).T @ u
                for y, x in shifts
            ],
            axis=0,
        )
    )
    model, batch = Linear(bias=-1.0), images(1)
    pixels = (model.weight[1] * batch[0]).sum(0).detach().flatten().numpy()
    expected = covariance @ pixels / (np.diag(covariance) if estimate == "centred" else p)
    method = make_method(
        "rise", n_masks=4000, cells=cells, p=p, estimate=estimate, filling="black", batch_size=500
    )
    got = method(classifier(model), batch, TARGET[:1])
    apart = (got.maps.flatten().numpy() - expected) / got.standard_error.flatten().numpy()
    assert np.abs(apart).max() < 4


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_the_standard_error_is_the_spread_over_seeds(estimate):
    model, batch = Linear(bias=-3.0), images()
    runs = [
        make_method("rise", n_masks=100, cells=3, estimate=estimate, seed=seed)(
            classifier(model), batch, TARGET
        )
        for seed in range(60)
    ]
    spread = torch.stack([run.maps for run in runs]).std(0)
    said = torch.stack([run.standard_error for run in runs]).mean(0)
    # Over 60 seeds a spread is known to 9 %, over all pixels together to much less.
    np.testing.assert_allclose((said / spread).mean(), 1, atol=0.08)
    assert ((said / spread) > 0.7).all()
    assert ((said / spread) < 1.4).all()


def test_the_centred_estimate_needs_fewer_masks_where_logits_are_far_from_zero():
    model, batch = Linear(bias=-10.0), images()
    errors = {
        estimate: make_method("rise", n_masks=400, estimate=estimate)(
            classifier(model), batch, TARGET
        ).standard_error.mean()
        for estimate in ESTIMATES
    }
    # Slopes are from hidden to seen, the expectation from the mean to seen: half as far at p = .5.
    assert errors["centred"] / 2 < 0.6 * errors["expectation"]


def test_both_estimates_against_their_formulas():
    model, batch = Linear(), images()
    for estimate in ESTIMATES:
        method = make_method("rise", n_masks=64, cells=3, estimate=estimate, p=0.4, batch_size=10)
        got = method(classifier(model), batch, TARGET)
        masks = torch.cat(list(method._masks(batch))).double().numpy()
        filled = fill("blur", batch)
        for i, label in enumerate(TARGET.tolist()):
            seen = masks[:, None] * (batch[i] - filled[i]).numpy() + filled[i].numpy()
            said = model(torch.from_numpy(seen)).detach().numpy()[:, label]
            if estimate == "centred":
                by_hand = [np.polyfit(mask, said, 1)[0] for mask in masks.reshape(64, -1).T]
            else:
                own = (said[:, None, None] * masks).sum(0) / (0.4 * 64)
                by_hand = own - said.mean()
            expected = np.reshape(by_hand, (8, 8))
            # masks are float32
            np.testing.assert_allclose(got.maps[i], expected, rtol=1e-4, atol=1e-5)


def test_masks_are_cells_of_the_right_share_moved_at_random():
    method = make_method("rise", n_masks=3000, cells=4, p=0.3, batch_size=1000)
    masks = torch.cat(list(method._masks(images(1, 16))))
    assert masks.shape == (3000, 16, 16)
    assert masks.min() >= 0
    assert masks.max() <= 1
    # 3000 masks: standard error of a pixel's share at most 0.0084
    assert (masks.mean(0) - 0.3).abs().max() < 4 * 0.0084
    near = np.corrcoef(masks[:, 8, 8], masks[:, 8, 9])[0, 1]
    far = np.corrcoef(masks[:, 8, 0], masks[:, 8, 15])[0, 1]
    assert near > 0.8
    assert abs(far) < 0.08


def test_seeds_are_kept_and_the_callers_random_state_too():
    batch = images()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, again = (
        make_method("rise", n_masks=20, seed=3)(classifier(Linear()), batch, TARGET).maps
        for _ in range(2)
    )
    other = make_method("rise", n_masks=20, seed=4)(classifier(Linear()), batch, TARGET).maps
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    method = make_method("rise", n_masks=20, seed=3, batch_size=7)
    alone = method(classifier(Linear()), batch[1:], TARGET[1:])
    torch.testing.assert_close(alone.maps, one[1:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_masks": 9}, "n_masks must be at least 10, got 9"),
        ({"p": 1.0}, r"p must be in \(0, 1\), got 1.0"),
        ({"estimate": "mean"}, "estimate must be one of"),
        ({"filling": "none"}, "filling must be one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_method("rise", **settings)
