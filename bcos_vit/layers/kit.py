"""What the layers of one network are made of: the one place that tells B-cos from conventional.

Composite layers and networks take a :class:`LayerKit` and ask it for their parts. With
``conventional=True`` the parts are those of the conventional twin (weights of any length, biases,
activations), under the same exponent ``b``: at ``b = 1`` the network *is* its twin, on the way to
2 it is a "B-cosified" network (Arya et al., NeurIPS 2024, arXiv:2411.00715). Every part is
dynamic-linear either way, and what its biases carry is a term of its own in an explanation.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from bcos_vit.layers.activation import GatedGelu
from bcos_vit.layers.conv import BcosConv2d
from bcos_vit.layers.linear import BcosLinear, PlainLinear
from bcos_vit.layers.norm import (
    BcosBatchNorm2d,
    BcosGroupNorm,
    BcosLayerNorm,
    BcosPositionNorm2d,
)
from bcos_vit.layers.scale import check_exponent, check_units

Activation = Literal["relu", "gelu"]


@dataclass(frozen=True, slots=True)
class LayerKit:
    """How every layer of a network is made.

    Args:
        b: exponent of every B-cos layer, at least 1.
        max_out: linear units behind each B-cos output.
        conventional: plain weights, biases and activations, as in the conventional twin.

    Raises:
        ValueError: an exponent or number of units below 1, ``max_out`` with plain weights.
    """

    b: float = 2.0
    max_out: int = 1
    conventional: bool = False

    def __post_init__(self) -> None:
        check_exponent(self.b)
        check_units(self.max_out, unit_norm=not self.conventional)

    def linear(self, in_features: int, out_features: int, *, bias: bool = True) -> BcosLinear:
        """A linear layer; ``bias`` only counts in a conventional network."""
        return BcosLinear(
            in_features,
            out_features,
            b=self.b,
            max_out=self.max_out,
            unit_norm=not self.conventional,
            bias=bias and self.conventional,
        )

    def conv(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        *,
        groups: int = 1,
        bias: bool = True,
    ) -> BcosConv2d:
        """A convolution; ``bias`` only counts in a conventional network."""
        return BcosConv2d(
            in_chans,
            out_chans,
            kernel_size,
            stride,
            padding,
            groups=groups,
            b=self.b,
            max_out=self.max_out,
            unit_norm=not self.conventional,
            bias=bias and self.conventional,
        )

    def plain_linear(
        self, in_features: int, out_features: int, *, bias: bool = True
    ) -> PlainLinear:
        """A layer that is linear whatever the network's exponent."""
        return PlainLinear(in_features, out_features, bias=bias and self.conventional)

    def batch_norm(self, chans: int, eps: float = 1e-5) -> BcosBatchNorm2d:
        return BcosBatchNorm2d(chans, eps, bias=self.conventional)

    def layer_norm(self, dim: int, eps: float = 1e-5) -> BcosLayerNorm:
        return BcosLayerNorm(dim, eps, bias=self.conventional)

    def position_norm(self, chans: int, eps: float = 1e-6) -> BcosPositionNorm2d:
        return BcosPositionNorm2d(chans, eps, bias=self.conventional)

    def group_norm(self, chans: int, groups: int = 1, eps: float = 1e-5) -> BcosGroupNorm:
        return BcosGroupNorm(chans, groups, eps, bias=self.conventional)

    def act(self, name: Activation) -> nn.Module:
        """The twin's activation in a conventional network, nothing in a B-cos network."""
        if not self.conventional:
            return nn.Identity()
        return nn.ReLU() if name == "relu" else GatedGelu()


BCOS = LayerKit()
"""B-cos layers as published."""
