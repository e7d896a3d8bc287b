"""Tiles become what each kind of model takes, and stains travel with the weights."""

import copy

import pytest
import torch
from torch import nn

from bcos_vit.models import create_model, create_twin
from bcos_vit.stain_space import StainSpace
from pathology.tasks.encoding import TileEncoding

TILES = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
SPACE = StainSpace(eosin=(0.2159, 0.8012, 0.5581), white=(0.95, 0.9, 0.93))


@pytest.fixture
def stain_model():
    return create_model("bcos_resnet18", num_classes=2, encoding="stain")


def in_rgb(mean=None, std=None, **attributes):
    """A model of three channels with this data config."""
    model = nn.Conv2d(3, 2, 1)
    if mean is not None:
        model.pretrained_cfg = {"mean": mean, "std": std}
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def test_bcos_models_get_the_complement():
    encoded = TileEncoding(create_model("bcos_resnet18", num_classes=2))(TILES)
    assert torch.equal(encoded[:, :3], TILES / 255)
    assert torch.equal(encoded[:, 3:], 1 - TILES / 255)


def test_bcos_models_of_three_channels_get_plain_values():
    encoded = TileEncoding(create_model("bcos_resnet18", num_classes=2, in_chans=3))(TILES)
    assert torch.equal(encoded, TILES / 255)


def test_conventional_models_get_their_own_normalisation():
    twin = create_twin("bcos_resnet18", num_classes=2)
    mean = torch.tensor(twin.pretrained_cfg["mean"])[:, None, None]
    std = torch.tensor(twin.pretrained_cfg["std"])[:, None, None]
    assert torch.allclose(TileEncoding(twin)(TILES), (TILES / 255 - mean) / std)


@pytest.mark.parametrize("dynamic_linear", [False, True])
def test_rgb_is_normalised_by_the_data_config_and_by_nothing_else(dynamic_linear):
    model = in_rgb((0.1, 0.2, 0.3), (0.5, 0.25, 2.0), encoding="rgb", in_chans=3)
    model.dynamic_linear = dynamic_linear
    encoded = TileEncoding(model)(TILES)
    for chan, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.25), (0.3, 2.0))):
        # float32
        assert torch.allclose(encoded[:, chan], (TILES[:, chan] / 255 - mean) / std, atol=1e-6)


def test_without_a_data_config_values_stay():
    assert torch.equal(TileEncoding(in_rgb())(TILES), TILES / 255)


def test_a_wrapper_that_names_no_encoding_gets_that_of_its_channels():
    assert TileEncoding(in_rgb(in_chans=6)).name == "complement"


def test_stain_models_get_stains(stain_model):
    encoding = TileEncoding(stain_model)
    assert torch.equal(encoding(TILES), StainSpace().encode(TILES / 255))
    assert encoding.stain_space == StainSpace()


@pytest.mark.parametrize(
    "given", [SPACE, {"eosin": [0.2159, 0.8012, 0.5581], "white": [0.95, 0.9, 0.93]}]
)
def test_stains_are_as_given(stain_model, given):
    encoding = TileEncoding(stain_model, given)
    assert encoding.stain_space == SPACE
    assert torch.equal(encoding(TILES), SPACE.encode(TILES / 255))


def test_loading_brings_back_the_stains_of_training(stain_model, tmp_path):
    torch.save(TileEncoding(stain_model, SPACE).state_dict(), tmp_path / "encoding.pt")
    loaded = TileEncoding(stain_model)
    loaded.load_state_dict(torch.load(tmp_path / "encoding.pt", weights_only=True))
    assert loaded.stain_space == SPACE
    # To the bit: they are kept as they were computed with.
    assert torch.equal(loaded(TILES), SPACE.encode(TILES / 255))


def test_the_type_of_the_weights_does_not_round_the_stains(stain_model):
    encoding = copy.deepcopy(TileEncoding(stain_model, SPACE)).bfloat16()
    assert torch.equal(encoding(TILES), SPACE.encode(TILES / 255))


@pytest.mark.parametrize("chans", [3, 6])
def test_other_encodings_save_nothing(chans):
    # Runs trained before there were stains still load.
    model = create_model("bcos_resnet18", num_classes=2, in_chans=chans)
    assert not TileEncoding(model).state_dict()


def test_stains_for_a_model_that_sees_none_are_refused():
    model = create_model("bcos_resnet18", num_classes=2)
    with pytest.raises(ValueError, match="for models in stain space, this one's is 'complement'"):
        TileEncoding(model, SPACE)


def test_stains_that_are_none_are_refused(stain_model):
    with pytest.raises(ValueError, match="takes haematoxylin, eosin, residual, white; got glass"):
        TileEncoding(stain_model, {"glass": 0.9})
    with pytest.raises(ValueError, match="white must lie in"):
        TileEncoding(stain_model, {"white": (240, 240, 240)})


def test_other_channel_counts_are_refused():
    with pytest.raises(ValueError, match="got 5"):
        TileEncoding(in_rgb(in_chans=5))
