"""The ledger against networks taken apart by hand in NumPy, and its residual over all families."""

import math

import numpy as np
import pytest
import torch
from timm.models import VisionTransformer
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from bcos_vit.attribution import Classifier, make_method
from bcos_vit.errors import UnsupportedMethodError
from bcos_vit.models import create_model, create_twin

# A twin of each family, small, and timm's kinds that no twin has.
NETWORKS = {
    "resnet": ("bcos_resnet18", {}, 32),
    "densenet": ("bcos_densenet121", {"block_config": (2, 2), "growth_rate": 8}, 32),
    "vgg": ("vgg11_bn", {"cfg": (8, "M", 16, "M"), "mlp_ratio": 0.01}, 32),
    "convnext": ("bcos_convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, 32),
    "inception": ("bcos_inception_v3", {}, 75),
    "vit": ("bcos_vit_tiny_patch16_224", {"depth": 2, "img_size": 32}, 32),
    "vit with class token": ("vit_tiny_patch16_224", {"depth": 2, "img_size": 32}, 32),
    "vit with registers on another grid": (
        "vit_tiny_patch16_224",
        {"depth": 1, "img_size": 32, "reg_tokens": 2, "dynamic_img_size": True, "init_values": 0.5},
        48,
    ),
    "vitc": ("bcos_vitc_tiny_patch16_224", {"depth": 2, "img_size": 32}, 32),
    "swin": (
        "bcos_swin_tiny_patch4_window7_224",
        {"depths": (2, 1), "embed_dim": 16, "num_heads": (1, 2), "img_size": 32, "window_size": 4},
        32,
    ),
    "swish, squeeze and excite": ("test_efficientnet", {}, 32),
}
ADDED = {
    "vit": {"position"},
    "vit with class token": {"position", "tokens"},
    "vit with registers on another grid": {"position", "tokens"},
    "vitc": {"position"},
}


class Normalised(nn.Module):
    """The encoding of conventional networks: less a mean, over a deviation."""

    def __init__(self, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)):
        super().__init__()
        self.mean, self.std = (
            nn.Buffer(torch.tensor(each, dtype=torch.float64)[:, None, None])
            for each in (mean, std)
        )

    def forward(self, images):
        return (images - self.mean) / self.std


class Plain(nn.Module):
    def forward(self, images):
        return images


def build(name):
    """One of :data:`NETWORKS`, no parameter of which is 0 or 1."""
    kind, options, size = NETWORKS[name]
    if kind == "vgg11_bn":  # its twin has 130 million parameters
        from timm.models.vgg import VGG

        model = VGG(num_classes=3, norm_layer=nn.BatchNorm2d, **options)
    else:
        make = create_twin if kind.startswith("bcos") else create_model
        model = make(kind, num_classes=3, **options)
    with torch.no_grad():
        for where, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif any(each in where for each in ("pos_embed", "token", "relative")):
                parameter.normal_(std=0.5)
        for where, buffer in model.named_buffers():
            if "running_mean" in where:
                buffer.normal_(std=0.1)
            elif "running_var" in where:
                buffer.uniform_(0.5, 1.5)
    return model.eval(), size


