"""Mixup and CutMix: images and their labels in parts, on the model's device.

Source:
    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, arXiv:1710.09412; Yun et
    al., "CutMix", ICCV 2019, arXiv:1905.04899.
"""

import math

import torch
from torch import Tensor


class Mixing:
    """Mixes each image of a batch with another one of it.

    All is drawn from torch's global generator on the CPU, which a task seeds for every batch: the
    same on every device, and again after a resume.

    Args:
        mixup: a of the Beta(a, a) that mixup's share of the first image is drawn from, once a
            batch; 0 for no mixup.
        cutmix: the same for CutMix, where a rectangle of that area is the other image's. With both,
            half of the batches get each.

    Raises:
        ValueError: a negative number.
    """

    def __init__(self, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        if not (mixup >= 0 and cutmix >= 0):
            raise ValueError(f"mixup and cutmix must be at least 0, got {mixup} and {cutmix}")
        self.mixup, self.cutmix = mixup, cutmix

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def __call__(self, images: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed images, and the shares of their classes.

        Args:
            images: ``(batch, channels, height, width)``, uint8 or floating point in [0, 1]. They
                are mixed as light; uint8 becomes float32 in [0, 1].
            shares: ``(batch, classes)``.
        """
        images = images / 255 if images.dtype == torch.uint8 else images
        if not self or len(images) < 2:
            return images, shares
        cuts = self.cutmix and (not self.mixup or bool(torch.rand(()) < 0.5))
        alpha = torch.tensor(self.cutmix if cuts else self.mixup, dtype=torch.float64)
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        other = torch.randperm(len(images)).to(images.device)
        if cuts:
            images, share = _cut(images, images[other], share)
        else:
            images = share * images + (1 - share) * images[other]
        return images, share * shares + (1 - share) * shares[other]


def _cut(images: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
    """Images with a rectangle of the others, and the share of the area that is left of them."""
    height, width = images.shape[-2:]
    side = math.sqrt(1 - share)
    centre = torch.rand(2)
    top, bottom = _span(float(centre[0]), side, height)
    left, right = _span(float(centre[1]), side, width)
    images = images.clone()
    images[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


def _span(centre: float, share: float, length: int) -> tuple[int, int]:
    """Begin and end of a share of a side about a place; what reaches over its ends is cut off."""
    middle, half = int(centre * length), int(share * length) // 2
    return max(0, middle - half), min(length, middle + half)
