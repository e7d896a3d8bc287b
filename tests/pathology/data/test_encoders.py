"""Encoders: the same features as the model by hand, and clear words for whatever is no encoder."""

import hashlib

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from bcos_vit.errors import UnknownModelError, WeightsError
from bcos_vit.models import create_model
from bcos_vit.transforms import encode
from pathology.data.encoders import (
    Normalisation,
    check_precision,
    encoder_named,
    pick_device,
    tensors_digest,
    timm_encoder,
)
from pathology.errors import StampMismatchError

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
VIT, CNN = "vit_tiny_patch16_224", "test_resnet"


def make_tiles(count=3, side=32):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


def by_hand(model, tiles):
    """Pooled features in float64, from pixels normalised by the model's own configuration."""
    model = model.double().eval()
    mean, std = (torch.tensor(model.pretrained_cfg[n]).double() for n in ("mean", "std"))
    images = (tiles.double() / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        return model.forward_head(model.forward_features(images), pre_logits=True)


@pytest.mark.parametrize(("name", "arguments"), [(VIT, SMALL), (CNN, {})])
def test_features_are_the_models_before_its_classifier(name, arguments):
    encoder = timm_encoder(name, seed=3, arguments=arguments)
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=0, **arguments)
    tiles = make_tiles(side=32 if arguments else 160)
    wanted = by_hand(model, tiles).numpy()
    got = encoder(tiles)
    assert got.dtype == torch.float32
    assert got.shape == (3, encoder.dims)
    # float32 against float64, through a few layers.
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_bcos_model_by_name_sees_its_own_channels():
    arguments = SMALL | {"mlp_ratio": 2.0}
    encoder = timm_encoder("bcos_vit_tiny_patch16_224", seed=1, arguments=arguments)
    assert encoder.encoding == "complement"
    torch.manual_seed(1)
    model = create_model("bcos_vit_tiny_patch16_224", num_classes=0, **arguments).double().eval()
    tiles = make_tiles()
    with torch.no_grad():
        wanted = model(encode(tiles.double() / 255)).numpy()
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(encoder(tiles).numpy(), wanted, rtol=0, atol=1e-5 * scale)


