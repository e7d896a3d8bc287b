"""Controls: maps that know nothing of the network, and one that knows the answer.

A measure on which one of the first does well measures something else than explanation: where the
image's middle, its edges or its nuclei are. One on which the oracle does not win measures nothing.
"""

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.checks import check_eval
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.masking import plain_logits
from bcos_vit.attribution.registry import register
from bcos_vit.stain_space import StainSpace

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
_BATCH = 64


@dataclass(frozen=True)
class _Control:
    """A map of images alone; the network is asked for its logits and nothing else."""

    name: ClassVar[str]
    is_signed: ClassVar[bool] = False
    unit: ClassVar[Unit] = "none"

    def check(self, classifier: Classifier) -> None:
        """Refuse a network in training mode."""
        check_eval(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        """See :class:`bcos_vit.attribution.Method`."""
        self.check(classifier)
        logits = plain_logits(classifier, images, target, _BATCH)
        maps = self._maps(images.detach()).to(images.device, torch.float32)
        return Attribution(maps, target, logits, forward_passes=1)

    def _maps(self, images: Tensor) -> Tensor:
        """``(n, h, w)``."""
        raise NotImplementedError


@register
@dataclass(frozen=True)
class Random(_Control):
    """Independent uniform numbers; the same for the same image, whatever the network.

    Args:
        seed: of all maps; an image's own is made of it and of its pixels in eight bits.
    """

    seed: int = 0
    name: ClassVar[str] = "random"

    def _maps(self, images: Tensor) -> Tensor:
        pixels = (images * 255).round().to(torch.uint8).cpu().numpy()
        maps = []
        for image in pixels:
            key = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
            rng = np.random.default_rng([self.seed, int.from_bytes(key, "little")])
            maps.append(torch.from_numpy(rng.random(image.shape[1:])))
        return torch.stack(maps)


@register
@dataclass(frozen=True)
class Constant(_Control):
    """One everywhere."""

    name: ClassVar[str] = "constant"

    def _maps(self, images: Tensor) -> Tensor:
        return torch.ones_like(images[:, 0])


@register
@dataclass(frozen=True)
class Edge(_Control):
    """How steep the image's luminance is: the length of its gradient by Sobel, edges repeated."""

    name: ClassVar[str] = "edge"

    def _maps(self, images: Tensor) -> Tensor:
        weights = images.new_tensor(_LUMINANCE)[:, None, None]
        grey = F.pad((images * weights).sum(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across = images.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        steepness = F.conv2d(grey, torch.stack([across, across.T])[:, None])
        return steepness.square().sum(1).sqrt()


@register
@dataclass(frozen=True)
class Centre(_Control):
    """A Gaussian around the middle of the image.

    Args:
        width: its standard deviation, as a share of the shorter side.

    Raises:
        ValueError: a width that is not positive.
    """

    width: float = 0.25
    name: ClassVar[str] = "centre"

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"width must be positive, got {self.width}")

    def _maps(self, images: Tensor) -> Tensor:
        sides = images.shape[2:]
        rows, columns = (
            (torch.arange(side, device=images.device, dtype=torch.float64) - (side - 1) / 2) ** 2
            for side in sides
        )
        sigma = self.width * min(sides)
        bell = torch.exp(-0.5 * (rows[:, None] + columns) / sigma**2)
        return bell.expand(len(images), -1, -1)


@register
@dataclass(frozen=True)
class Stain(_Control):
    """How much haematoxylin there is, as optical density: nuclei, whatever they are.

    By :class:`StainSpace`'s usual stains; less than none counts as none.
    """

    name: ClassVar[str] = "stain"

    def _maps(self, images: Tensor) -> Tensor:
        return StainSpace().amounts(images)[:, 0].clamp_min(0)


@register
@dataclass(frozen=True, eq=False)
class Oracle(_Control):
    """The answer: one in the mask, zero elsewhere.

    Args:
        masks: ``(n, h, w)`` bool, of the images it is called with, in their order.
    """

    masks: Tensor | None = field(default=None, repr=False)
    name: ClassVar[str] = "oracle"

    def _maps(self, images: Tensor) -> Tensor:
        if self.masks is None:
            raise ValueError(
                "oracle has no masks; make one per batch, make_method('oracle', masks=masks)"
            )
        if self.masks.shape != images[:, 0].shape:
            raise ValueError(
                f"oracle's masks must be {tuple(images[:, 0].shape)}, one per image, got"
                f" {tuple(self.masks.shape)}"
            )
        return self.masks.bool()
