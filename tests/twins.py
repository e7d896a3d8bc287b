"""A B-cos network beside its conventional twin, both without storage: shapes cost nothing."""

import torch
from torch import nn

from bcos_vit.layers import BcosBatchNorm2d, BcosConv2d
from bcos_vit.models import create_model, create_twin


def both(name, **options):
    """The model and its twin on the meta device, for six channels."""
    with torch.device("meta"):
        return create_model(name, **options), create_twin(name, in_chans=6, **options)


def convolutions(model):
    """Weight shape, stride and (rows, columns) of padding of every convolution, in order.

    A fully connected layer is a 1 x 1 convolution.
    """
    found = []
    for module in model.modules():
        if isinstance(module, BcosConv2d):
            left, _, top, _ = module.pads
            found.append((tuple(module.weight.shape), module.stride, (top, left)))
        elif isinstance(module, nn.Conv2d):
            found.append((tuple(module.weight.shape), module.stride, module.padding))
        elif isinstance(module, nn.Linear):
            found.append(((*module.weight.shape, 1, 1), (1, 1), (0, 0)))
    return found


def norms(model):
    """Channels and epsilon of every batch norm, in order."""
    kinds = (BcosBatchNorm2d, nn.BatchNorm2d)
    return [(len(m.weight), m.eps) for m in model.modules() if isinstance(m, kinds)]


def parameter_names(model):
    """Names of all parameters but biases."""
    return [name for name, _ in model.named_parameters() if not name.endswith("bias")]


def map_shapes(name, size):
    """Shapes of the feature maps of model and twin at one image of that height and width."""
    nets = both(name, features_only=True)
    x = torch.empty(1, 6, *size, device="meta")
    return [[feature_map.shape for feature_map in net.eval()(x)] for net in nets]
