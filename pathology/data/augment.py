"""Augmentation of whole batches on the model's device, each tile in its own way.

What a batch goes through is drawn on the CPU, from one generator: the same seed gives the same
tiles on every device, and a step repeated after a resume repeats its tiles. kornia's functions
rotate, blur and compress, by numbers drawn here; its own augmentations draw from global state, as
MONAI's and torchvision's do, which also treat all of a batch alike. Colours are one matrix a tile,
in a fraction of the time of kornia's way through hue and saturation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pathology.data import augment_steps as steps

Augment = Literal[
    "none", "turns", "turns+colour", "turns+stain", "full", "trivialaugment", "randaugment"
]

SOFTEST_PX = 0.3
"""A Gaussian narrower than this leaves pixels as they are."""

BEST_QUALITY = 95
"""JPEG above this hardly shows."""


@dataclass(frozen=True)
class Augmentation:
    """How strongly tiles are varied; not at all by default.

    Args:
        turns: the eight flips and quarter turns, under which tissue has no preferred direction;
            pixels are moved, never changed.
        rotation: free rotation by up to this many degrees either way; corners are filled with the
            tile's mirror image, pixels interpolated.
        stain: haematoxylin, eosin and residual are scaled by up to this share, each by itself.
        stain_shift: and shifted by up to this optical density, base 10; glass too.
        brightness: scaled by up to this share.
        contrast: differences from the tile's mean brightness, likewise.
        saturation: differences from grey, likewise.
        hue: turned by up to this share of the colour circle, at most a half.
        blur: share of tiles that are blurred, in [0, 1].
        blur_px: their Gaussian's largest standard deviation, in pixels.
        jpeg: share of tiles that are compressed, in [0, 1].
        jpeg_quality: the lowest quality; the highest is 95.
        policy: what is done to photographs, in torchvision's way: ``trivialaugment`` (one of
            fourteen things, of any strength) or ``randaugment`` (two of them, of strength 10); they
            distort, and make colours that no stain has.
        erase: share of tiles of which a rectangle, 2 to 33 % of the area, is made black.

    Raises:
        ValueError: a number outside of its range.

    Source:
        Stains as in Tellez et al., "Whole-slide mitosis detection in H&E breast histology using
        PHH3 as a reference to train distilled stain-invariant convolutional networks", IEEE TMI 37,
        2018: amounts times 1 + a, plus b, with a and b uniform. Policies: Müller and Hutter,
        "TrivialAugment", ICCV 2021, arXiv:2103.10158; Cubuk et al., "RandAugment", CVPRW 2020,
        arXiv:1909.13719. Erasing: Zhong et al., AAAI 2020, arXiv:1708.04896.
    """

    turns: bool = False
    rotation: float = 0.0
    stain: float = 0.0
    stain_shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    blur_px: float = 1.5
    jpeg: float = 0.0
    jpeg_quality: float = 40.0
    policy: steps.Policy = "none"
    erase: float = 0.0

    def __post_init__(self) -> None:
        ranges = {
            "rotation": (0, 180), "stain_shift": (0, 1), "brightness": (0, 0.9),
            "contrast": (0, 0.9), "hue": (0, 0.5), "blur_px": (SOFTEST_PX, 20),
            "jpeg_quality": (1, BEST_QUALITY),
        }  # fmt: skip
        if self.policy not in get_args(steps.Policy):
            known = ", ".join(get_args(steps.Policy))
            raise ValueError(f"policy must be one of {known}; got {self.policy!r}")
        for field in fields(self):
            if field.name == "policy":
                continue
            value = getattr(self, field.name)
            low, high = ranges.get(field.name, (0, 1))
            if not low <= value <= high:
                raise ValueError(f"{field.name} must be in [{low:g}, {high:g}], got {value}")


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(),
    "turns": Augmentation(turns=True),
    "turns+colour": Augmentation(
        turns=True, brightness=0.15, contrast=0.15, saturation=0.2, hue=0.04
    ),
    "turns+stain": Augmentation(turns=True, stain=0.2, stain_shift=0.02),
    "full": Augmentation(
        turns=True, rotation=45, stain=0.2, stain_shift=0.02, brightness=0.1, contrast=0.1,
        saturation=0.1, hue=0.02, blur=0.2, jpeg=0.2,
    ),
    "trivialaugment": Augmentation(turns=True, policy="trivialaugment", erase=0.1),
    "randaugment": Augmentation(turns=True, policy="randaugment"),
}  # fmt: skip
"""What the names stand for."""

_DRAWN = (
    "flip_x", "flip_y", "transpose", "rotation", "haematoxylin", "eosin", "residual",
    "more_haematoxylin", "more_eosin", "more_residual", "brightness", "contrast", "saturation",
    "hue", "blur", "blur_px", "jpeg", "jpeg_quality", "policy", "erase", "erased",
)  # fmt: skip


def batch_augmentation(
    augment: Augment | Augmentation | Mapping[str, Any],
) -> "BatchAugmentation":
    """The augmentation of a name, or of strengths.

    Args:
        augment: ``"none"``; ``"turns"``: flips and quarter turns; ``"turns+colour"``: also
            brightness, contrast, saturation and hue, as scanners vary; ``"turns+stain"``: also the
            amounts of haematoxylin and eosin, as laboratories vary; ``"full"``: all of these, free
            rotation, and some tiles blurred or compressed; ``"trivialaugment"`` and
            ``"randaugment"``: as B-cos networks were trained on photographs, with turns. Strengths
            may be a mapping, as a run's config keeps them.

    Raises:
        ValueError: another word, or strengths out of range.
    """
    if isinstance(augment, Mapping):
        unknown = sorted(set(augment) - {field.name for field in fields(Augmentation)})
        if unknown:
            raise ValueError(f"augment has no strength {unknown[0]!r}")
        augment = Augmentation(**augment)
    if isinstance(augment, Augmentation):
        return BatchAugmentation(augment)
    if augment not in AUGMENTATIONS:
        known = ", ".join(f'"{name}"' for name in AUGMENTATIONS)
        raise ValueError(f"augment must be one of {known} or an Augmentation, got {augment!r}")
    return BatchAugmentation(AUGMENTATIONS[augment])


class BatchAugmentation(nn.Module):
    """Varies each tile of a batch by itself.

    Args:
        strengths: how strongly.
    """

    def __init__(self, strengths: Augmentation) -> None:
        super().__init__()
        self.strengths = strengths

    @torch.no_grad()
    def forward(self, tiles: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augmented tiles of the shape, type and device they came in; those are left alone.

        Args:
            tiles: RGB ``(n, 3, height, width)``, uint8 or floating point in [0, 1].
            generator: on the CPU; torch's global one when omitted. A training that seeds one by
                its seed and step sees the same tiles after a resume.

        Raises:
            TypeError: neither uint8 nor floating point.
            ValueError: another shape, or tiles to be turned that are not square.
        """
        own = self.strengths
        if tiles.dtype != torch.uint8 and not tiles.is_floating_point():
            raise TypeError(f"tiles must be uint8 or floating point, got {tiles.dtype}")
        if tiles.ndim != 4 or tiles.shape[1] != 3:
            raise ValueError(f"tiles must be RGB (n, 3, height, width), got {tuple(tiles.shape)}")
        if own.turns and tiles.shape[2] != tiles.shape[3]:
            raise ValueError(f"tiles to be turned must be square, got {tuple(tiles.shape[2:])}")
        if own == AUGMENTATIONS["none"] or not len(tiles):
            return tiles
        # All of them, whatever the strengths: to change one leaves the others' numbers alone.
        drawn = torch.rand(len(_DRAWN), len(tiles), generator=generator, dtype=torch.float64)
        draws = dict(zip(_DRAWN, drawn, strict=True))
        if own.turns:
            places = (draws[name] < 0.5 for name in ("flip_x", "flip_y", "transpose"))
            tiles = steps.turned(tiles, *places)
        if own == Augmentation(turns=own.turns):
            return tiles
        images = tiles / 255 if tiles.dtype == torch.uint8 else tiles
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        with torch.autocast(images.device.type, enabled=False):
            images = self._vary(images, draws).clamp_(0, 1)
        if tiles.dtype == torch.uint8:
            images = images.mul_(255).round_()
        return images.to(tiles.dtype)

    def _vary(self, images: Tensor, draws: dict[str, Tensor]) -> Tensor:
        """All that changes pixels, in the order in which it happens to a slide."""
        own = self.strengths

        def within(strength: float, *names: str) -> Tensor:
            signed = torch.stack([2 * draws[name] - 1 for name in names], dim=1)
            return strength * (signed if len(names) > 1 else signed[:, 0])

        if own.policy != "none":
            images = steps.by_policy(images, draws["policy"], own.policy)
        if own.rotation:
            images = steps.rotated(images, within(own.rotation, "rotation"))
        if own.stain or own.stain_shift:
            scale = 1 + within(own.stain, "haematoxylin", "eosin", "residual")
            more = ("more_haematoxylin", "more_eosin", "more_residual")
            images = steps.restained(images, scale, within(own.stain_shift, *more))
        if own.brightness or own.contrast or own.saturation or own.hue:
            images = steps.recoloured(
                images,
                brightness=1 + within(own.brightness, "brightness"),
                contrast=1 + within(own.contrast, "contrast"),
                saturation=1 + within(own.saturation, "saturation"),
                hue=within(own.hue, "hue"),
            )
        if own.blur:
            sigma = SOFTEST_PX + (own.blur_px - SOFTEST_PX) * draws["blur_px"]
            images = steps.for_some(images, draws["blur"] < own.blur, sigma, steps.blurred)
        if own.jpeg:
            quality = own.jpeg_quality + (BEST_QUALITY - own.jpeg_quality) * draws["jpeg_quality"]
            images = steps.for_some(images, draws["jpeg"] < own.jpeg, quality, steps.compressed)
        if own.erase:
            images = steps.for_some(
                images, draws["erase"] < own.erase, draws["erased"], steps.erased
            )
        return images
