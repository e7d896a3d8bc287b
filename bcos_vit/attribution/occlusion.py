"""Occlusion: how much the logit drops when a window of the image is replaced.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014
(arXiv:1311.2901), with overlapping windows averaged and the drop in logits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.checks import check_eval
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.fillings import Filling, check_filling, fill
from bcos_vit.attribution.masking import check_counts, masked_logits, plain_logits
from bcos_vit.attribution.registry import register


@register
@dataclass(frozen=True)
class Occlusion:
    """A pixel's value is the mean drop of the logit over the windows that cover it.

    Drops of overlapping windows do not add up to the logit; with windows of one pixel on a linear
    network they do, and are its contributions.

    Args:
        window_px: side of the square window; a seventh of the shorter side when omitted, 32 of 224.
        stride_px: between windows; half a window when omitted. The last windows end with the image.
        filling: what replaces the window.
        batch_size: images through the network at once.

    Raises:
        TypeError, ValueError: a side or stride that is no positive whole number, a stride that
            leaves pixels out, an unknown filling.
    """

    window_px: int | None = None
    stride_px: int | None = None
    filling: Filling = "blur"
    batch_size: int = 64
    name: ClassVar[str] = "occlusion"
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "none"

    def __post_init__(self) -> None:
        given = {"window_px": self.window_px, "stride_px": self.stride_px}
        check_counts(
            batch_size=self.batch_size, **{k: v for k, v in given.items() if v is not None}
        )
        check_filling(self.filling)
        if self.window_px and self.stride_px and self.stride_px > self.window_px:
            raise ValueError(
                f"stride_px {self.stride_px} leaves pixels between windows of {self.window_px} px"
            )

    def check(self, classifier: Classifier) -> None:
        """Refuse a network in training mode."""
        check_eval(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        """See :class:`bcos_vit.attribution.Method`."""
        self.check(classifier)
        logits = plain_logits(classifier, images, target, self.batch_size)
        filled = fill(self.filling, images)
        tops, lefts, window = self._windows(images.shape[-2], images.shape[-1])
        corners = [(top, left) for top in tops for left in lefts]
        maps = []
        for image, replaced, label, said in zip(
            images, filled, target.tolist(), logits, strict=True
        ):
            masks = self._masks(image, corners, window)
            drops = said[label].double() - masked_logits(classifier, image, replaced, masks, label)
            maps.append(_mean_over_windows(drops, corners, window, image))
        return Attribution(
            torch.stack(maps).float(),
            target,
            logits,
            forward_passes=len(corners) + 1,
        )

    def _windows(self, height: int, width: int) -> tuple[list[int], list[int], int]:
        """Tops and lefts of windows, and their side."""
        shorter = min(height, width)
        window = self.window_px or max(1, shorter // 7)
        stride = self.stride_px or max(1, window // 2)
        if window > shorter:
            raise ValueError(f"window_px {window} is larger than images of {height} x {width} px")
        if stride > window:
            raise ValueError(f"stride_px {stride} leaves pixels between windows of {window} px")
        tops, lefts = (
            sorted({*range(0, side - window, stride), side - window}) for side in (height, width)
        )
        return tops, lefts, window

    def _masks(
        self, image: Tensor, corners: list[tuple[int, int]], window: int
    ) -> Iterator[Tensor]:
        """Masks that are 0 in a window, ``batch_size`` at a time."""
        for start in range(0, len(corners), self.batch_size):
            some = corners[start : start + self.batch_size]
            masks = image.new_ones(len(some), *image.shape[1:])
            for mask, (top, left) in zip(masks, some, strict=True):
                mask[top : top + window, left : left + window] = 0
            yield masks


def _mean_over_windows(
    drops: Tensor, corners: list[tuple[int, int]], window: int, image: Tensor
) -> Tensor:
    """``(h, w)`` mean of the drops of windows that cover a pixel."""
    total, count = drops.new_zeros(2, *image.shape[1:])
    for drop, (top, left) in zip(drops, corners, strict=True):
        total[top : top + window, left : left + window] += drop
        count[top : top + window, left : left + window] += 1
    return total / count
