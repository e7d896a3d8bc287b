"""explain() at a depth: the sum holds there, W is that of the network behind it, nobody notices."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain import check_depth, explain, explain_classes
from bcos_vit.layers import BcosConv2d, explanation_mode, is_explaining
from tests.bcos_vit.explain.test_explain import assert_same
from tests.bcos_vit.explain.test_isolation import assert_equal_state, state_of

BARE = {"pos_embed": "learned", "class_token": True, "reg_tokens": 2, "conventional": True}


@pytest.fixture
def pictures():
    return torch.rand(3, 6, 32, 32, dtype=torch.float64)


def assert_close(found, expected):
    """Equal up to float64's rounding in another order of summation."""
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def behind(features, rest, target):
    """Features as they are, W of the rest of the network for them, and its logits."""
    leaf = features.detach().requires_grad_()
    with explanation_mode():
        logits = rest(leaf)
    return leaf.detach(), torch.autograd.grad(logits[:, target].sum(), leaf)[0], logits.detach()


# --- the numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"conventional": True, "b": 1.5}, {"temperature": 2.0}])
def test_it_is_the_gradient_of_a_resnet_cut_by_hand(make_resnet, pictures, stage, options):
    model = make_resnet(**options)
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    features = nn.Sequential(model.conv1, model.bn1, model.act1, model.pool, *stages[:stage])
    rest = nn.Sequential(*stages[stage:], model.fc, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    a, weights, logits = behind(features(pictures), lambda x: model.logits(rest(x)), 1)
    found = explain(model, pictures, 1, depth=f"layer{stage}")
    assert_close(found.logits, logits)
    assert_close(found.weights, weights)
    assert_close(found.contributions, (a * weights).sum(1))
    # Nothing but the biases behind the cut is left over.
    rest_of_it = found.logit - found.bias - found.contributions.sum((1, 2))
    assert_close(found.constants.get("biases", torch.zeros(3).double()), rest_of_it)
    assert list(found.constants) == (["biases"] if "conventional" in options else [])


@pytest.mark.parametrize("options", [{}, BARE, BARE | {"global_pool": "token"}, {"fc_norm": False}])
@pytest.mark.parametrize("block", [0, 1])
def test_it_is_the_gradient_of_a_vit_cut_by_hand(make_vit, options, block):
    model, images = make_vit(img_size=(4, 6), **options), torch.rand(2, 6, 4, 6).double()
    rope = model.rope and model.rope((2, 3), images.device)
    tokens = model.patch_embed(images).flatten(1, 2)
    if model.pos_embed is not None:
        tokens = model.pos_embed(tokens, (2, 3))
    tokens = model.prefix(tokens)
    for each in model.blocks[: block + 1]:
        tokens = each(tokens, rope)

    def rest(tokens):
        for each in model.blocks[block + 1 :]:
            tokens = each(tokens, rope)
        return model.forward_head(tokens if model.fc_norm else model.norm(tokens))

    a, weights, logits = behind(tokens, rest, 2)
    found = explain(model, images, 2, depth=("blocks.0", "head")[block])
    assert_close(found.logits, logits)
    first, parts = model.num_prefix_tokens, (a * weights).sum(2)
    for row in range(2):
        for column in range(3):
            token = first + 3 * row + column
            assert_close(found.weights[:, :, row, column], weights[:, token])
            assert_close(found.contributions[:, row, column], parts[:, token])
    if first:
        assert_close(found.constants["tokens"], parts[:, :first].sum(1))
        assert "position" not in found.constants
    assert found.completeness_gap.max() < 1e-12


def test_what_is_added_behind_the_patches_is_told_apart(make_vit, images):
    found = explain(make_vit(**BARE), images, 1, depth="patch_embed")
    assert set(found.constants) == {"biases", "position", "tokens"}
    assert found.weights.shape == (4, 8, 2, 2)
    assert found.completeness_gap.max() < 1e-12


def test_at_the_head_of_a_cnn_contributions_are_shares_of_local_logits(make_resnet, pictures):
    model = make_resnet(temperature=2.0)
    model.logits.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    local = model.fc(model.forward_features(pictures)).detach()
    target = [2, 0, 1]
    found = explain(model, pictures, target, depth="head")
    mine = local[torch.arange(3), target]
    assert_close(found.contributions, mine / (2.0 * mine[0].numel()))
    assert_close(found.weights, torch.full_like(local[:, :1], 0.5 / mine[0].numel()))
    assert found.bias.tolist() == [3, 1, 2]
    assert found.constants == {}


@pytest.mark.parametrize("depth", ["layer3", "head"])
def test_one_image_is_that_of_a_batch(make_resnet, pictures, depth):
    model = make_resnet()
    together = explain(model, pictures, 1, depth=depth)
    alone = explain(model, pictures[1], 1, depth=depth)
    assert alone.depth == together[1].depth == depth
    assert_same(alone, together[1])


def test_an_empty_batch_gives_an_empty_explanation(make_resnet, pictures):
    for depth in make_resnet().depths():
        assert len(explain(make_resnet(), pictures[:0], 1, depth=depth)) == 0


def test_without_classes_features_are_explained(make_resnet, pictures):
    model = make_resnet()
    model.reset_classifier(0)
    assert model.depths()[-2:] == ("layer3", "head")
    found = explain(model, pictures, 1, depth="head")
    assert found.weights.shape == (3, 512, 1, 1)
    assert found.completeness_gap.max() < 1e-12


def test_classification_after_pooling_has_no_local_logits(pictures):
    from bcos_vit.models import BcosConvNeXt

    model = BcosConvNeXt((1, 1), (8, 16), num_classes=3, head_norm_first=False).double().eval()
    assert model.depths() == ("pixels", "stages.0", "head")
    found = explain(model, pictures, 1, depth="head")
    assert found.weights.shape == (3, 16, 4, 4)
    assert found.completeness_gap.max() < 1e-12


# --- what is cut off is left alone --------------------------------------------------------------


def test_before_the_cut_the_network_runs_as_usual(make_resnet, pictures):
    model, seen = make_resnet(), {}

    def note(name):
        def hook(_module, _inputs, output):
            seen[name] = (output.requires_grad, is_explaining())

        return hook

    for name in ("conv1", "layer3.0.conv1", "layer4.0.conv1", "fc"):
        model.get_submodule(name).register_forward_hook(note(name))
    explain(model, pictures, 1, depth="layer3")
    assert list(seen.values()) == [(False, False), (False, False), (True, True), (True, True)]


@pytest.mark.parametrize("broken", [None, "layer1", "layer4"])
def test_model_and_images_are_left_as_they_were(make_resnet, pictures, broken):
    model, images = make_resnet(), pictures.clone()

    def fail(*_):
        raise RuntimeError("broken")

    hook = broken and model.get_submodule(broken).register_forward_pre_hook(fail)
    before = state_of(model)
    if broken:
        with pytest.raises(RuntimeError, match="broken"):
            explain(model, images, depth="layer3")
    else:
        explain(model, images, depth="layer3")
    assert_equal_state(before, state_of(model))
    assert torch.equal(images, pictures)
    assert torch.is_grad_enabled()
    assert not is_explaining()
    if hook:
        hook.remove()
        assert explain(model, images, depth="layer3").completeness_gap.max() < 1e-12


def test_a_wrong_target_leaves_no_hook(make_resnet, pictures):
    model = make_resnet()
    before = state_of(model)
    with pytest.raises(ValueError, match="target"):
        explain(model, pictures, 99, depth="layer3")
    assert_equal_state(before, state_of(model))


# --- company ------------------------------------------------------------------------------------


def test_threads_explain_one_model_at_different_depths_at_once(make_resnet, pictures):
    model = make_resnet()
    depths = model.depths()
    expected = [explain(model, pictures, 1, depth=depth) for depth in depths]
    plain = model(pictures)
    start = Barrier(len(depths) + 1)

    def work(depth):
        start.wait(30)
        return [explain(model, pictures, 1, depth=depth) for _ in range(5)]

    def infer():
        start.wait(30)
        return [model(pictures) for _ in range(10)]

    with ThreadPoolExecutor(len(depths) + 1) as pool:
        inferred = pool.submit(infer)
        found = list(pool.map(work, depths))
        for logits in inferred.result(30):
            assert torch.equal(logits, plain)
            assert logits.requires_grad
    for explanations, wanted in zip(found, expected, strict=True):
        for explanation in explanations:
            assert torch.equal(explanation.weights, wanted.weights)


@pytest.mark.parametrize("place", ["layer1", "layer4"])
def test_an_explanation_within_another_at_the_same_depth(make_resnet, pictures, place):
    model, inner = make_resnet(), []
    expected = explain(model, pictures, 1, depth="layer3")

    def hook(*_):
        handle.remove()
        inner.append(explain(model, pictures, 1, depth="layer3"))

    handle = model.get_submodule(place).register_forward_hook(hook)
    outer = explain(model, pictures, 1, depth="layer3")
    assert_same(outer, expected)
    assert_same(inner[0], expected)


def test_an_outer_explanation_mode_is_kept(make_resnet, pictures):
    model = make_resnet(conventional=True, b=1.5)
    alone = explain(model, pictures, depth="layer3")
    gates = {"bias": torch.ones(7, dtype=torch.float64, requires_grad=True)}
    with explanation_mode(gates):
        assert_same(explain(model, pictures, depth="layer3"), alone)
        assert is_explaining()
    assert gates["bias"].grad is None


def test_a_network_that_recomputes_is_cut(make_vit, images):
    model = make_vit()
    expected = explain(model, images, 1, depth="blocks.0")
    model.train().set_grad_checkpointing()
    assert_same(explain(model, images, 1, depth="blocks.0"), expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("depth", ["layer3", "head"])
def test_gradient_modes_make_no_difference(make_resnet, pictures, context, depth):
    model = make_resnet()
    expected = explain(model, pictures, 1, depth=depth)
    with context():
        found = explain(model, pictures * 1, 1, depth=depth)
        assert torch.is_grad_enabled() == (context is torch.enable_grad)
    assert_same(found, expected)
    assert not found.weights.is_inference()


def test_autocast_makes_no_difference(make_resnet, pictures):
    model, images = make_resnet().float(), pictures.float()
    expected = explain(model, images, 1, depth="layer3")
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(explain(model, images, 1, depth="layer3"), expected)


# --- shells -------------------------------------------------------------------------------------


def compiled(model):
    return torch.compile(model, backend="eager", fullgraph=True)


def compiled_in_place(model):
    model.compile(backend="eager", fullgraph=True)
    return model


@pytest.mark.parametrize("shell", [compiled, compiled_in_place, lambda m: ModelEmaV3(m).eval()])
@pytest.mark.parametrize("used", [False, True])
def test_shells_are_explained_as_the_model_they_run(make_resnet, pictures, shell, used):
    torch._dynamo.reset()
    model = make_resnet()
    expected = {depth: explain(model, pictures, 1, depth=depth) for depth in ("layer3", "head")}
    wrapped = shell(model)
    if used:
        wrapped(pictures)
    for depth, explanation in expected.items():
        check_depth(wrapped, depth)
        assert_same(explain(wrapped, pictures, 1, depth=depth), explanation)
    torch._dynamo.reset()


def test_a_layer_that_is_passed_by_is_said(make_resnet, pictures):
    model = make_resnet()
    model.forward = lambda x: model.fc(x).mean((2, 3))
    model.fc = BcosConv2d(6, 3, 1).double()
    before = state_of(model)
    with pytest.raises(NotExplainableError, match=r"'layer3' was passed by.*down to pixels"):
        explain(model, pictures, depth="layer3")
    assert_equal_state(before, state_of(model))


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [explain, lambda *a, **k: next(explain_classes(*a, **k))])
def test_an_unknown_depth_is_refused_with_those_there_are(make_resnet, pictures, call):
    with pytest.raises(
        ValueError,
        match=r"one of pixels, act1, layer1, layer2, layer3, layer4, head for this BcosResNet, got"
        r" 'layer5'; did you mean 'layer4'\?",
    ):
        call(make_resnet(), pictures, depth="layer5")


def test_other_models_know_pixels_only(pictures):
    model = nn.Sequential(BcosConv2d(6, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    check_depth(model, "pixels")
    with pytest.raises(ValueError, match="depth must be pixels for this Sequential, got 'head'"):
        explain(model.eval(), pictures, depth="head")


def test_depths_go_from_pixels_to_the_head(make_vit):
    assert make_vit(depth=3).depths() == ("pixels", "patch_embed", "blocks.0", "blocks.1", "head")
