"""Where a network can be cut in two: a layer through whose output everything flows."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Layout = Literal["NCHW", "NHWC", "tokens", "local logits"]
"""How places lie in a layer's output; local logits are NCHW with a channel per class, and only a
class's own channel leads to its logit."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A layer, and how places lie in its output.

    Args:
        module: the layer's name in the network.
        layout: of its output.
        prefix: tokens in front that are no place (``"tokens"`` only).
        patch_size: side in pixels of a token's square (``"tokens"`` only).
    """

    module: str
    layout: Layout = "NCHW"
    prefix: int = 0
    patch_size: int = 1

    def places(self, features: Tensor, image: tuple[int, int]) -> Tensor:
        """The layer's output as ``(batch, channels, rows, columns)``, a view.

        Args:
            features: of that output's shape.
            image: height and width of the images, in pixels.
        """
        if self.layout == "tokens":
            rows, columns = (side // self.patch_size for side in image)
            features = features[:, self.prefix :].unflatten(1, (rows, columns))
        return features.permute(0, 3, 1, 2) if self.layout in ("tokens", "NHWC") else features