def test_random_weights_are_the_seeds_and_leave_the_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (timm_encoder(CNN, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.weights == same.weights != other.weights
    assert one.name == "test_resnet, random weights of seed 1"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("classes", [0, 5])
def test_weights_are_loaded_from_a_file_with_or_without_a_classifier(tmp_path, suffix, classes):
    model = timm.create_model(VIT, num_classes=classes, **SMALL)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": model.state_dict()}, path)
    else:
        safetensors.torch.save_file(model.state_dict(), path)
    encoder = timm_encoder(VIT, path, arguments=SMALL, pixels="model")
    tiles = make_tiles()
    wanted = by_hand(model, tiles).numpy()
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(encoder(tiles).numpy(), wanted, rtol=0, atol=1e-5 * scale)
    assert encoder.weights == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.1.norm1.weight"), r"lacks 'blocks\.1\.norm1\.weight'"),
        (lambda t: t.update(extra=torch.ones(1)), "holds 'extra', which the model has not"),
        (
            lambda t: t.update({"norm.weight": torch.ones(25), "norm.bias": torch.ones(25)}),
            r"holds 'norm\.weight' of shape \(25,\), wanted \(24,\), and 1 more",
        ),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, change, message):
    tensors = timm.create_model(VIT, num_classes=0, **SMALL).state_dict()
    change(tensors)
    torch.save(tensors, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=message):
        timm_encoder(VIT, tmp_path / "weights.pth", arguments=SMALL)


def test_how_pixels_were_normalised_for_a_file_of_weights_must_be_said(tmp_path):
    torch.save(timm.create_model(VIT, num_classes=0, **SMALL).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="--pixels imagenet, half, clip, or model"):
        timm_encoder(VIT, tmp_path / "a.pth", arguments=SMALL)
    encoder = timm_encoder(VIT, tmp_path / "a.pth", arguments=SMALL, pixels="imagenet")
    assert encoder.encoding == "rgb, mean 0.485 0.456 0.406, std 0.229 0.224 0.225"
    white = encoder.transform(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    np.testing.assert_allclose(white[0, 0, 0, 0], (1 - 0.485) / 0.229, rtol=1e-6)
    with pytest.raises(ValueError, match="--pixels is for RGB"):
        timm_encoder("bcos_vit_tiny_patch16_224", seed=0, arguments=SMALL, pixels="clip")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.npz"])
def test_files_that_hold_no_weights_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"these are no weights")
    with pytest.raises(WeightsError, match="not a file of weights"):
        timm_encoder(CNN, tmp_path / name)


def test_weights_that_are_not_there_are_said(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        timm_encoder(CNN, tmp_path / "weights.pth")


@pytest.mark.parametrize("given", [{}, {"pretrained": True, "seed": 0}])
def test_where_weights_are_from_must_be_said_once(given):
    with pytest.raises(ValueError, match=r"one of --weights FILE, --pretrained,\s+or --encoder-s"):
        timm_encoder(CNN, **given)


def test_an_unknown_model_is_said_with_its_neighbours():
    with pytest.raises(UnknownModelError, match="resnet18"):
        encoder_named("resnet_18", seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wideness": 3}, "--encoder-args.*wideness"),
        ({"num_heads": 5}, "--encoder-args.*divisible by num_heads"),
        ({"norm_layer": "none"}, "--encoder-args.*'none'"),
        ({"features_only": True}, "no forward_features.*FeatureGetterNet"),
        ({"img_size": [32, 64]}, "tiles are square"),
    ],
)
def test_arguments_that_make_no_encoder_are_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        timm_encoder(VIT, seed=0, arguments=arguments)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_what_is_no_seed_is_said(seed):
    with pytest.raises(ValueError, match="--encoder-seed must be from 0"):
        timm_encoder(VIT, seed=seed, arguments=SMALL)


@pytest.mark.parametrize("name", ["resnet18", "hf-hub:owner/model"])
def test_what_cannot_be_downloaded_is_said_in_a_line(monkeypatch, name):
    def offline(*_, **__):
        raise ConnectionError("no route to host\nand much more")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(WeightsError, match=r"cannot be had: .*no route to host") as caught:
        timm_encoder(name, pretrained=True)
    assert "much more" not in str(caught.value)


def test_tiles_of_another_size_are_refused_or_resized():
    encoder = timm_encoder(VIT, seed=0, arguments=SMALL)
    encoder.check_size(32, "tiles")
    with pytest.raises(StampMismatchError, match=r"tiles of 48 px.*takes 32 px.*--resize"):
        encoder.check_size(48, "tiles")
    resizing = timm_encoder(VIT, seed=0, arguments=SMALL, resize=True)
    resizing.check_size(48, "tiles")
    assert resizing.encoding.endswith(", resized to 32 px (bicubic)")
    assert not encoder.encoding.endswith("(bicubic)")
    flat = torch.full((1, 3, 48, 48), 100, dtype=torch.uint8)
    # What does not change with size is the same; to rounding of the filter's weights.
    torch.testing.assert_close(
        resizing(flat), encoder(flat[..., :32, :32].contiguous()), rtol=0, atol=1e-4
    )


def test_resizing_does_not_leave_the_range_of_light():
    transform = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), size_px=40)
    edge = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    edge[..., 30:] = 255
    light = transform(edge)
    assert light.shape == (1, 3, 40, 40)
    assert (light.min(), light.max()) == (0, 1)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 3e-2), ("fp16", 5e-3)])
def test_half_precision_is_close_and_is_half_precision(precision, tolerance):
    """Products keep 8 (bf16) or 11 (fp16) bits, 0.4 % and 0.05 % each; errors of layers add up."""
    encoder = timm_encoder(VIT, seed=0, arguments=SMALL)
    tiles = make_tiles(8)
    exact, rounded = encoder(tiles), encoder(tiles, precision)
    assert rounded.dtype == torch.float32
    error = (exact - rounded).abs().max() / exact.abs().max()
    assert 1e-5 < error < tolerance


def test_the_digest_is_of_all_that_weights_are():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    known = tensors_digest(model)
    assert known == tensors_digest(model)
    model[1].running_var[1] = 2
    assert known != tensors_digest(model)
    assert tensors_digest(nn.Linear(2, 3)) != tensors_digest(nn.Linear(3, 2))


