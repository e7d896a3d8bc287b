"""Fixtures shared by every test: one thread, fixed seeds, small models with no weight at 1 or 0."""

import signal

import pytest
import torch
from torch import nn

torch.set_num_threads(1)
# What a shell starts in the background ignores Ctrl+C, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every test, whatever ran before it."""
    torch.manual_seed(0)


def unsettle(model: nn.Module) -> nn.Module:
    """Give norms, statistics and attention values that a fresh model would hide."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
            elif "qkv" in name:
                parameter.normal_(std=2 * parameter.shape[1] ** -0.5)
        for name, buffer in model.named_buffers():
            if "running_var" in name:
                buffer.uniform_(0.1, 2.0)
    return model


def settle_statistics(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Take every batch norm's variance from one batch, so that signals stay of order one."""
    norms = [module for module in model.modules() if hasattr(module, "momentum")]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


@pytest.fixture
def make_vit():
    """Builder of a two-block, eight-wide B-cos ViT for 4 x 4 images, float64, in eval mode."""
    from bcos_vit.models import BcosVisionTransformer

    def make(**options) -> BcosVisionTransformer:
        defaults = {
            "img_size": 4, "patch_size": 2, "num_classes": 3, "embed_dim": 8, "depth": 2,
            "num_heads": 2, "mlp_ratio": 2.0,
        }  # fmt: skip
        return unsettle(BcosVisionTransformer(**(defaults | options))).double().eval()

    return make


@pytest.fixture
def make_resnet():
    """Builder of a B-cos ResNet with one block per stage, float64, in eval mode."""
    from bcos_vit.models import BcosResNet

    def make(**options) -> BcosResNet:
        defaults = {"layers": (1, 1, 1, 1), "num_classes": 3}
        model = unsettle(BcosResNet(**(defaults | options))).double()
        shape = (8, options.get("in_chans", 6), 12, 12)
        return settle_statistics(model, torch.rand(shape, dtype=torch.float64))

    return make


@pytest.fixture
def tiny_vit(make_vit):
    return make_vit()


@pytest.fixture
def images():
    """Four six-channel images of 4 x 4 pixels, float64 in [0, 1]."""
    return torch.rand(4, 6, 4, 4, dtype=torch.float64)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Manifest of three synthetic slides of 1536 px, one per split, at 0.5 um/px."""
    from pathology.synthetic import make_cohort

    folder = tmp_path_factory.mktemp("cohort")
    return make_cohort(folder, train=1, val=1, test=1, size_px=(1536, 1536), mpp=0.5, seed=7)


@pytest.fixture(scope="session")
def cohort_tiles(cohort, tmp_path_factory):
    """Folder of labelled tile tables of the cohort, 64 px at 0.5 um/px."""
    from pathology.cli import main

    folder = tmp_path_factory.mktemp("tiles")
    arguments = ["tile", "--slides", str(cohort), "--out", str(folder)]
    assert main([*arguments, "--size-px", "64", "--tile-mpp", "0.5"]) == 0
    return folder


@pytest.fixture
def rng():
    """The same random numbers in every test."""
    import numpy as np

    return np.random.default_rng(0)
