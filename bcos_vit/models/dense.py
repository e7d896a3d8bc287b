"""Dense evaluation: a tile's logit as the mean of local logits that have seen no padding.

A convolutional network pads a tile with zeros, so its local logits differ along the tile's rim, and
a map of many tiles shows their lattice. Here a tile comes with a halo so wide that no padding
reaches the tile itself, and its logit is the mean over the tile's own cells. That is another
function than the network on tiles, to be trained as such. A cell's number then depends on the
pixels around it alone: however many tiles are evaluated at once, each gets the same logit.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.layers import Logits, held
from bcos_vit.layers.cut import Cut
from bcos_vit.layers.mode import constant
from bcos_vit.models.base import BcosConvNet
from bcos_vit.models.receptive_field import measure_field


class Dense(nn.Module):
    """A convolutional network's logits of what lies inside a halo.

    Args:
        network: of ours with local logits: ResNet, DenseNet, VGG, ConvNeXt.
        halo_px: pixels around the tile on each side; the least that will do when omitted, see
            :func:`bcos_vit.models.receptive_field.required_halo`.

    Attributes:
        halo_px: likewise.
        stride_px: pixels from one cell to the next; tiles are whole multiples of it.

    Raises:
        ValueError: the network cannot be dense, or ``halo_px`` is too small or no multiple of the
            stride.

    Example:
        >>> dense = Dense(network)                                       # ResNet-18: 224 px
        >>> logits = dense(images)                                       # of 224 + 2 * 224 px
        >>> explanation = explain(dense, images, target=0)               # of pixels, halo included
    """

    dynamic_linear = True

    def __init__(self, network: nn.Module, halo_px: int | None = None) -> None:
        super().__init__()
        field = measure_field(network)
        assert isinstance(network, BcosConvNet)
        halo_px = field.halo_px if halo_px is None else halo_px
        if halo_px < field.halo_px or halo_px % field.stride_px:
            raise ValueError(
                f"halo_px of this {type(network).__name__} must be at least {field.halo_px} and a"
                f" multiple of {field.stride_px}, or padding reaches the tiles; got {halo_px}"
            )
        self.network = network
        self.halo_px, self.stride_px = halo_px, field.stride_px
        self.training = network.training

    @property
    def logits(self) -> Logits:
        """What ends the network: temperature and logit bias."""
        end = self.network.logits
        assert isinstance(end, Logits)
        return end

    def local_evidence(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)``, halo included, to ``(batch, classes, rows, cols)``.

        What is returned are the cells inside the halo.

        Raises:
            ValueError: a side is not twice the halo and at least one whole stride.
        """
        sides = [side - 2 * self.halo_px for side in images.shape[-2:]]
        if any(side < self.stride_px or side % self.stride_px for side in sides):
            raise ValueError(
                f"images must be a multiple of {self.stride_px} px and a halo of {self.halo_px} px"
                f" on each side, got {images.shape[-2]} x {images.shape[-1]} px"
            )
        network, rim = self.network, self.halo_px // self.stride_px
        cells: Tensor = network.local_evidence(network.forward_features(images))
        return cells[..., rim : cells.shape[-2] - rim, rim : cells.shape[-1] - rim]

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height + 2 halo, width + 2 halo)`` to ``(batch, classes)``."""
        logits: Tensor = self.logits(self.local_evidence(images).mean((2, 3)))
        return logits

    def tile_logits(self, images: Tensor, tile_px: int) -> Tensor:
        """Logits of every tile inside the halo whose corner lies on a cell.

        Args:
            images: ``(batch, channels, height, width)``, a block of tiles and its halo.
            tile_px: side of a tile, a multiple of the stride.

        Returns:
            ``(batch, classes, rows, columns)``, by the cell of the tile's upper left corner.

        Raises:
            ValueError: a tile that is no multiple of the stride, or larger than the block.
        """
        evidence = self.local_evidence(images)
        side = self.cells(tile_px)
        if side > min(evidence.shape[-2:]):
            inside = [cells * self.stride_px for cells in evidence.shape[-2:]]
            raise ValueError(f"tiles of {tile_px} px do not fit into {inside[0]} x {inside[1]} px")
        means = F.avg_pool2d(evidence, side, stride=1)
        logits: Tensor = self.logits(means.permute(0, 2, 3, 1).flatten(0, 2))
        return logits.unflatten(0, (len(means), *means.shape[2:])).permute(0, 3, 1, 2)

    def cells(self, tile_px: int) -> int:
        """How many cells a tile has along a side.

        Raises:
            ValueError: it is no multiple of the stride.
        """
        if tile_px < self.stride_px or tile_px % self.stride_px:
            raise ValueError(f"tiles must be a multiple of {self.stride_px} px, got {tile_px}")
        return tile_px // self.stride_px

    def cuts(self) -> dict[str, Cut]:
        """Where the network can be cut, for explanations at a depth; places include the halo."""
        return {
            depth: replace(cut, module=f"network.{cut.module}")
            for depth, cut in self.network.cuts().items()
        }

    def depths(self) -> tuple[str, ...]:
        """Where an explanation can stop."""
        return ("pixels", *self.cuts())

    def extra_repr(self) -> str:
        return f"halo_px={self.halo_px}, stride_px={self.stride_px}"


class CellReadout(nn.Module):
    """Linear combinations of local logits, a number each, that can be explained.

    The numbers of an image are ``y_t = sum_k sum_p a_tkp logit_kp`` over classes k and cells p
    inside the halo. The logit of a tile of n cells has a = 1 / n on these, the sum of several tiles
    the sum of theirs, and a difference of two classes one sign each.

    Args:
        dense: evaluates the images.
        weights: ``(batch, outputs, classes, rows, columns)`` a of each image, constants.

    Raises:
        ValueError: ``weights`` of another number of dimensions.
    """

    dynamic_linear = True
    constant_terms = ("bias",)
    weights: Tensor

    def __init__(self, dense: Dense, weights: Tensor) -> None:
        super().__init__()
        if weights.ndim != 5:
            raise ValueError(
                "weights must be (batch, outputs, classes, rows, columns), got"
                f" {tuple(weights.shape)}"
            )
        self.dense = dense
        self.register_buffer("weights", weights.detach(), persistent=False)
        self.training = dense.training

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)``, halo included, to ``(batch, outputs)``.

        Raises:
            ValueError: images with other cells than the weights are for.
        """
        evidence = self.dense.local_evidence(images)
        batch, _, *cells = self.weights.shape
        if evidence.shape != (batch, *cells):
            raise ValueError(
                f"weights are for images of {(batch, *cells)} local logits, got"
                f" {tuple(evidence.shape)}"
            )
        weights, end = held(self.weights).to(evidence.dtype), self.dense.logits
        by_class = torch.einsum("bkrc,btkrc->btk", evidence, weights) / end.temperature
        biases = constant("bias", end.bias[None].to(evidence.dtype))[:, None]
        return (by_class + weights.sum((3, 4)) * biases).sum(2)

    def cuts(self) -> dict[str, Cut]:
        """Where the network can be cut, for explanations at a depth; places include the halo."""
        # Read out together, classes mix in every place.
        return {
            depth: replace(
                cut,
                module=f"dense.{cut.module}",
                layout="NCHW" if cut.layout == "local logits" else cut.layout,
            )
            for depth, cut in self.dense.cuts().items()
        }
