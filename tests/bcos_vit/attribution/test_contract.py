"""What every method owes every network: it works and leaves nothing behind, or it refuses."""

import random
from contextlib import suppress

import numpy as np
import pytest
import torch

from bcos_vit.attribution import METHODS, Attribution, Method, make_method
from bcos_vit.errors import UnsupportedMethodError
from tests.bcos_vit.attribution.families import FAMILIES, SIDE, spotted, tiny

TARGET = torch.tensor([2, 0])

# As few passes as there can be.
QUICK = {
    "smoothgrad": {"samples": 2},
    "smooth_gradcam++": {"samples": 2},
    "integrated_gradients": {"steps": 2},
    "gradient_shap": {"samples": 2, "baselines": ("black", "glass")},
    "occlusion": {"window_px": 16, "stride_px": 16},
    "rise": {"n_masks": 10},
    "lime": {"n_samples": 16, "n_superpixels": 4},
    "kernel_shap": {"n_samples": 16, "n_superpixels": 4},
    "oracle": {"masks": torch.ones(2, SIDE, SIDE, dtype=torch.bool)},
}
BCOS = {family for family in FAMILIES if family.startswith("bcos")}
TWINS = FAMILIES.keys() - BCOS
RELU = {"resnet", "densenet", "vgg"}
VIT = {"vit", "vit_avg", "vitc"}
# The networks that a method is for, where that is not all of them.
ONLY = {
    "bcos": BCOS,
    "bcos_contrastive": BCOS,
    "deeplift": RELU,
    "guided_backprop": RELU,
    "ledger": TWINS,
    "lrp": TWINS - VIT - {"swin"},
    "attnlrp": VIT | {"swin"},
    "rollout": VIT | {"bcos_vit", "bcos_vitc"},
    "chefer": VIT | {"bcos_vit", "bcos_vitc"},
    "atman": VIT | {"bcos_vit", "bcos_vitc"},
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param, tiny(request.param)


def quick(name, family=""):
    settings = QUICK.get(name, {})
    if name == "scorecam" and family == "bcos_resnet":
        settings = {"layer": "layer1"}  # 64 channels rather than 512
    return make_method(name, **settings)


def state(classifier):
    """All that a method could leave on a network, on parameters and in generators."""
    modules = {}
    for name, module in classifier.named_modules():
        hooks = [k for k, v in vars(module).items() if "hooks" in k and v]
        plain = {
            k: v for k, v in vars(module).items() if isinstance(v, bool | int | float | str | type)
        }
        modules[name] = (type(module), hooks, plain, set(vars(module)))
    parameters = {
        name: (each.requires_grad, each.grad, each._version, each.data_ptr())
        for name, each in classifier.named_parameters()
    }
    chance = (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    return modules, parameters, chance, torch.is_grad_enabled(), torch.is_inference_mode_enabled()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_works_the_same_alone_and_in_a_batch_or_refuses(name, family):
    kind, classifier = family
    method, images = quick(name, kind), spotted()
    before = state(classifier)
    if kind not in ONLY.get(name, FAMILIES):
        with pytest.raises(UnsupportedMethodError, match=name):
            method.check(classifier)
        assert state(classifier) == before
        return
    method.check(classifier)
    both = method(classifier, images, TARGET)
    assert state(classifier) == before

    assert isinstance(method, Method)
    assert isinstance(both, Attribution)
    assert both.maps.shape == (2, SIDE, SIDE)
    assert both.maps.dtype in (torch.float32, torch.float64)
    assert both.unit == method.unit
    assert both.maps.isfinite().all()
    assert not both.maps.requires_grad
    torch.testing.assert_close(both.logits.double(), classifier(images).detach())
    assert both.target.tolist() == TARGET.tolist()
    assert both.forward_passes > 0
    if not method.is_signed:
        assert both.maps.min() >= 0

    if name == "oracle":
        return  # one mask per image of its batch
    alone = method(classifier, images[1:], TARGET[1:])
    scale = both.maps.abs().max()
    assert (alone.maps[0] - both.maps[1]).abs().max() <= 1e-6 * scale
    if both.completeness_gap is not None:
        torch.testing.assert_close(
            alone.completeness_gap, both.completeness_gap[1:], atol=1e-6, rtol=0
        )


def test_maps_depend_on_image_and_class(family):
    kind, classifier = family
    for name in ("input_x_gradient", "integrated_gradients", "gradcam"):
        settings = {"signed": True} if name == "gradcam" else QUICK.get(name, {})
        maps = make_method(name, **settings)(classifier, spotted(), TARGET).maps
        other = make_method(name, **settings)(classifier, spotted(), 2 - TARGET).maps
        assert not torch.allclose(maps[0], maps[1]), (kind, name)
        assert not torch.allclose(maps, other), (kind, name)


@pytest.fixture(scope="module")
def three():
    return [tiny(family) for family in ("vit", "resnet", "bcos_vit")]


def run_on_any(name, classifiers, *args):
    """The method on the first network that it is for."""
    for classifier in classifiers:
        with suppress(UnsupportedMethodError):
            quick(name).check(classifier)
            return quick(name)(classifier, *args)
    raise AssertionError(f"{name} refuses all")


@pytest.mark.parametrize("name", METHODS)
def test_bad_input_is_refused(name, three):
    images = spotted()
    spoilt = images.clone()
    spoilt[0, 0, 0, 0] = torch.nan
    for wrong in (spoilt, images * 2, images[:, :2], images[0]):
        with pytest.raises(ValueError, match=r"images|channels|RGB|one class"):
            run_on_any(name, three, wrong, TARGET)
    for wrong in (torch.tensor([0, 3]), torch.tensor([-1, 0]), TARGET[:1]):
        with pytest.raises(ValueError, match=r"target|class"):
            run_on_any(name, three, images, wrong)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_stays_behind_an_exception(name, three):
    def fail(*_):
        raise RuntimeError("out of luck")

    for classifier in three:
        handle = list(classifier.model.children())[-1].register_forward_hook(fail)
        try:
            quick(name).check(classifier)
        except UnsupportedMethodError:
            continue
        else:
            before = state(classifier)
            with pytest.raises(RuntimeError, match="out of luck"):
                quick(name)(classifier, spotted(), TARGET)
            assert state(classifier) == before
        finally:
            handle.remove()


@pytest.mark.parametrize("name", METHODS)
def test_the_callers_modes_do_not_matter(name, three):
    images = spotted()
    plain = run_on_any(name, three, images, TARGET)
    with torch.inference_mode():
        inferred = run_on_any(name, three, images.clone(), TARGET.clone())
    with torch.no_grad(), torch.autocast("cpu"):
        cast = run_on_any(name, three, images, TARGET)
    for other in (inferred, cast):
        assert torch.equal(other.maps, plain.maps)
        assert torch.equal(other.logits, plain.logits)


@pytest.mark.parametrize("name", METHODS)
def test_networks_in_training_mode_are_refused(name):
    classifier = tiny("resnet")
    classifier.model.train()
    with pytest.raises(UnsupportedMethodError):
        quick(name).check(classifier)
