"""How far a network's cells see: measured by what a missing value spoils.

A NaN spoils whatever is computed from it, be it multiplied by zero or passed over by a maximum. So
an image that is NaN on one side of a line tells which cells of the last map depend on that side
through any weights at all: what is found is a property of the architecture.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bcos_vit.models.base import BcosConvNet

_FIRST_PX, _LAST_PX, _WIDTH_PX = 512, 8192, 32
"""Lengths of the strips that are tried, one twice the other, and their width."""


class Field(NamedTuple):
    """What is known of a network's cells, the places of its local logits.

    Args:
        stride_px: from one cell to the next; cell k belongs to pixels ``[k, k + 1) * stride_px``.
        halo_px: a multiple of the stride: pixels around a cell's own beyond which it sees nothing.
    """

    stride_px: int
    halo_px: int


def measure_field(network: nn.Module) -> Field:
    """Stride and halo of a network of ours with local logits.

    A few strips pass through a copy on the CPU; the work is that of some tiles.

    Args:
        network: may be in training mode, on any device.

    Raises:
        ValueError: it has no local logits; it has not a cell for every stride of pixels; its
            cells see all of an image, or further than 4096 px.
    """
    kind = type(network).__name__
    if not isinstance(network, BcosConvNet) or not (network.num_classes and network.local_logits):
        raise ValueError(
            "dense evaluation needs a convolutional network of ours with local logits (ResNet,"
            f" DenseNet, VGG, ConvNeXt with head_norm_first), got {kind}"
        )
    with torch.device("cpu"):
        probe = _probe(network)
        stride = _stride(probe)
        length = _FIRST_PX
        while length <= _LAST_PX:
            halo = _halo(probe, length, stride)
            if halo is not None:
                return Field(stride, halo)
            length *= 2
    raise ValueError(
        f"dense evaluation needs cells that see a bounded part of an image; those of this {kind}"
        f" see all of {_LAST_PX} px"
    )


def required_halo(network: nn.Module) -> int:
    """The least halo in pixels that hides all padding from a tile, a multiple of the stride.

    In an image of a tile with so many pixels on each of its sides, no cell over the tile sees the
    zeros that layers pad their inputs with.

    Raises:
        ValueError: see :func:`measure_field`.
    """
    return measure_field(network).halo_px


@torch.no_grad()
def _probe(network: BcosConvNet) -> BcosConvNet:
    """The same layers with weights that let numbers neither grow nor vanish."""
    probe = copy.deepcopy(network).to_empty(device="cpu").float().eval()
    for tensor in (*probe.parameters(), *probe.buffers()):
        tensor.fill_(1 / tensor[0].numel() if tensor.ndim > 1 else 1)
    return probe


def _stride(network: BcosConvNet) -> int:
    """Pixels per cell, the same for every length that it divides."""
    count = _cells(network, _strips(network, 1, _FIRST_PX)).shape[2]
    stride = _FIRST_PX // count
    longer = _cells(network, _strips(network, 1, _FIRST_PX + stride)).shape[2]
    if _FIRST_PX % count or longer != count + 1:
        raise ValueError(
            "dense evaluation needs a cell for every stride of pixels, layers that keep sides by"
            f" padding; this {type(network).__name__} makes {count} cells of {_FIRST_PX} px"
        )
    return stride


def _halo(network: BcosConvNet, length: int, stride: int) -> int | None:
    """The halo by strips of ``length``; None where that is too short to tell."""
    middle = length // 2
    strips = _strips(network, 2, length)
    strips[0, :, :middle] = torch.nan
    strips[1, :, middle:] = torch.nan
    reach = 0
    for turned in (False, True):
        cells = _cells(network, strips.mT.contiguous() if turned else strips)
        spoilt = (cells.mT if turned else cells).isnan().any(3).any(1)
        below = (int(spoilt[0].nonzero().max()) + 1) * stride - middle
        above = middle - int(spoilt[1].nonzero().min()) * stride
        if max(below, above) >= middle:
            return None
        reach = max(reach, below, above)
    return reach


def _strips(network: BcosConvNet, count: int, length: int) -> Tensor:
    """``(count, channels, length, width)`` of noise, which disturbs no other random numbers."""
    width = max(_WIDTH_PX, network.min_size_px)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, network.in_chans, length, width, generator=generator)


@torch.no_grad()
def _cells(network: BcosConvNet, images: Tensor) -> Tensor:
    """``(batch, classes, rows, columns)`` of local evidence."""
    return network.local_evidence(network.forward_features(images))
