"""From tiles to pixels: an encoder's features, read out with fixed weights."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from bcos_vit.layers import held
from bcos_vit.layers.cut import Cut


class Readout(nn.Module):
    """``y_i = g_i . encoder(x_i)``, a number per image, for :func:`bcos_vit.explain.explain`.

    With g_i of :class:`pathology.aggregators.explain.BagExplanation` the contributions of an
    image's pixels sum to that of its tile, less what the encoder adds by itself (position codes,
    biases), which the explanation tells apart::

        explain(Readout(encoder, bag.weights[chosen]), images[chosen], target=0)

    Args:
        encoder: ``(batch, channels, height, width)`` to ``(batch, features)``, dynamic-linear, in
            eval mode.
        weights: ``(batch, features)`` g of each image, constants.

    Raises:
        ValueError: ``weights`` are not two-dimensional.
    """

    dynamic_linear = True
    weights: Tensor

    def __init__(self, encoder: nn.Module, weights: Tensor) -> None:
        super().__init__()
        if weights.ndim != 2:
            raise ValueError(f"weights must be (batch, features), got {tuple(weights.shape)}")
        self.encoder = encoder
        self.register_buffer("weights", weights.detach(), persistent=False)
        self.training = encoder.training

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to ``(batch, 1)``.

        Raises:
            ValueError: another number of images than of weights, or features of another size.
        """
        features = self.encoder(images)
        if features.shape != self.weights.shape:
            raise ValueError(
                f"features must be {tuple(self.weights.shape)} as weights are,"
                f" got {tuple(features.shape)}"
            )
        y: Tensor = (features * held(self.weights)).sum(1, keepdim=True)
        return y

    def cuts(self) -> dict[str, Cut]:
        """Where the encoder can be cut, for explanations at a depth."""
        encoder: Any = self.encoder
        cuts: dict[str, Cut] = encoder.cuts() if hasattr(encoder, "cuts") else {}
        return {
            depth: replace(cut, module=f"encoder.{cut.module}")
            for depth, cut in cuts.items()
            if cut.layout != "local logits"
        }
