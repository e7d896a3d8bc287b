"""From uint8 tiles to what a model takes, on the model's own device.

A B-cos model takes values in [0, 1], with their complement when it has six channels; a conventional
one takes values normalised by the mean and deviation of its data config.
"""

import torch
from torch import Tensor, nn

from bcos_vit.transforms import add_complement, to_unit_range


class TileEncoding(nn.Module):
    """Encodes ``(batch, 3, height, width)`` tiles for one model.

    Args:
        model: a timm model; its ``in_chans`` and data config decide.

    Raises:
        ValueError: the model takes neither three nor six channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        config = getattr(model, "pretrained_cfg", {})
        chans = getattr(model, "in_chans", None) or 3
        self.complement = chans == 6
        self.normalise = not getattr(model, "dynamic_linear", False)
        if chans != 3 and not (self.complement and not self.normalise):
            raise ValueError(f"tiles fit models of 3 channels, or B-cos models of 6; got {chans}")
        mean = config.get("mean", (0.5, 0.5, 0.5)) if self.normalise else (0.0,) * 3
        std = config.get("std", (0.5, 0.5, 0.5)) if self.normalise else (1.0,) * 3
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, tiles: Tensor) -> Tensor:
        """uint8, or floating point in [0, 1], to the model's input."""
        images = to_unit_range(tiles)
        if self.normalise:
            return (images - self.mean) / self.std
        return add_complement(images) if self.complement else images
