"""Reference weights load into our models and compute what the reference computes."""

import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from bcos_vit.errors import UnknownModelError, WeightsError
from bcos_vit.explain import explain
from bcos_vit.models import from_bcos_v2
from bcos_vit.models.bcos_v2 import ENTRY_POINTS, convert_state_dict

GOLDEN = Path(os.environ.get("BCOS_PATHOLOGY_DATA", "../shared/data")) / "bcos_v2_golden"


def recipe(key, shape):
    """The golden vectors' weights: made from the key, so that they need not be stored."""
    r = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if len(shape) != 1:
        return 0.1 * r
    return 1 + 0.1 * r if key.endswith("weight") else 0.05 * r


def state_dict(golden, dtype):
    tensors = {}
    for entry in golden["keys"]:
        key, shape = str(entry).split(" ", 1)
        stored = f"buffer:{key}"
        if stored in golden.files:
            tensors[key] = torch.from_numpy(golden[stored])
        else:
            tensors[key] = recipe(key, tuple(map(int, re.findall(r"\d+", shape))))
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}


def golden_images(chans):
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(2, 3, 224, 224, generator=generator).double()
    return rgb if chans == 3 else torch.cat([rgb, 1 - rgb], 1)


@pytest.mark.real_slides
@pytest.mark.skipif(not GOLDEN.is_dir(), reason="BCOS_PATHOLOGY_DATA holds no bcos_v2_golden")
@pytest.mark.parametrize(
    "name",
    [
        "resnet18", "resnext50_32x4d", "densenet121", "vgg11_bnu", "convnext_tiny",
        "convnext_tiny_bnu", "simple_vit_ti_patch16_224", "vitc_ti_patch1_14",
        "standard_simple_vit_ti_patch16_224",
    ],
)  # fmt: skip
def test_logits_and_maps_equal_the_references(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    model = from_bcos_v2(name, state_dict(golden, torch.float64))
    assert not model.training
    x = golden_images(model.in_chans)
    with torch.no_grad():
        logits = model(x).numpy()
    scale = np.abs(golden["logits"]).max()
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=1e-12 * scale)
    if "explained" not in golden.files:
        return
    image, target = golden["explained"][0]
    explanation = explain(model, x[image], int(target))
    expected = golden["contribution_maps"][0]
    # Maps are stored in float32, which is good to 6e-8 of each value.
    np.testing.assert_allclose(
        explanation.contributions, expected, rtol=0, atol=1e-6 * np.abs(expected).max()
    )
    assert explanation.completeness_gap < 1e-12
    if "vit" in name:
        assert explanation.constants["position"].abs() > 1e-4


def made_up(entry="resnet18", classes=1000, dtype=torch.float32):
    """A state dict of the reference's layout, of any class count, from our own model's shapes."""
    torch.manual_seed(1)
    model = from_bcos_v2(entry, fresh(entry, classes)).to(dtype)
    return reference_names(model.state_dict()), model


def reference_names(tensors):
    """A ResNet's names as the reference has them."""
    names = {}
    for key, value in tensors.items():
        if key.startswith("logits."):
            continue
        is_conv = key.endswith("weight") and value.ndim == 4
        names[key.removesuffix("weight") + "linear.weight" if is_conv else key] = value
        if key.endswith("running_var"):
            names[key.replace("running_var", "running_mean")] = torch.zeros_like(value)
    return names


def fresh(entry, classes):
    from bcos_vit.models import create_model

    name, arguments = ENTRY_POINTS[entry]
    return reference_names(create_model(name, num_classes=classes, **arguments).state_dict())


@pytest.mark.parametrize(
    ("wrap", "options"),
    [
        (lambda d: d, {}),
        (lambda d: {f"module.{k}": v for k, v in d.items()}, {}),
        (lambda d: {"state_dict": {f"model.{k}": v for k, v in d.items()}, "epoch": 3}, {}),
        (lambda d: {"state_dict": {f"ema.module.{k}": v for k, v in d.items()}}, {}),
        (
            lambda d: (
                {f"model.{k}": v for k, v in d.items()}
                | {f"ema.module.{k}": v + 1 for k, v in d.items()}
            ),
            {"prefix": "model."},
        ),
        (
            lambda d: (
                {f"model.{k}": v for k, v in d.items()}
                | {f"ema.module.{k}": v + 1 for k, v in d.items()}
            ),
            {"prefix": "model"},
        ),
    ],
)
def test_prefixes_of_training_frameworks_are_stripped(wrap, options):
    tensors, model = made_up(classes=4)
    loaded = from_bcos_v2("resnet18", wrap(tensors), **options)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_two_sets_of_weights_ask_for_a_choice():
    tensors, _ = made_up(classes=4)
    both = {f"{p}{k}": v for p in ("model.", "ema.module.") for k, v in tensors.items()}
    with pytest.raises(WeightsError, match=r"2 sets .*'ema\.module\.', 'model\.'.*prefix="):
        from_bcos_v2("resnet18", both)
    with pytest.raises(WeightsError, match=r"under prefix 'x\.', only under"):
        from_bcos_v2("resnet18", both, prefix="x.")


