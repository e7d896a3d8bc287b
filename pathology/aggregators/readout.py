"""From tiles to pixels: an encoder's features, read out with fixed weights."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from bcos_vit.layers import held
from bcos_vit.layers.cut import Cut


class Readout(nn.Module):
    """``y_i = g_i . encoder(x_i)``, for :func:`bcos_vit.explain.explain`.

    With g_i of :class:`pathology.aggregators.explain.BagExplanation` the contributions of an
    image's pixels sum to that of its tile, less what the encoder adds by itself (position codes,
    biases), which the explanation tells apart::

        explain(Readout(encoder, bag.weights[chosen]), images[chosen], target=0)

    Args:
        encoder: ``(batch, channels, height, width)`` to ``(batch, features)``, dynamic-linear, in
            eval mode.
        weights: ``(batch, features)`` g of each image, or ``(batch, outputs, features)`` several;
            constants.

    Raises:
        ValueError: ``weights`` of another number of dimensions.
    """

    dynamic_linear = True
    weights: Tensor

    def __init__(self, encoder: nn.Module, weights: Tensor) -> None:
        super().__init__()
        if weights.ndim not in (2, 3):
            raise ValueError(
                "weights must be (batch, features) or (batch, outputs, features), got"
                f" {tuple(weights.shape)}"
            )
        self.encoder = encoder
        weights = weights.detach()
        self.register_buffer(
            "weights", weights[:, None] if weights.ndim == 2 else weights, persistent=False
        )
        self.training = encoder.training

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to ``(batch, outputs)``.

        Raises:
            ValueError: another number of images than of weights, or features of another size.
        """
        features = self.encoder(images)
        batch, _, dims = self.weights.shape
        if features.shape != (batch, dims):
            raise ValueError(
                f"features must be {(batch, dims)} as weights are, got {tuple(features.shape)}"
            )
        y: Tensor = (features[:, None] * held(self.weights)).sum(2)
        return y

    def cuts(self) -> dict[str, Cut]:
        """Where the encoder can be cut, for explanations at a depth."""
        encoder: Any = self.encoder
        cuts: dict[str, Cut] = encoder.cuts() if hasattr(encoder, "cuts") else {}
        # Read out together, classes mix in every place.
        return {
            depth: replace(
                cut,
                module=f"encoder.{cut.module}",
                layout="NCHW" if cut.layout == "local logits" else cut.layout,
            )
            for depth, cut in cuts.items()
        }
