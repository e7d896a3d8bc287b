"""Rollout, transformer attribution and AtMan, written out in NumPy on ViTs of two blocks."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from bcos_vit.attribution import make_method
from bcos_vit.errors import UnsupportedMethodError
from bcos_vit.layers.mode import explanation_mode
from bcos_vit.models import create_model
from tests.bcos_vit.attribution.networks import Linear, classifier, images

METHODS = ("rollout", "chefer", "atman")
TARGET = torch.tensor([2, 0])


class Complement(nn.Module):
    def forward(self, x):
        return torch.cat([x, 1 - x], 1)


def timm_vit(pool="token", **options):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, num_classes=3, global_pool=pool, **options
    )
    return classifier(model.double())


def timm_tokens():
    return timm_vit(reg_tokens=2)


def timm_average():
    return timm_vit("avg")


def timm_everything():
    return timm_vit("avg", pool_include_prefix=True)


def bcos_vit():
    torch.manual_seed(0)
    model = create_model("bcos_vit_tiny_patch16_224", depth=2, img_size=32, num_classes=3)
    return classifier(model.double(), Complement())


def bcos_class_token():
    torch.manual_seed(0)
    model = create_model(
        "bcos_vit_tiny_patch16_224", depth=2, img_size=32, num_classes=3, pos_embed="sincos",
        class_token=True, global_pool="token",
    )  # fmt: skip
    return classifier(model.double(), Complement())


def bcos_vitc():
    torch.manual_seed(0)
    model = create_model("bcos_vitc_tiny_patch16_224", depth=2, img_size=32, num_classes=3)
    return classifier(model.double(), Complement())


def conventional_vitc():
    torch.manual_seed(0)
    model = create_model("vitc_tiny_patch16_224", depth=2, img_size=32, num_classes=3)
    return classifier(model.double())


NETWORKS = {
    make: (prefix, pooled)
    for make, prefix, pooled in [
        (timm_vit, 1, [0]),
        (timm_tokens, 3, [0]),
        (timm_average, 1, [1, 2, 3, 4]),
        (timm_everything, 1, [0, 1, 2, 3, 4]),
        (bcos_vit, 0, [0, 1, 2, 3]),
        (bcos_class_token, 1, [0]),
        (bcos_vitc, 0, [0, 1, 2, 3]),
        (conventional_vitc, 0, [0, 1, 2, 3]),
    ]
}
on_all = pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)


def by_patch(maps):
    """The 2 x 2 patches of maps of 32 px without interpolation."""
    assert torch.equal(maps[:, ::16, ::16].repeat_interleave(16, 1).repeat_interleave(16, 2), maps)
    return maps[:, ::16, ::16].flatten(1).numpy()


def layers_of(network):
    return [block.attn for block in network.model.blocks]


def inputs_of(network, batch):
    """What goes into each attention layer, tokens and the rest."""
    seen = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: seen.append(args))
        for layer in layers_of(network)
    ]
    network(batch)
    for hook in hooks:
        hook.remove()
    return seen


def turned(x, rope):
    """Queries or keys turned by their position: pairs ``(a, b)`` to ``(a cos - b sin, ...)``."""
    if rope is None:
        return x
    sine, cosine = rope.numpy().reshape(rope.shape[0], 2, -1).transpose(1, 0, 2)
    rotated = np.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
    return x * cosine + rotated * sine


def matrices_by_hand(network, batch):
    """``softmax(q k^T / sqrt(D))`` of each layer from its weights, in NumPy."""
    with torch.no_grad():
        inputs = inputs_of(network, batch)
    found = []
    for layer, (x, *rope) in zip(layers_of(network), inputs, strict=True):
        qkv = x.numpy() @ layer.qkv.weight.detach().numpy().T
        if layer.qkv.bias is not None:
            qkv = qkv + layer.qkv.bias.detach().numpy()
        q, k, _ = qkv.reshape(*x.shape[:2], 3, 3, 64).transpose(2, 0, 3, 1, 4)
        q, k = (turned(each, rope[0] if rope else None) for each in (q, k))
        scores = np.exp(q @ k.swapaxes(-1, -2) / 8)
        found.append(scores / scores.sum(-1, keepdims=True))
    return found


@on_all
def test_rollout_is_a_product_of_matrices(make):
    network, (prefix, pooled), batch = make(), NETWORKS[make], images(2, 32)
    flow = np.eye(4 + prefix)
    for matrix in matrices_by_hand(network, batch):
        flow = (0.5 * matrix.mean(1) + 0.5 * np.eye(4 + prefix)) @ flow
    expected = flow[:, pooled].mean(1)[:, prefix:]
    got = make_method("rollout", upsampling="nearest")(network, batch, TARGET)
    np.testing.assert_allclose(by_patch(got.maps), expected, rtol=1e-5)
    torch.testing.assert_close(got.logits, network(batch).detach())


def test_rollout_of_other_heads_and_residuals_has_rows_that_sum_to_one():
    network, batch = timm_vit(), images(2, 32)
    flow = np.eye(5)
    for matrix in matrices_by_hand(network, batch):
        step = 0.8 * matrix.max(1) + 0.2 * np.eye(5)
        flow = step / step.sum(-1, keepdims=True) @ flow
    method = make_method("rollout", upsampling="nearest", heads="max", residual=0.2)
    np.testing.assert_allclose(
        by_patch(method(network, batch, TARGET).maps), flow[:, 0, 1:], rtol=1e-5
    )


def logits_with(network, batch, attend):
    """Logits of a network whose attention is a plain function of queries, keys and values."""
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attend
    try:
        with torch.no_grad():
            return network(batch)
    finally:
        F.scaled_dot_product_attention = original


def slopes_by_hand(network, image, target, matrices):
    """What the logit gains by each number of each matrix, by central differences."""
    found = []
    for block, matrix in enumerate(matrices):
        ways = np.eye(matrix.size).reshape(-1, *matrix.shape[1:]) * 1e-5
        moved = torch.from_numpy(np.concatenate([matrix + ways, matrix - ways]))
        calls = iter(range(len(matrices)))

        def attend(q, k, v, block=block, moved=moved, calls=calls, **_):
            own = torch.softmax(q @ k.transpose(-2, -1) / 8, -1)
            return (moved if next(calls) == block else own) @ v

        said = logits_with(network, image.expand(len(moved), -1, -1, -1), attend)[:, target]
        up, down = said.numpy().reshape(2, *matrix.shape[1:])
        found.append((up - down) / 2e-5)
    return found


@on_all
def test_chefer_is_attention_times_its_slope_through_the_blocks(make):
    network, (prefix, pooled), batch = make(), NETWORKS[make], images(1, 32)
    matrices = matrices_by_hand(network, batch)
    identity = np.eye(4 + prefix)
    relevance = identity
    for matrix, slope in zip(matrices, slopes_by_hand(network, batch, 2, matrices), strict=True):
        relevance = relevance + np.maximum(matrix[0] * slope, 0).mean(0) @ relevance
    expected = (relevance - identity)[pooled].mean(0)[prefix:]
    got = make_method("chefer", upsampling="nearest")(network, batch, TARGET[:1])
    np.testing.assert_allclose(by_patch(got.maps)[0], expected, rtol=1e-4, atol=1e-8)
    assert (got.maps >= 0).all()
    assert (got.forward_passes, got.backward_passes) == (1, 1)


def test_chefer_is_of_the_class():
    network, batch = timm_vit(), images(2, 32)
    one, other = (make_method("chefer")(network, batch, t).maps for t in (TARGET, TARGET.flip(0)))
    assert not torch.allclose(one, other, rtol=0.01)


def suppressed_by_hand(network, batch, edit):
    """Logits with scores changed before the softmax."""

    def attend(q, k, v, **_):
        weights = edit(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).exp()
        return weights / weights.sum(-1, keepdim=True) @ v

    return logits_with(network, batch, attend)


@on_all
def test_atman_multiplies_scores_of_one_token_in_all_blocks(make):
    network, (prefix, _), batch = make(), NETWORKS[make], images(2, 32)
    got = make_method("atman", upsampling="nearest", factor=0.7)(network, batch, TARGET)
    for patch in range(4):

        def edit(scores, column=prefix + patch):
            changed = scores - scores.amin(-1, keepdim=True)  # else what is negative would rise
            changed[..., column] *= 1 - 0.7
            return changed

        after = suppressed_by_hand(network, batch, edit)
        drop = (network(batch) - after).gather(1, TARGET[:, None])[:, 0].detach()
        np.testing.assert_allclose(by_patch(got.maps)[:, patch], drop, rtol=1e-4, atol=1e-8)
    assert got.forward_passes == 5


@pytest.mark.parametrize("make", [timm_vit, bcos_vit], ids=lambda make: make.__name__)
def test_atman_of_all_weight_masks_the_token(make):
    network, (prefix, _), batch = make(), NETWORKS[make], images(2, 32)
    method = make_method(
        "atman", factor=1.0, suppressed="weights", upsampling="nearest", batch_size=3
    )
    got = by_patch(method(network, batch, TARGET).maps)
    for patch in range(4):
        mask = torch.zeros(4 + prefix, dtype=torch.float64)
        mask[prefix + patch] = -torch.inf
        after = suppressed_by_hand(network, batch, lambda scores, mask=mask: scores + mask)
        drop = (network(batch) - after).gather(1, TARGET[:, None])[:, 0].detach()
        np.testing.assert_allclose(got[:, patch], drop, rtol=1e-4, atol=1e-8)


def test_atman_also_suppresses_tokens_alike():
    network, batch = timm_vit(), images(1, 32)
    # A threshold that two pairs of patches pass.
    embedded = []
    hook = network.model.blocks[0].register_forward_pre_hook(lambda _, a: embedded.append(a[0]))
    network(batch)
    hook.remove()
    patches = F.normalize(embedded[0][0, 1:].detach(), dim=1)
    alike = (patches @ patches.T).numpy()
    threshold = float(np.sort(alike[np.triu_indices(4, 1)])[-2]) - 1e-9
    assert threshold > 0
    rates = 0.9 * np.where(alike >= threshold, alike, 0)
    method = make_method("atman", similarity=threshold, upsampling="nearest")
    got = by_patch(method(network, batch, TARGET[:1]).maps)
    for patch in range(4):
        left = torch.from_numpy(np.concatenate([[1], 1 - rates[patch]]))
        after = suppressed_by_hand(
            network,
            batch,
            lambda scores, left=left: (scores - scores.amin(-1, keepdim=True)) * left,
        )
        drop = (network(batch) - after)[0, TARGET[0]].detach()
        np.testing.assert_allclose(got[0, patch], drop, rtol=1e-4, atol=1e-8)
    assert not np.allclose(
        got, by_patch(make_method("atman", upsampling="nearest")(network, batch, TARGET[:1]).maps)
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("make", [timm_vit, bcos_vit], ids=lambda make: make.__name__)
def test_network_and_caller_are_left_as_they_were(name, make):
    network, batch = make(), images(2, 32)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for layer in network.modules():
        if hasattr(layer, "fused_attn"):
            layer.fused_attn = False  # as TIMM_FUSED_ATTN=0 makes it
    expected = make_method(name)(make(), batch, TARGET).maps
    before = network(batch)
    with torch.inference_mode(), explanation_mode():
        got = make_method(name)(network, batch, TARGET).maps
    torch.testing.assert_close(got.clone(), expected)
    assert all(
        layer.fused_attn is False for layer in network.modules() if hasattr(layer, "fused_attn")
    )
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in network.modules())
    assert torch.equal(before, network(batch))
    alone = make_method(name)(network, batch[1:], TARGET[1:]).maps
    torch.testing.assert_close(alone, expected[1:])


@pytest.mark.parametrize("name", METHODS)
def test_networks_are_left_as_they_were_by_errors_too(name):
    network = timm_vit()
    network.model.blocks[1].attn.fused_attn = False
    with pytest.raises(ValueError, match=r"target must be in \[0, 3\), got 3"):
        make_method(name)(network, images(2, 32), TARGET + 1)
    assert [block.attn.fused_attn for block in network.model.blocks] == [True, False]
    with pytest.raises(ValueError, match="images of 24 x 24 px do not divide into patches of 16"):
        make_method(name)(network, images(2, 24), TARGET)


@pytest.mark.parametrize("name", METHODS)
def test_values_between_patches_are_interpolated(name):
    network, batch = bcos_vit(), images(2, 32)
    patches = make_method(name, upsampling="nearest")(network, batch, TARGET).maps[:, ::16, ::16]
    expected = F.interpolate(patches[:, None], size=(32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(make_method(name)(network, batch, TARGET).maps, expected)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(), "Linear has no attention"),
        (lambda: timm.create_model("resnet18", num_classes=3), "ResNet has no attention"),
        (lambda: create_model("bcos_resnet18", num_classes=3), "has no attention"),
        (
            lambda: timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1)),
            "attends within windows",
        ),
        (
            lambda: create_model("bcos_swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1)),
            "attends within windows",
        ),
        (
            lambda: timm.create_model("vit_tiny_patch16_224", depth=1, global_pool="map"),
            "pools by 'map'",
        ),
        (
            lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1),
            "VisionTransformerDistilled is no plain vision transformer",
        ),
        (
            lambda: timm.create_model("eva02_tiny_patch14_224", depth=1),
            "Eva is no plain vision transformer",
        ),
    ],
)
def test_networks_without_a_matrix_of_all_tokens_are_refused(name, make, message):
    with torch.device("meta"):
        model = make()
    with pytest.raises(UnsupportedMethodError, match=f"{name}: .*{message}"):
        make_method(name).check(classifier(model))


@pytest.mark.parametrize("name", METHODS)
def test_replaced_attention_and_training_mode_are_refused(name):
    network = timm_vit()
    with pytest.raises(UnsupportedMethodError, match=f"{name}: .* is in training mode"):
        make_method(name).check(timm_vit().train())
    network.model.blocks[1].attn = nn.Identity().eval()
    with pytest.raises(UnsupportedMethodError, match=r"'blocks\.1\.attn' is missing"):
        make_method(name)(network, images(2, 32), TARGET)
    network = timm_vit()
    network.model.blocks[1].attn.forward = lambda x, **_: x
    with pytest.raises(UnsupportedMethodError, match="attention was seen 1 times in 2 blocks"):
        make_method(name)(network, images(2, 32), TARGET)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("rollout", {"residual": 1.0}, r"residual must be in \[0, 1\)"),
        ("rollout", {"heads": "median"}, "heads must be one of"),
        ("chefer", {"upsampling": "cubic"}, "upsampling must be one of"),
        ("atman", {"factor": 0.0}, r"factor must be in \(0, 1\]"),
        ("atman", {"similarity": 1.5}, r"similarity must be in \(0, 1\]"),
        ("atman", {"suppressed": "values"}, "suppressed must be one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_method(name, **settings)
