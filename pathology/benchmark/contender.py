"""A network as it is measured: with images, norms that fit them, and a training step."""

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.models import create_model, create_twin
from bcos_vit.models.base import BcosConvNet

MODES = ("eager", "compiled")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# Hundreds of steps on the same images leave the network as it was made; a step costs the same.
_LEARNING_RATE = 1e-9


class Contender:
    """A network with what it needs for a forward pass, a training step and an explanation.

    Compiled and on a GPU, forward passes and training steps are in bfloat16 by autocast, as
    networks are trained there; all else is in float32.

    Args:
        network: moved to the images' device and changed in place.
        images: ``(batch, channels, height, width)``, float32.
        mode: ``"eager"`` or ``"compiled"``.
        layout: of images and of convolutions' weights, ``"contiguous"`` or ``"channels_last"``.
    """

    def __init__(
        self, network: nn.Module, images: Tensor, mode: str = "eager", layout: str = "contiguous"
    ) -> None:
        self.network = network.to(images.device)
        if layout != "contiguous":
            # The overload for memory formats is missing in torch's own types.
            convert: Any = self.network.to
            convert(memory_format=LAYOUTS[layout])
        self.images = images.contiguous(memory_format=LAYOUTS[layout])
        self.labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
        self._settle()
        compiled = mode == "compiled"
        # Not for any batch at once: the twin's sizes, too, are known.
        self._run: Any = torch.compile(network, dynamic=False) if compiled else network
        self.dtype = torch.float32
        if compiled and images.is_cuda:
            self.dtype = torch.bfloat16

    def _settle(self) -> None:
        """Take batch norms' statistics from the images.

        As made, they would let the signal of a deep network sink to where arithmetic is slow.
        """
        norms: list[Any] = [m for m in self.network.modules() if hasattr(m, "momentum")]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            self.network.train()(self.images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def _forward(self, images: Tensor) -> Tensor:
        low = self.dtype != torch.float32
        with torch.autocast(images.device.type, self.dtype if low else None, enabled=low):
            logits: Tensor = self._run(images)
        return logits

    def infer(self) -> None:
        """A forward pass; the network is in eval mode."""
        with torch.inference_mode():
            self._forward(self.images)

    def loss(self, times: int = 1) -> Tensor:
        """Of all images, the batch being repeated ``times``; the network is in training mode."""
        images = torch.cat([self.images] * times) if times > 1 else self.images
        return F.cross_entropy(self._forward(images), self.labels.repeat(times))

    def train(self) -> None:
        """A training step: forward, cross-entropy, backward, AdamW; in training mode."""
        self.loss().backward()
        self.optimizer.step()
        # Last, so that a step's own memory is all that it gives back.
        self.optimizer.zero_grad()


def contenders(
    name: str,
    size_px: int,
    batch: int,
    device: torch.device,
    mode: str = "eager",
    layout: str = "contiguous",
) -> tuple[Contender, Contender]:
    """B-cos model ``name`` and its twin, each with images of its own channels."""
    torch.manual_seed(0)
    model, twin = create_model(name), conventional(name, size_px)
    images = torch.rand(batch, 3, size_px, size_px).to(device)
    return (
        Contender(model, torch.cat([images, 1 - images], 1), mode, layout),
        Contender(twin, images, mode, layout),
    )


def conventional(name: str, size_px: int) -> nn.Module:
    """The twin of B-cos model ``name``, for images of that size."""
    # Twins with tokens have a grid of their own.
    return create_twin(name, **({} if is_convnet(name) else {"img_size": size_px}))


@cache
def is_convnet(name: str) -> bool:
    """Whether a B-cos model has feature maps from end to end, rather than tokens."""
    with torch.device("meta"):
        return isinstance(create_model(name), BcosConvNet)


def grid_side(size_px: int, pitch_px: int = 16) -> int:
    """Positions along a side of an image when one is ``pitch_px`` wide."""
    return math.ceil(size_px / pitch_px)
