"""Baselines are the formulas of their papers: slow re-implementations in float64, tile by tile."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bcos_vit.layers import explanation_mode
from pathology.aggregators import make_aggregator
from pathology.aggregators.clam import smooth_svm

BASELINES = ["abmil", "abmil_linear", "additive", "clam", "transmil", "mean", "max"]
EXACT = ["abmil_linear", "mean", "max"]
SMALL = {
    "abmil": {"hidden": 6, "attention_hidden": 4},
    "abmil_linear": {"attention_hidden": 4},
    "additive": {"hidden": 6, "attention_hidden": 4},
    "clam": {"hidden": 6, "attention_hidden": 4, "clustered": 2},
    "transmil": {"hidden": 8, "heads": 2},
}


def make(name, outputs=3, **options):
    model = make_aggregator(name, 5, outputs, **SMALL.get(name, {}), **options).double().eval()
    with torch.no_grad():  # no bias at 0, no attention that hardly attends
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    return model


@pytest.fixture
def features():
    return torch.randn(4, 7, 5, dtype=torch.float64)


@pytest.fixture
def present():
    counts = torch.tensor([7, 3, 1, 5])
    there = torch.arange(7) < counts[:, None]
    there[3] = there[3].flip(0)  # gaps may be anywhere
    return there


def gated_scores(attention, h):
    """Ilse et al., equation 9, of one tile."""
    v, u = attention.value, attention.gate
    gate = 1 / (1 + torch.exp(-(u.weight @ h + u.bias)))
    hidden = torch.tanh(v.weight @ h + v.bias) * gate
    return attention.score.weight @ hidden + attention.score.bias


def linear_scores(scorer, h):
    """The same of features brought to mean 0 and deviation 1 (eps as in layer norm)."""
    x = (h - h.mean()) / (h.var(unbiased=False) + 1e-5).sqrt()
    value, gate = (scorer.weight @ x + scorer.bias).chunk(2)
    return scorer.out_weight @ (torch.tanh(value) / (1 + torch.exp(-gate)))


def normalised(scores):
    weights = torch.exp(torch.stack(scores))
    return weights / weights.sum(0)


def embedded(model, bag):
    layer = model.embed[0]
    return [(layer.weight @ h + layer.bias).clamp_min(0) for h in bag]


def two_layers(classifier, x):
    hidden = (classifier[0].weight @ x + classifier[0].bias).clamp_min(0)
    return classifier[2].weight @ hidden + classifier[2].bias


def slow_abmil(model, bag):
    tiles = embedded(model, bag)
    a = normalised([gated_scores(model.scores, e) for e in tiles])
    return two_layers(model.classifier, sum(w * e for w, e in zip(a, tiles, strict=True)))


def slow_abmil_linear(model, bag):
    a = normalised([linear_scores(model.scores, h) for h in bag])
    return sum(w * (model.classifier.weight @ h) for w, h in zip(a, bag, strict=True)) + (
        model.classifier.bias
    )


def slow_additive(model, bag):
    tiles = embedded(model, bag)
    a = normalised([gated_scores(model.scores, e) for e in tiles])
    return sum(two_layers(model.classifier, w * e) for w, e in zip(a, tiles, strict=True))


def slow_clam(model, bag):
    tiles = embedded(model, bag)
    a = normalised([gated_scores(model.scores, e) for e in tiles])
    logits = []
    for c in range(model.outputs):
        pooled = sum(w[c] * e for w, e in zip(a, tiles, strict=True))
        logits.append(model.weight[c] @ pooled + model.bias[c])
    return torch.stack(logits)


def slow_attention(layer, tokens):
    """Multi-head self-attention token by token; its weights from the first token, too."""
    d = tokens.shape[1] // layer.heads
    normed = torch.stack([F.layer_norm(t, t.shape, layer.norm.weight, layer.norm.bias)
                          for t in tokens])  # fmt: skip
    q, k, v = (normed @ layer.queries_keys_values.weight.T).chunk(3, 1)
    out, first = [], torch.zeros(len(tokens), dtype=tokens.dtype)
    for i in range(len(tokens)):
        heads = []
        for head in range(layer.heads):
            part = slice(head * d, (head + 1) * d)
            w = torch.exp(k[:, part] @ q[i, part] / math.sqrt(d))
            w = w / w.sum()
            heads.append(w @ v[:, part])
            first = first + (w / layer.heads if i == 0 else 0)
        out.append(layer.out.weight @ torch.cat(heads) + layer.out.bias)
    return tokens + torch.stack(out), first


def slow_square(module, tokens, side):
    """Depth-wise convolutions as sums over neighbours, zeros outside."""
    square = tokens[1:].view(side, side, -1)
    coded = square.clone()
    for layer in module.convolutions:
        size = layer.kernel_size[0]
        for y in range(side):
            for x in range(side):
                coded[y, x] += layer.bias
                for i in range(size):
                    for j in range(size):
                        yy, xx = y + i - size // 2, x + j - size // 2
                        if 0 <= yy < side and 0 <= xx < side:
                            coded[y, x] += layer.weight[:, 0, i, j] * square[yy, xx]
    return torch.cat([tokens[:1], coded.reshape(side * side, -1)])


def slow_tokens(model, bag):
    tiles = embedded(model, bag)
    side = math.ceil(math.sqrt(len(tiles)))
    tiles += tiles[: side * side - len(tiles)]
    tokens, _ = slow_attention(model.first, torch.stack([model.token, *tiles]))
    return slow_square(model.position, tokens, side)


def slow_transmil(model, bag):
    tokens, _ = slow_attention(model.second, slow_tokens(model, bag))
    last = F.layer_norm(tokens[0], tokens[0].shape, model.norm.weight, model.norm.bias)
    return model.classifier.weight @ last + model.classifier.bias


def slow_mean(model, bag):
    return model.classifier.weight @ bag.mean(0) + model.classifier.bias


def slow_max(model, bag):
    return model.classifier.weight @ bag.amax(0) + model.classifier.bias


@pytest.mark.parametrize("name", BASELINES)
def test_logits_follow_the_formula_of_the_tiles_there_are(name, features, present):
    model = make(name)
    slow = globals()[f"slow_{name}"]
    with torch.no_grad():
        found = model(features, present)
        expected = torch.stack(
            [slow(model, bag[t]) for bag, t in zip(features, present, strict=True)]
        )
        whole = torch.stack([slow(model, bag) for bag in features])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(model(features), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", BASELINES)
def test_what_absent_tiles_hold_changes_nothing(name, features, present):
    model = make(name)
    other = features.masked_fill(~present[..., None], torch.nan)
    longer = F.pad(features, (0, 0, 0, 3), value=5.0)
    expected = model(features, present)
    assert torch.equal(model(other, present), expected)
    found = model(longer, F.pad(present, (0, 3)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", BASELINES)
def test_a_bag_without_tiles_has_finite_logits_and_gradients(name):
    model = make(name).train()
    features = torch.randn(2, 4, 5, dtype=torch.float64)
    present = torch.tensor([[True] * 4, [False] * 4])
    logits = model(features, present)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", BASELINES)
def test_every_parameter_learns(name, features):
    model = make(name).train()
    loss = model(features).square().sum()
    if name == "clam":
        loss = loss + model.auxiliary_loss(features, None, torch.tensor([0, 1, 2, 0]))
    loss.backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None, parameter
        assert value.grad.abs().sum() > 0, parameter


@pytest.mark.parametrize("name", [n for n in BASELINES if n != "transmil"])
def test_the_order_of_tiles_does_not_matter(name, features):
    model = make(name)
    order = torch.randperm(features.shape[1])
    torch.testing.assert_close(model(features[:, order]), model(features), rtol=0, atol=1e-12)


def test_the_order_of_tiles_matters_to_transmil(features):
    model = make("transmil")
    assert (model(features.flip(1)) - model(features)).abs().max() > 1e-3


@pytest.mark.parametrize("name", [n for n in BASELINES if n != "mean"])
def test_attention_is_of_tiles_there_are(name, features, present):
    model = make(name)
    attention = model.attention(features, present)
    assert attention.shape == present.shape
    assert (attention >= 0).all()
    assert attention[~present].eq(0).all()
    if name == "transmil":
        assert (attention.sum(1) < 1).all()
    else:
        torch.testing.assert_close(attention.sum(1), torch.ones(4).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["abmil", "additive", "clam"])
def test_attention_is_that_of_the_formula(name, features):
    model = make(name)
    for bag, found in zip(features, model.attention(features), strict=True):
        expected = normalised([gated_scores(model.scores, e) for e in embedded(model, bag)])
        branch = int(model(bag[None]).argmax()) if name == "clam" else 0
        torch.testing.assert_close(found, expected[:, branch], rtol=0, atol=1e-12)


def test_transmil_adds_up_the_attention_to_repeated_tiles(features, present):
    model = make("transmil")
    with torch.no_grad():
        _, first = slow_attention(model.second, slow_tokens(model, features[0]))
    expected = first[1:8].clone()
    expected[:2] += first[8:]
    torch.testing.assert_close(model.attention(features)[0], expected, rtol=0, atol=1e-12)
    alone = model.attention(features[1:2, :3])[0]
    torch.testing.assert_close(model.attention(features, present)[1, :3], alone, rtol=0, atol=1e-12)


def test_mean_has_no_attention(features):
    assert make("mean").attention(features) is None


@pytest.mark.parametrize("name", EXACT)
def test_logits_are_biases_plus_a_sum_over_tiles(name, features, present):
    model = make(name)
    assert model.exact
    x = features.clone().requires_grad_()
    gates = torch.ones(4, dtype=torch.float64, requires_grad=True)
    with explanation_mode({"biases": gates}):
        logits = model(x, present)[:, 1]
        g, bias = torch.autograd.grad(logits.sum(), (x, gates))
    tiles = (g * features).sum(-1)
    assert tiles[~present].eq(0).all()
    torch.testing.assert_close(bias, model.classifier.bias[1].expand(4), rtol=0, atol=1e-12)
    torch.testing.assert_close(tiles.sum(1) + bias, logits, rtol=0, atol=1e-12)


def test_max_shares_a_feature_among_ties():
    model = make("max")
    bag = torch.tensor([[[1.0, 0, 0, 0, 0], [1.0, 2, 0, 0, -1]]], dtype=torch.float64)
    # halves of features 0, 2 and 3 each; the second has 1 alone, the first 4
    assert model.attention(bag)[0].tolist() == pytest.approx([2.5 / 5, 2.5 / 5])


def test_terms_of_additive_sum_to_its_logits(features, present):
    model = make("additive")
    terms, constants = model.tile_contributions(features, present)
    assert terms[~present].eq(0).all()
    torch.testing.assert_close(
        terms.sum(1) + constants, model(features, present), rtol=0, atol=1e-12
    )
    bag = features[1, :3]
    tiles = embedded(model, bag)
    a = normalised([gated_scores(model.scores, e) for e in tiles])
    expected = torch.stack([two_layers(model.classifier, w * e)
                            for w, e in zip(a, tiles, strict=True)])  # fmt: skip
    torch.testing.assert_close(terms[1, :3], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", [n for n in BASELINES if n not in EXACT])
def test_others_do_not_say_that_they_are_exact(name):
    assert not make(name).exact
    assert (make(name).tile_contributions(torch.randn(1, 2, 5).double()) is None) == (
        name != "additive"
    )


def slow_clustering(model, features, present, label):
    """The paper's words: most and least attended of the slide's class, most attended of others."""
    per_output = []
    for bag, there, y in zip(features, present, label, strict=True):
        tiles = embedded(model, bag[there])
        scores = [gated_scores(model.scores, e) for e in tiles]
        k = min(model.clustered, len(tiles) // 2)
        for c in range(model.outputs):
            by_attention = sorted(range(len(tiles)), key=lambda i: -scores[i][c].item())
            chosen = [(i, int(c == y)) for i in by_attention[:k]]
            if c == y:
                chosen += [(i, 0) for i in by_attention[len(tiles) - k :]]
            losses = []
            for i, target in chosen:
                w = model.clusters.weight[2 * c : 2 * c + 2]
                s = w @ tiles[i] + model.clusters.bias[2 * c : 2 * c + 2]
                losses.append(torch.log(1 + torch.exp(s[1 - target] - s[target] + 1)))
            per_output.append(torch.stack(losses).mean() if losses else torch.tensor(0.0).double())
    return model.auxiliary_weight * torch.stack(per_output).mean()


def test_clustering_follows_the_paper(features, present):
    model = make("clam", auxiliary_weight=0.25)
    label = torch.tensor([2, 0, 1, 0])
    found = model.auxiliary_loss(features, present, label)
    expected = slow_clustering(model, features, present, label.tolist())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    hot = model.auxiliary_loss(features, present, F.one_hot(label, 3).float())
    assert torch.equal(hot, found)


def test_clustering_leaves_the_attention_alone(features):
    model = make("clam")
    model.auxiliary_loss(features, None, torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is None for p in model.scores.parameters())
    assert model.clusters.weight.grad.abs().sum() > 0
    assert model.embed[0].weight.grad.abs().sum() > 0


def test_without_clustering_no_parameter_is_left_without_gradient(features):
    model = make("clam", auxiliary_weight=0).train()
    assert model.auxiliary_loss(features, None, torch.tensor([0, 1, 2, 0])).item() == 0
    model(features).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_smooth_svm_by_hand():
    scores = torch.tensor([[2.0, -1.0], [0.0, 3.0]], dtype=torch.float64)
    found = smooth_svm(scores, torch.tensor([0, 0]))
    # log(1 + e^(s_other - s_right + 1))
    expected = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(4))]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["abmil", "abmil_linear", "additive", "clam", "transmil"])
def test_dropout_is_for_training_alone(name, features):
    model = make(name, drop=0.5)
    assert torch.equal(model(features), model(features))
    model.train()
    assert not torch.equal(model(features), model(features))


@pytest.mark.parametrize("name", BASELINES)
def test_same_seed_same_network(name):
    def states():
        torch.manual_seed(7)
        return make_aggregator(name, 5, 3).state_dict().values()

    assert all(torch.equal(a, b) for a, b in zip(states(), states(), strict=True))


@pytest.mark.parametrize("name", BASELINES)
def test_half_precision_weights_of_long_bags(name):
    """Under autocast a mean over 5,000 tiles is not lost to rounding."""
    torch.manual_seed(0)
    model = make_aggregator(name, 5, 2, **SMALL.get(name, {})).eval()
    features = torch.rand(1, 5000 if name != "transmil" else 200, 5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = model(features).float()
    torch.testing.assert_close(rough, model(features), rtol=0.05, atol=0.05)


def test_arguments():
    with pytest.raises(ValueError, match="hidden must be a multiple of heads, got 9 and 2"):
        make_aggregator("transmil", 5, 2, hidden=9, heads=2)
    with pytest.raises(ValueError, match="clustered must be at least 1"):
        make_aggregator("clam", 5, 2, clustered=0)
    with pytest.raises(ValueError, match="auxiliary_weight at least 0"):
        make_aggregator("clam", 5, 2, auxiliary_weight=-1)


def test_conventional_parts_are_of_conventional_layers():
    """No B-cos layer has slipped into a baseline."""
    for name in BASELINES:
        for module in make_aggregator(name, 5, 2).modules():
            assert "Bcos" not in type(module).__name__
            assert not isinstance(module, nn.Bilinear)