def parts_of(attribution):
    """Sum of absolute parts, what rounding is relative to."""
    size = attribution.maps.double().abs().sum((1, 2)) + attribution.logit.abs()
    return size + sum(term.double().abs() for term in attribution.constants.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_adds_up(name):
    model, size = build(name)
    images, target = torch.rand(2, 3, size, size, dtype=torch.float64), torch.tensor([0, 2])
    ledger = make_method("ledger")

    classifier = Classifier(model, Normalised()).double().eval()
    result = ledger(classifier, images, target)

    assert {"mean", "biases"} | ADDED.get(name, set()) == set(result.constants)
    assert result.maps.shape == (2, size, size)
    assert (result.completeness_gap <= 1e-12 * parts_of(result)).all()
    torch.testing.assert_close(result.logits, classifier(images))
    assert all(term.abs().min() > 0 for term in result.constants.values())
    # One by one as in a batch.
    alone = ledger(classifier, images[1:], target[1:])
    torch.testing.assert_close(alone.maps, result.maps[1:], rtol=1e-9, atol=1e-12)
    for term, values in alone.constants.items():
        torch.testing.assert_close(values, result.constants[term][1:], rtol=1e-9, atol=1e-12)

    rough = ledger(classifier.float(), images.float(), target)
    assert (rough.completeness_gap <= 1e-5 * parts_of(rough)).all()


def test_a_small_cnn_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.5, 2)
    nn.init.normal_(network[1].weight)
    nn.init.normal_(network[1].bias)
    classifier = Classifier(network, Normalised()).double().eval()
    images = torch.rand(1, 3, 2, 2, dtype=torch.float64)

    result = make_method("ledger")(classifier, images, torch.tensor([1]))

    state = {name: value.numpy() for name, value in network.state_dict().items()}
    mean, std = (getattr(classifier.encode, each).numpy()[:, 0, 0] for each in ("mean", "std"))
    x = images[0].reshape(3, 4).numpy()
    kernel = state["0.weight"][:, :, 0, 0]
    scale = state["1.weight"] / np.sqrt(state["1.running_var"] + 1e-5)
    shift = scale * (state["0.bias"] - state["1.running_mean"]) + state["1.bias"]
    pixels = np.einsum("o,oc,cp->ocp", scale, kernel, x / std[:, None])  # of each pixel and channel
    means = -scale * (kernel @ (mean / std))
    y = pixels.sum(1) + (means + shift)[:, None]
    maps, constants = np.zeros(4), {"mean": 0.0, "biases": state["5.bias"][1]}
    for o, weight in enumerate(state["5.weight"][1]):
        where = y[o].argmax()
        gate = weight * (y[o, where] > 0)
        maps[where] += gate * pixels[o, :, where].sum()
        constants["mean"] += gate * means[o]
        constants["biases"] += gate * shift[o]
    np.testing.assert_allclose(result.maps[0].flatten().numpy(), maps, rtol=1e-12, atol=1e-15)
    assert set(result.constants) == set(constants)
    for term, value in constants.items():
        assert result.constants[term].item() == pytest.approx(value, rel=1e-12)


def test_a_small_vit_by_hand():
    """Every part of every token goes through the network by itself, all factors held."""
    model = VisionTransformer(
        img_size=4, patch_size=2, embed_dim=8, depth=1, num_heads=2, num_classes=3, mlp_ratio=2
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    classifier = Classifier(model, Normalised()).double().eval()
    images = torch.rand(1, 3, 4, 4, dtype=torch.float64)

    result = make_method("ledger")(classifier, images, torch.tensor([2]))

    w = {name: value.numpy() for name, value in model.state_dict().items()}
    mean, std = (getattr(classifier.encode, each).numpy() for each in ("mean", "std"))
    image = images[0].numpy()
    # Parts: 16 pixels, then mean, biases, position, tokens; each (5 tokens, 8).
    parts = np.zeros((20, 5, 8))
    for row in range(4):
        for column in range(4):
            token = 1 + row // 2 * 2 + column // 2
            filters = w["patch_embed.proj.weight"][:, :, row % 2, column % 2]
            parts[row * 4 + column, token] += filters @ (image[:, row, column] / std[:, 0, 0])
            parts[16, token] -= filters @ (mean / std)[:, 0, 0]
    parts[17, 1:] += w["patch_embed.proj.bias"]
    parts[18] += w["pos_embed"][0]
    parts[19, 0] += w["cls_token"][0, 0]

    def linear(parts, name):
        out = parts @ w[f"{name}.weight"].T
        out[17] += w[f"{name}.bias"]
        return out

    def norm(parts, name):
        total = parts.sum(0)
        deviation = np.sqrt(total.var(-1) + 1e-6)[None, :, None]
        out = (parts - parts.mean(-1, keepdims=True)) / deviation * w[f"{name}.weight"]
        out[17] += w[f"{name}.bias"]
        return out

    qkv = linear(norm(parts, "blocks.0.norm1"), "blocks.0.attn.qkv")
    q, k, v = (qkv[..., 8 * i : 8 * i + 8].reshape(20, 5, 2, 4) for i in range(3))
    scores = np.einsum("nhd,mhd->hnm", q.sum(0), k.sum(0)) / 2
    matrix = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    mixed = np.einsum("hnm,pmhd->pnhd", matrix, v).reshape(20, 5, 8)
    parts = parts + linear(mixed, "blocks.0.attn.proj")
    hidden = linear(norm(parts, "blocks.0.norm2"), "blocks.0.mlp.fc1")
    gates = np.vectorize(lambda x: 0.5 * (1 + math.erf(x / math.sqrt(2))))(hidden.sum(0))
    parts = parts + linear(hidden * gates, "blocks.0.mlp.fc2")
    logits = linear(norm(parts, "norm")[:, :1], "head")[:, 0, 2]

    np.testing.assert_allclose(result.maps[0].flatten().numpy(), logits[:16], rtol=1e-10)
    found = [result.constants[each].item() for each in ("mean", "biases", "position", "tokens")]
    np.testing.assert_allclose(found, logits[16:], rtol=1e-10)


def test_without_biases_a_relu_network_is_its_matrix_and_all_methods_agree():
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(6, 4, 2, bias=False),
        nn.ReLU(), nn.Flatten(), nn.Linear(36, 3, bias=False),
    )  # fmt: skip
    classifier = Classifier(network, Plain()).double().eval()
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    target = torch.tensor([0, 2])

    # W(x) column by column: the network's layers on unit images, gates those of the image.
    with torch.no_grad():
        first = network[0](images)
        second = network[2](first.relu())
        units = torch.eye(48, dtype=torch.float64).reshape(48, 3, 4, 4)
        matrix = torch.stack(
            [
                network[5]((network[2](network[0](units) * (a > 0)) * (b > 0)).flatten(1))
                for a, b in zip(first, second, strict=True)
            ]
        )  # images, pixels, classes
    weights = matrix[torch.arange(2), :, target].reshape(2, 3, 4, 4)
    expected = (weights * images).sum(1)

    same = {"convolutions": "epsilon", "first": "same", "epsilon": 0.0}
    for method in (make_method("ledger"), make_method("lrp", **same)):
        result = method(classifier, images, target)
        torch.testing.assert_close(result.maps, expected, rtol=1e-11, atol=1e-14)
        assert result.constants == {}


