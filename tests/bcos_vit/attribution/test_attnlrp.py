"""Attention-aware relevance against its published rules in NumPy, one proposition after another."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from bcos_vit.attribution import Classifier, make_method
from bcos_vit.errors import UnsupportedMethodError
from tests.bcos_vit.attribution.families import spotted, tiny

TARGET = torch.tensor([2, 0])
VITS = ["vit", "vit_avg", "vitc", "swin"]
WIDTH, TOKENS = 4, 9
PLAIN = {"gamma": 0.0, "gamma_convolutions": 0.0, "epsilon": 0.0}


class Attending(nn.Module):
    """Pixels are tokens: embedded, mixed by one head, averaged."""

    def __init__(self, mask=None, fused=True):
        super().__init__()
        self.embed = nn.Linear(3, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.head = nn.Linear(WIDTH, 2)
        self.num_heads = 1
        self.mask, self.fused = mask, fused

    def forward(self, images):
        x = self.embed(images.flatten(2).transpose(1, 2))
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.fused:
            x = scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        else:
            scores = (q * WIDTH**-0.5) @ k.transpose(-2, -1)
            x = (scores if self.mask is None else scores + self.mask).softmax(-1) @ v
        return self.head(x.mean(1))


def attending(**options):
    model = Attending(**options)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return Classifier(model, nn.Identity()).double().eval()


def by_hand(model, image, target, mask=0.0):
    """Relevance of pixels, backwards: epsilon without stabiliser, halves, Taylor."""
    w = {name: value.detach().numpy() for name, value in model.state_dict().items()}

    def linear(a, name):
        return a @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def back(a, name, relevance):
        """R_i = sum_k a_i w_ik / z_k R_k."""
        return a * ((relevance / linear(a, name)) @ w[f"{name}.weight"])

    pixels = image.reshape(3, -1).T
    x = linear(pixels, "embed")
    qkv = linear(x, "qkv")
    q, k, v = np.split(qkv, 3, -1)
    scores = q @ k.T / 2 + mask
    matrix = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    mixed = matrix @ v
    pooled = mixed.mean(0)
    logit = linear(pooled, "head")

    relevance = back(pooled, "head", np.where(np.arange(2) == target, logit, 0))
    # An average is a sum of contributions.
    on_mixed = mixed / TOKENS / pooled * relevance
    # A product gives each factor half: of O_jp, A_ji V_ip / (2 O_jp).
    on_matrix, on_v = np.zeros_like(matrix), np.zeros_like(v)
    for j in range(TOKENS):
        for i in range(TOKENS):
            for p in range(WIDTH):
                half = matrix[j, i] * v[i, p] / (2 * mixed[j, p]) * on_mixed[j, p]
                on_matrix[j, i] += half
                on_v[i, p] += half
    # Softmax: R_i = x_i (R_i - s_i sum_j R_j).
    on_scores = scores * (on_matrix - matrix * on_matrix.sum(-1, keepdims=True))
    on_q, on_k = np.zeros_like(q), np.zeros_like(k)
    for j in range(TOKENS):
        for i in range(TOKENS):
            for p in range(WIDTH):
                half = q[j, p] * k[i, p] / 2 / (2 * scores[j, i]) * on_scores[j, i]
                on_q[j, p] += half
                on_k[i, p] += half
    on_x = back(x, "qkv", np.concatenate([on_q, on_k, on_v], -1))
    on_pixels = back(pixels, "embed", on_x)
    return on_pixels.sum(-1).reshape(image.shape[1:])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_by_hand(fused, masked):
    mask = torch.randn(TOKENS, TOKENS, dtype=torch.float64) if masked else None
    classifier = attending(mask=mask, fused=fused)
    images = torch.rand(2, 3, 3, 3, dtype=torch.float64)
    result = make_method("attnlrp", **PLAIN)(classifier, images, torch.tensor([1, 0]))
    for image, target, found in zip(images, (1, 0), result.maps, strict=True):
        expected = by_hand(
            classifier.model, image.numpy(), target, 0.0 if mask is None else mask.numpy()
        )
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert {"biases", "absorbed"} == set(result.constants)
    assert result.completeness_gap.max() < 1e-12


def test_what_must_not_be_attended_to_has_no_relevance():
    seen = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
    seen[:, 4] = False
    images, target = torch.rand(1, 3, 3, 3, dtype=torch.float64), torch.tensor([0])
    minus = torch.zeros(TOKENS, TOKENS, dtype=torch.float64).masked_fill(~seen, float("-inf"))
    for attention in ("taylor", "held"):
        maps = []
        for mask in (seen, minus):
            torch.manual_seed(1)
            classifier = attending(mask=mask)
            # Rows of queries go unread as well.
            method = make_method("attnlrp", attention=attention)
            result = method(classifier, images, target)
            assert result.completeness_gap.item() < 1e-12
            maps.append(result.maps)
        torch.testing.assert_close(*maps)
        if attention == "held":
            assert maps[0][0, 1, 1] == 0
            assert (maps[0] != 0).sum() == TOKENS - 1


@pytest.mark.parametrize("settings", [{}, {"attention": "held"}, PLAIN])
@pytest.mark.parametrize("family", VITS)
def test_what_is_not_conserved_is_measured(family, settings):
    result = make_method("attnlrp", **settings)(tiny(family), spotted(), TARGET)
    size = result.maps.abs().sum((1, 2)) + result.logit.abs()
    size = size + sum(term.abs() for term in result.constants.values())
    assert (result.completeness_gap <= 1e-12 * size).all()
    if settings == {}:
        assert result.constants["absorbed"].abs().min() > 1e-6


@pytest.mark.parametrize("family", VITS)
def test_with_attention_held_it_is_the_ledger(family):
    classifier = tiny(family)
    held = make_method("attnlrp", attention="held", **PLAIN)(classifier, spotted(), TARGET)
    ledger = make_method("ledger", zero="mean")(classifier, spotted(), TARGET)
    scale = float(ledger.maps.abs().max())
    torch.testing.assert_close(held.maps, ledger.maps, atol=1e-11 * scale, rtol=0)
    assert held.constants.keys() == ledger.constants.keys()
    for name, term in ledger.constants.items():
        torch.testing.assert_close(held.constants[name], term)
    taylor = make_method("attnlrp", **PLAIN)(classifier, spotted(), TARGET)
    assert (taylor.maps - ledger.maps).abs().max() > 1e-3 * scale


def test_gammas_of_linear_layers_and_of_convolutions():
    """A patch embedding and a head, each a sum of signed contributions of one pixel or token."""

    class Embedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.head = nn.Conv2d(3, WIDTH, 1), nn.Linear(WIDTH, 2)
            self.qkv, self.num_heads = nn.Linear(1, 1), 1  # looks like attention

        def forward(self, images):
            return self.head(self.patch(images).flatten(1))

    def by_gamma(a, w, b, relevance, gamma):
        passed = np.zeros(len(a))
        for k, row in enumerate(w):
            terms = np.append(a * row, b[k])
            terms = np.where(terms * terms.sum() > 0, 1 + gamma, 1) * terms
            passed += terms[:-1] / terms.sum() * relevance[k]
        return passed

    classifier = Classifier(Embedding(), nn.Identity()).double().eval()
    images = torch.rand(1, 3, 1, 1, dtype=torch.float64)
    settings = {"gamma": 0.3, "gamma_convolutions": 0.7}
    result = make_method("attnlrp", **settings)(classifier, images, torch.tensor([1]))
    w = {name: value.numpy().squeeze() for name, value in classifier.model.state_dict().items()}
    x = images.numpy().squeeze()
    tokens = w["patch.weight"] @ x + w["patch.bias"]
    logits = w["head.weight"] @ tokens + w["head.bias"]
    on_tokens = by_gamma(tokens, w["head.weight"], w["head.bias"], [0, logits[1]], 0.3)
    on_pixels = by_gamma(x, w["patch.weight"], w["patch.bias"], on_tokens, 0.7)
    assert result.maps.item() == pytest.approx(on_pixels.sum(), rel=1e-10)


def test_fused_attention_or_not():
    classifier = tiny("vit")
    fused = make_method("attnlrp")(classifier, spotted(), TARGET)
    for block in classifier.model.blocks:
        assert block.attn.fused_attn
        block.attn.fused_attn = False
    apart = make_method("attnlrp")(classifier, spotted(), TARGET)
    torch.testing.assert_close(fused.maps, apart.maps)
    for name, term in fused.constants.items():
        torch.testing.assert_close(apart.constants[name], term)


@pytest.mark.parametrize("family", ["resnet", "convnext"])
def test_networks_without_attention_are_refused(family):
    with pytest.raises(UnsupportedMethodError, match="attnlrp: the network has no attention"):
        make_method("attnlrp").check(tiny(family))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attention": "rollout"}, "attention must be one of taylor, held"),
        ({"gamma": -1.0}, "gamma must be finite and at least 0"),
        ({"gamma_convolutions": -1.0}, "gamma_convolutions must be finite and at least 0"),
        ({"epsilon": float("inf")}, "epsilon must be finite and at least 0"),
    ],
)
def test_settings_are_checked(settings, said):
    with pytest.raises(ValueError, match=said):
        make_method("attnlrp", **settings)
