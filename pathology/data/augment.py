"""Augmentation of tiles on the CPU: MONAI's flips and turns, torchvision's colour jitter.

Everything works on uint8 ``(3, height, width)`` tensors, so that little travels to the device.
"""

from typing import Literal

from monai.transforms import Compose, EnsureTyped, Lambdad, RandFlipd, RandRotate90d
from torchvision.transforms.v2 import ColorJitter

Augment = Literal["none", "turns", "turns+colour"]


def tile_augmentation(augment: Augment) -> Compose:
    """A MONAI transform chain over ``{"image": uint8 tensor, ...}``.

    Args:
        augment: ``"none"``; ``"turns"``: the eight flips and quarter turns, under which tissue has
        no
            preferred direction; ``"turns+colour"``: also brightness, contrast, saturation and hue,
            as staining and scanners vary.

    Raises:
        ValueError: another word.
    """
    if augment == "none":
        return Compose([])
    turns = [
        RandFlipd("image", prob=0.5, spatial_axis=0),
        RandRotate90d("image", prob=0.75, max_k=3),
    ]
    plain = EnsureTyped("image", track_meta=False)
    if augment == "turns":
        return Compose([*turns, plain])
    if augment == "turns+colour":
        jitter = ColorJitter(brightness=0.15, contrast=0.15, saturation=0.2, hue=0.04)
        return Compose([*turns, plain, Lambdad("image", jitter, track_meta=False)])
    raise ValueError(f'augment must be "none", "turns" or "turns+colour", got {augment!r}')
