"""Encodings by name: what each makes, and which models take it."""

import pytest
import torch

from bcos_vit.encodings import CHANNELS, channels, check_encoding
from bcos_vit.models import create_model
from bcos_vit.transforms import encode


@pytest.mark.parametrize("name", CHANNELS)
def test_each_makes_the_channels_it_says(name):
    for shape in ((3, 4, 5), (2, 3, 4, 5)):
        assert encode(torch.rand(shape), name).shape == (*shape[:-3], channels(name), 4, 5)


def test_what_goes_with_a_number_of_channels():
    assert [check_encoding(None, n) for n in (3, 4, 6)] == ["rgb", None, "complement"]
    assert [check_encoding(name, n) for name, n in CHANNELS.items()] == list(CHANNELS)


@pytest.mark.parametrize("name", ["hsv", "", "Stain"])
def test_unknown_ones_are_refused(name):
    for refuse in (
        lambda: channels(name),
        lambda: check_encoding(name, 6),
        lambda: encode(torch.rand(3, 2, 2), name),
        lambda: create_model("bcos_resnet18", num_classes=2, encoding=name),
    ):
        with pytest.raises(ValueError, match=r"one of \['complement', 'rgb', 'stain'\]"):
            refuse()


@pytest.mark.parametrize(("name", "chans"), [("stain", 3), ("complement", 3), ("rgb", 6)])
def test_another_number_of_channels_is_refused(name, chans):
    message = f"'{name}' makes {CHANNELS[name]} channels, in_chans is {chans}"
    with pytest.raises(ValueError, match=message):
        create_model("bcos_resnet18", num_classes=2, encoding=name, in_chans=chans)


@pytest.mark.parametrize("name", ["bcos_resnet18", "bcos_vit_tiny_patch16_224"])
def test_models_know_theirs(name):
    assert create_model(name, num_classes=2).encoding == "complement"
    assert create_model(name, num_classes=2, in_chans=3).encoding == "rgb"
    assert create_model(name, num_classes=2, encoding="stain").encoding == "stain"