# --- functions of the user

SOURCE = """
import torch
from torch import nn
from pathology.data.encoders import Normalisation

class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.eye(3)[:2].double())

    def forward(self, images):
        return images.double().mean((2, 3)) @ self.weight.T

class Colours:
    module = Mean()
    transform = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    name = "mean colours"
    dims = 2

class Nameless:
    module, transform, dims = Mean(), lambda tiles: tiles, 2

class Wrong(Colours):
    dims = 7

class Modest(Colours):
    module = None

def broken():
    return 1 / 0

def needs_more(weights):
    return Colours()

number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's where they stand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", __import__("sys").path.copy())
    for module in ("my_encoders", "my_other_encoders"):
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)
    (tmp_path / "my_encoders.py").write_text(SOURCE)
    return tmp_path


def test_a_function_of_the_users_is_an_encoder(mine):
    encoder = encoder_named("my_encoders:Colours")
    tiles = make_tiles()
    wanted = (tiles.double().mean((2, 3)) / 255 - 0.5)[:, :2] / 0.25
    np.testing.assert_allclose(encoder(tiles).numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)
    assert (encoder.name, encoder.dims, encoder.size_px) == ("mean colours", 2, None)


def test_what_a_transform_was_given_elsewhere_is_another_encoder(mine, monkeypatch):
    one = encoder_named("my_encoders:Colours").encoding
    assert "rgb, mean 0.5 0.5 0.5, std 0.25 0.25 0.25" in one
    colours = __import__("sys").modules["my_encoders"].Colours
    found = {one}
    for transform in (Normalisation((0.5,) * 3, (0.5,) * 3), nn.BatchNorm2d(3), nn.BatchNorm2d(4)):
        monkeypatch.setattr(colours, "transform", transform)
        found.add(encoder_named("my_encoders:Colours").encoding)
    assert len(found) == 4


def test_another_source_is_another_encoder(mine):
    (mine / "my_other_encoders.py").write_text(SOURCE.replace("0.25, 0.25", "0.5, 0.25"))
    one, other = encoder_named("my_encoders:Colours"), encoder_named("my_other_encoders:Colours")
    assert one.weights == other.weights
    assert one.encoding.partition("source")[2] != other.encoding.partition("source")[2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_encoders:Nameless", "has no attribute 'name'"),
        ("my_encoders:broken", "ZeroDivisionError: division by zero"),
        ("my_encoders:needs_more", "TypeError: needs_more.. missing"),
        ("my_encoders:missing", "AttributeError"),
        ("my_encoders:number", "TypeError"),
        ("nobodys_module:function", "ModuleNotFoundError: No module named 'nobodys_module'"),
        (":function", "ValueError"),
        ("my_encoders:", "AttributeError"),
        ("my_encoders:Modest", "module must be an nn.Module"),
    ],
)
def test_what_is_no_encoder_is_said(mine, name, message):
    with pytest.raises(ValueError, match=message):
        encoder_named(name)


def test_an_encoder_that_returns_something_else_is_said(mine):
    encoder = encoder_named("my_encoders:Wrong")
    with pytest.raises(
        ValueError, match=r"mean colours returns \(3, 2\), wanted a tensor \(3, 7\)"
    ):
        encoder(make_tiles())


def test_an_encoder_that_fails_is_said():
    encoder = timm_encoder(VIT, seed=0, arguments=SMALL)
    with pytest.raises(ValueError, match=r"failed on tiles of shape \(3, 3, 33, 33\)"):
        encoder(make_tiles(side=33))


def test_a_function_has_its_weights_itself(mine):
    with pytest.raises(ValueError, match=r"leave\s+out --weights"):
        encoder_named("my_encoders:Colours", pretrained=True)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x"])
def test_devices_that_there_are_not_are_said(name):
    with pytest.raises(ValueError, match=rf"device '{name}' cannot be used"):
        pick_device(name)


def test_precisions_that_there_are_not_are_said():
    with pytest.raises(ValueError, match="precision must be one of fp32, fp16, bf16; got 'half'"):
        check_precision("half")