def test_what_counts_as_nothing_moves_the_mean_to_its_pixels():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 2))
    classifier = Classifier(network, Normalised()).double().eval()
    images, target = torch.rand(2, 3, 2, 2, dtype=torch.float64), torch.tensor([0, 1])
    black, mean = (
        make_method("ledger", zero=zero)(classifier, images, target) for zero in ("black", "mean")
    )
    torch.testing.assert_close(
        black.maps.sum((1, 2)) + black.constants["mean"], mean.maps.sum((1, 2))
    )
    torch.testing.assert_close(black.constants["biases"], mean.constants["biases"])
    assert set(mean.constants) == {"biases"}
    # Of a pixel of the mean colour nothing is left.
    images[:, :, 0, 0] = classifier.encode.mean[:, 0, 0]
    mean = make_method("ledger", zero="mean")(classifier, images, target)
    assert mean.maps[:, 0, 0].abs().max() < 1e-15


def test_a_constant_that_is_zero_carries_nothing():
    model, size = build("vit")
    nn.init.zeros_(model.pos_embed)
    classifier = Classifier(model, Normalised()).double().eval()
    images = torch.rand(1, 3, size, size, dtype=torch.float64)
    assert make_method("ledger")(classifier, images, torch.tensor([0])).constants["position"] == 0


# --- what cannot be followed -----------------------------------------------------------------


class Squared(nn.Module):
    def forward(self, x):
        return x + x * x


class Counted(nn.Module):
    def forward(self, x):
        return x + x.amax().item()


class Written(nn.Module):
    """A tensor that looks like a constant is filled with pixels."""

    def forward(self, x):
        y = torch.zeros_like(x)
        y[:, 1:] = x[:, :-1]
        return x + y


class Copied(nn.Module):
    def forward(self, x):
        return x + torch.zeros(x.shape, dtype=x.dtype).copy_(x)


class Unrolled(nn.Module):
    """Rows by Python's own iteration; linear."""

    def forward(self, x):
        first, *rest = x.transpose(0, 1)
        return torch.stack([first + 1, *rest], 1)


class Logged(nn.Module):
    def forward(self, x):
        return torch.log1p(x)


class Constantly(nn.Module):
    def forward(self, x):
        return torch.ones(len(x), 2, dtype=x.dtype)


class Unseen(nn.Module):
    """As compiled code does, past whoever watches Python."""

    def forward(self, x):
        with torch._C.DisableTorchFunction():
            return x.exp()