def test_files_are_read_without_running_code(tmp_path):
    tensors, model = made_up(classes=4)
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": tensors, "hyper_parameters": {"lr": 1e-3}}, path)
    loaded = from_bcos_v2("resnet18", path)
    assert torch.equal(loaded.fc.weight, model.fc.weight)
    torch.save({"state_dict": tensors, "hyper_parameters": Path("x")}, path)
    with pytest.raises(WeightsError, match=r"last\.ckpt: holds more than tensors"):
        from_bcos_v2("resnet18", path)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(WeightsError, match=r"last\.ckpt: cannot be read"):
        from_bcos_v2("resnet18", path)
    with pytest.raises(WeightsError, match=r"none\.pth: cannot be read"):
        from_bcos_v2("resnet18", tmp_path / "none.pth")


@pytest.mark.parametrize(("classes", "bias"), [(1000, -6.906754778648554), (4, -1.0986), (2, 0.0)])
def test_the_logit_bias_is_the_references_for_the_class_count(classes, bias):
    tensors, _ = made_up(classes=classes)
    model = from_bcos_v2("resnet18", tensors)
    assert model.num_classes == classes
    assert model.logits.bias.tolist() == pytest.approx([bias] * classes, abs=1e-4)
    # What is asked for is kept to the last digit of the type it is asked for in.
    exact = from_bcos_v2("resnet18", tensors, logit_bias=-0.1, temperature=2.0).double()
    assert exact.logits.bias.tolist() == [-0.1] * classes
    assert exact.logits.temperature == 2


def test_a_model_in_float32_made_float64_has_the_references_bias():
    tensors, _ = made_up()
    assert from_bcos_v2("resnet18", tensors).double().logits.bias[0] == -6.906754778648554


def test_weights_keep_their_type_and_the_widest_wins():
    tensors, _ = made_up(classes=4, dtype=torch.float64)
    assert from_bcos_v2("resnet18", tensors).fc.weight.dtype == torch.float64
    tensors["fc.linear.weight"] = tensors["fc.linear.weight"].float()
    assert from_bcos_v2("resnet18", tensors).bn1.running_var.dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("bn1.weight"), r"of 'resnet18' lacks 'bn1\.weight'$"),
        (
            lambda d: d.update({"bn9.weight": torch.ones(3)}),
            r"holds 'bn9\.weight', for which the model has no",
        ),
        (
            lambda d: d.update({"bn1.weight": torch.ones(3)}),
            r"holds 'bn1\.weight' in another shape",
        ),
        (lambda d: d.update({"bn1.running_mean": torch.ones(64)}), r"is not zero.*centred"),
        (lambda d: d.pop("fc.linear.weight"), "lacks its first layer or its classifier"),
        (lambda d: d.clear(), "holds no tensors"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message):
    tensors, _ = made_up(classes=4)
    change(tensors)
    with pytest.raises(WeightsError, match=message):
        from_bcos_v2("resnet18", tensors)


def test_something_else_than_a_state_dict_is_refused():
    with pytest.raises(WeightsError, match="expected a state dict, got list"):
        from_bcos_v2("resnet18", [1, 2])
    with pytest.raises(WeightsError, match="expected a state dict, got a int of that name"):
        from_bcos_v2("resnet18", {"state_dict": 3})


@pytest.mark.parametrize("order", [sorted, lambda keys: list(reversed(keys))])
def test_the_order_of_names_does_not_matter(order):
    tensors, model = made_up(classes=4)
    loaded = from_bcos_v2("resnet18", {key: tensors[key] for key in order(list(tensors))})
    assert (loaded.num_classes, loaded.in_chans) == (4, 6)
    assert torch.equal(loaded.layer3[0].conv1.weight, model.layer3[0].conv1.weight)


def test_a_logit_bias_that_was_given_stays_with_a_new_head():
    tensors, _ = made_up(classes=4)
    model = from_bcos_v2("resnet18", tensors, logit_bias=-2.0)
    model.reset_classifier(7)
    assert model.logits.bias.tolist() == [-2] * 7


def test_a_misspelt_entry_point_is_answered_with_the_nearest():
    with pytest.raises(
        UnknownModelError, match="no entry point 'resnet_18'; did you mean resnet18"
    ):
        convert_state_dict("resnet_18", {})
