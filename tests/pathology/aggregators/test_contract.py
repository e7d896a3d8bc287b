"""What holds for every aggregator, ours and baselines."""

import pytest
import torch

from bcos_vit.errors import NotExplainableError
from pathology.aggregators import AGGREGATORS, make_aggregator
from pathology.aggregators.explain import explain_bag
from tests.pathology.aggregators.cases import EXACT, EXACT_CASES, bag, case_name, make

CASES = EXACT_CASES + [(name, {}) for name in AGGREGATORS if name not in EXACT]
every = pytest.mark.parametrize("case", CASES, ids=case_name)


@every
def test_absent_tiles_change_nothing_whatever_they_hold(case):
    model = make(case[0], **case[1])
    bags = [bag(5), bag(9), bag(1)]
    features = torch.full((3, 9, 12), torch.nan, dtype=torch.float64)
    present = torch.zeros(3, 9, dtype=torch.bool)
    for row, tiles in enumerate(bags):
        # Padding lies anywhere, not only behind; TransMIL goes by the order of tiles.
        places = torch.randperm(9)[: len(tiles)].sort().values
        features[row, places] = tiles
        present[row, places] = True
    expected = torch.cat([model(tiles[None]) for tiles in bags])
    found = model(features, present)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = model.attention(features, present)
    if weights is not None:
        assert (weights[~present] == 0).all()
        assert (weights >= 0).all()
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@every
def test_the_order_of_tiles_does_not_matter(case):
    if case[0] == "transmil":
        pytest.skip("TransMIL's convolutional position code goes by the order of tiles")
    model, tiles = make(case[0], **case[1]), bag()
    order = torch.randperm(len(tiles))
    torch.testing.assert_close(model(tiles[None, order]), model(tiles[None]), rtol=0, atol=1e-12)
    weights = model.attention(tiles[None])
    if weights is not None:
        turned = model.attention(tiles[None, order])
        torch.testing.assert_close(turned, weights[:, order], rtol=0, atol=1e-12)


@every
def test_a_bag_without_tiles_holds_no_evidence(case):
    model = make(case[0], **case[1])
    features, nobody = bag(4)[None], torch.zeros(1, 4, dtype=torch.bool)
    found = model(features, nobody)
    assert torch.isfinite(found).all()
    assert model(features[:0], nobody[:0]).shape == (0, 3)
    empty = features[:, :0], nobody[:, :0]
    if case[0] != "additive":  # the classifier of a tile has biases
        torch.testing.assert_close(model(*empty), found, rtol=0, atol=1e-12)
    weights = model.attention(*empty)
    assert weights is None or weights.shape == (1, 0)
    if case[0].startswith("bcos"):
        torch.testing.assert_close(found, torch.full_like(found, -2.5), rtol=0, atol=0)


@every
def test_weights_are_stored_whole(case):
    model, features = make(case[0], **case[1]), bag()[None]
    other = make_aggregator(case[0], 12, 3, **_size(case)).double().eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(features), model(features), rtol=0, atol=0)


def _size(case):
    """What weights do not tell; bias, temperature and expected tiles come with them."""
    small = {"hidden": 16} if case[0].startswith("bcos") else {}
    if case[0] == "bcos_transformer":
        small = {"dim": 16, "num_heads": 4}
    return small | {key: value for key, value in case[1].items() if key != "expected_tiles"}


@every
def test_half_precision_is_near(case):
    model, features = make(case[0], dtype=torch.float32, **case[1]), bag(dtype=torch.float32)[None]
    with torch.autocast("cpu", torch.bfloat16):
        found = model(features)
    assert found.dtype == torch.float32
    # bfloat16 has 8 bits; logits here are of order one, through up to twenty layers.
    torch.testing.assert_close(found.float(), model(features), rtol=0.1, atol=0.15)


@every
def test_a_batch_is_its_bags(case):
    model, features = make(case[0], **case[1]), torch.stack([bag(), bag()])
    alone = torch.cat([model(features[:1]), model(features[1:])])
    torch.testing.assert_close(model(features), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in AGGREGATORS if name not in EXACT])
def test_what_is_no_sum_is_not_explained(name):
    model, tiles = make(name), bag()
    if model.tile_contributions(tiles[None]) is None:
        with pytest.raises(NotExplainableError, match=r"no sum over tiles.*removal effects"):
            explain_bag(model, tiles, 0)
    else:
        found = explain_bag(model, tiles, 0)
        assert found.weights is None
        assert not found.contributions.requires_grad
        assert found.completeness_gap <= 1e-12


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'bcos_pooled'"):
        make_aggregator("bcos_poold", 8, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4, 12),), r"features must be \(bags, tiles, 12\), got \(4, 12\)"),
        ((torch.zeros(2, 4, 11),), r"features must be \(bags, tiles, 12\)"),
        ((torch.zeros(2, 4, 12), torch.ones(2, 5, dtype=torch.bool)), r"present must be \(2, 4\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make("bcos_mean", dtype=torch.float32)(*arguments)


def test_present_is_bool():
    with pytest.raises(TypeError, match="present must be bool"):
        make("bcos_mean", dtype=torch.float32)(torch.zeros(2, 4, 12), torch.ones(2, 4))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bcos_mean", {"layers": -1}, "layers must be"),
        ("bcos_top", {"k": 0}, "k must be"),
        ("bcos_top", {"share": 1.5}, "share in"),
        ("bcos_attention", {"attention_hidden": 0}, "attention_hidden must be"),
        ("bcos_gated_sum", {"expected_tiles": 0.0}, "expected_tiles must be"),
        ("bcos_transformer", {"dim": 10, "num_heads": 4}, "num_heads must divide"),
        ("bcos_transformer", {"depth": -1}, "depth must be"),
    ],
)
def test_options_that_make_no_sense_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_aggregator(name, 8, 2, **options)
