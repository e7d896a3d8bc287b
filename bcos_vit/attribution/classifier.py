"""A network with its encoding in front: what every method, whatever it is, is applied to."""

from torch import Tensor, nn


class Classifier(nn.Module):
    """From RGB images to logits.

    Methods that change pixels change them here, before they are encoded: noise in the six channels
    of a B-cos network would break ``x + (1 - x) = 1``. Methods of gradients look behind the
    encoding, at what the network itself is given.

    Args:
        model: a network in eval mode, ours or timm's.
        encode: from images ``(n, 3, h, w)`` in [0, 1] to the model's input ``(n, c, h, w)``, one
            position per pixel.
    """

    def __init__(self, model: nn.Module, encode: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.encode = encode

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, 3, h, w)`` in [0, 1]."""
        logits: Tensor = self.model(self.encode(images))
        return logits