class Exponential(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.exp()

    @staticmethod
    def backward(ctx, dy):
        return dy


class Custom(nn.Module):
    def forward(self, x):
        return Exponential.apply(x)


class Mixing(nn.Module):
    """Adds a constant where the first dimension is channels."""

    def forward(self, x):
        return (x.movedim(1, 0) + 1).movedim(0, 1)


def small(*layers):
    return Classifier(
        nn.Sequential(nn.Conv2d(3, 4, 1), *layers, nn.Flatten(), nn.Linear(16, 2)), Plain()
    ).eval()


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.Softplus(), "activation '1' \\(Softplus\\)"),
        (Logged(), "'log1p' in layer '1' \\(Logged\\)"),
        (Squared(), "'mul' in layer '1' \\(Squared\\)"),
        (Written(), "'setitem' in layer '1' \\(Written\\) writes over"),
        (Copied(), "'copy' in layer '1' \\(Copied\\) writes over"),
        (Counted(), "layer '1' \\(Counted\\) makes a number"),
        (Unseen(), "layer '2' \\(Flatten\\) computes by compiled or custom code"),
        (Custom(), "'exp' in layer '1' \\(Custom\\)"),
        (Mixing(), "does not stand for the 3 images"),
        (Constantly(), "does not depend on its input"),
        (nn.Sigmoid(), "'sigmoid' in layer '1' \\(Sigmoid\\)"),
    ],
)
def test_what_is_not_a_gate_is_refused_by_name(layer, said):
    classifier = small(layer)
    if isinstance(layer, Constantly):
        classifier = Classifier(layer, Plain()).eval()
    with pytest.raises(UnsupportedMethodError, match=said):
        make_method("ledger")(classifier, torch.rand(3, 3, 2, 2), torch.tensor([0, 1, 1]))
    assert not _get_current_function_mode_stack()


def test_iteration_and_writing_in_place_are_followed():
    class Halved(nn.Module):
        def forward(self, x):
            x += 1
            x *= x.sigmoid()
            return x.mul_(0.5).relu_()

    classifier = small(Unrolled(), Halved()).double()
    images = torch.rand(3, 3, 2, 2, dtype=torch.float64)
    result = make_method("ledger")(classifier, images, torch.tensor([0, 1, 1]))
    assert (result.completeness_gap < 1e-12).all()


def test_an_encoding_that_is_not_affine_is_refused():
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), Logged()).eval()
    with pytest.raises(UnsupportedMethodError, match="'log1p' in layer 'encoding' \\(Logged\\)"):
        make_method("ledger")(classifier, torch.rand(1, 3, 2, 2), torch.tensor([0]))


def test_images_that_are_mixed_do_not_pass_unnoticed():
    class Shifted(nn.Module):
        """Every image gets the one before: in order, of the right shape, and wrong."""

        def forward(self, x):
            return x + torch.roll(x, 1, 0)

    with pytest.raises(UnsupportedMethodError, match="more than rounding"):
        make_method("ledger")(small(Shifted()), torch.rand(3, 3, 2, 2), torch.tensor([0, 1, 1]))


@pytest.mark.parametrize("name", ["ledger", "lrp", "attnlrp"])
def test_bcos_networks_have_a_ledger_of_their_own(name):
    model = create_model("bcos_resnet18", num_classes=2).eval()
    with pytest.raises(UnsupportedMethodError, match="'bcos'"):
        make_method(name).check(Classifier(model, Plain()).eval())


def test_a_network_on_its_way_to_bcos_is_refused():
    model = create_model("vitc_tiny_patch16_224", depth=1, img_size=32, num_classes=2).eval()
    make_method("ledger").check(Classifier(model, Plain()).eval())
    model.set_homotopy(1.5, 0.5)
    with pytest.raises(UnsupportedMethodError, match="'bcos'"):
        make_method("ledger").check(Classifier(model, Plain()).eval())


def test_training_mode_is_refused():
    with pytest.raises(UnsupportedMethodError, match="training mode"):
        make_method("ledger").check(small().train())


# --- what is left as it was --------------------------------------------------------------------


def test_nothing_is_left_changed():
    model, size = build("vit with class token")
    classifier = Classifier(model, Normalised().float()).eval()
    images, target = torch.rand(1, 3, size, size), torch.tensor([1])
    classifier(images).sum().backward()
    before = {name: (p.grad.clone(), p.detach().clone()) for name, p in model.named_parameters()}
    model.head.weight.requires_grad_(False)
    said = [type(module).forward for module in model.modules()]
    chance = torch.get_rng_state()

    with torch.inference_mode():
        first = make_method("ledger")(classifier, images, target)
    with torch.autocast("cpu", torch.bfloat16):
        second = make_method("ledger")(classifier, images, target)

    torch.testing.assert_close(first.maps, second.maps)
    assert torch.equal(chance, torch.get_rng_state())
    assert not images.requires_grad
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, before[name][0])
        assert torch.equal(parameter, before[name][1])
        assert parameter.requires_grad == (name != "head.weight")
        assert set(vars(parameter)) <= {"_grad"}
    for module, forward in zip(model.modules(), said, strict=True):
        assert type(module).forward is forward
        assert "forward" not in vars(module)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module.training
    assert all(block.attn.fused_attn for block in model.blocks)
