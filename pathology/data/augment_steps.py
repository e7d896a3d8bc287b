"""What augmentation does to pixels: each function takes a batch and one number, or three, per tile.

Images are ``(n, 3, height, width)``, floating point in [0, 1], on any device; numbers are drawn on
the CPU, see :mod:`pathology.data.augment`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from bcos_vit.stain_space import DARKEST, StainSpace
from pathology.stain.lab import mix

LUMA = (0.299, 0.587, 0.114)
"""How bright red, green and blue are to the eye (ITU-R BT.601)."""

Policy = Literal["none", "trivialaugment", "randaugment"]


def turned(tiles: Tensor, flip_x: Tensor, flip_y: Tensor, transpose: Tensor) -> Tensor:
    """Square tiles of any type flipped and mirrored at the diagonal where said: pixels only move.

    Together these three make the eight flips and quarter turns.
    """
    for flags, move in (
        (flip_x, lambda t: t.flip(-1)),
        (flip_y, lambda t: t.flip(-2)),
        (transpose, lambda t: t.mT),
    ):
        places = flags.nonzero()[:, 0].to(tiles.device)
        tiles = tiles.index_copy(0, places, move(tiles[places]))
    return tiles


def rotated(images: Tensor, degrees: Tensor) -> Tensor:
    """Turned about the centre, bilinear, corners filled by reflection."""
    from kornia.geometry.transform import rotate

    angles = degrees.to(images.device, images.dtype)
    turned: Tensor = rotate(images, angles, padding_mode="reflection")
    return turned


def restained(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Stain amounts times ``scale`` plus ``shift`` (density, base 10), both ``(n, 3)``.

    In the order of :data:`bcos_vit.stain_space.STAINS`, by its stain vectors; here light of 1 is
    glass, so that nothing is cut off.
    """
    matrix = torch.from_numpy(StainSpace().matrix)  # density = amounts @ matrix
    change = matrix.inverse() @ torch.diag_embed(scale) @ matrix
    moved = (shift @ matrix * math.log(10)).to(images.device, images.dtype)
    density = images.clamp(min=DARKEST).log_().neg_()
    density = mix(density, change.mT.to(images.device, images.dtype)).add_(moved[:, :, None, None])
    return density.neg_().exp_()


def recoloured(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Brightness, contrast and saturation times a factor, hue turned by a share of the circle.

    All are linear, so they are one matrix and one offset a tile: saturation draws colours from
    their brightness, hue turns them about the axis of greys.
    """
    luma = torch.tensor(LUMA, dtype=torch.float64)
    grey = luma.expand(3, 3)
    saturate = grey + saturation[:, None, None] * (torch.eye(3, dtype=torch.float64) - grey)
    matrix = brightness[:, None, None] * (saturate @ _about_greys(hue))
    level = (1 - contrast)[:, None] * (luma @ matrix)  # of the mean colour, what contrast leaves
    offset = (level.to(images.device, images.dtype) * images.mean((2, 3))).sum(1)
    change = (contrast[:, None, None] * matrix).to(images.device, images.dtype)
    return mix(images, change).add_(offset[:, None, None, None])


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of a standard deviation in pixels each."""
    from kornia.filters import gaussian_blur2d

    reach = min(math.ceil(3 * float(sigma.max())), min(images.shape[-2:]) - 1)
    wide = sigma.to(images.dtype)[:, None].expand(-1, 2)
    soft: Tensor = gaussian_blur2d(images, 2 * reach + 1, wide)
    return soft


def compressed(images: Tensor, quality: Tensor) -> Tensor:
    """As JPEG of a quality each gives them back; kornia's, which rounds softly."""
    from kornia.enhance import jpeg_codec_differentiable

    coded: Tensor = jpeg_codec_differentiable(
        images.clamp(0, 1), quality.to(images.device, images.dtype)
    )
    return coded


def by_policy(images: Tensor, draws: Tensor, policy: Policy) -> Tensor:
    """Through one of torchvision's policies for photographs, which round pixels to eight bits."""
    from torchvision.transforms import InterpolationMode, RandAugment, TrivialAugmentWide

    smooth = InterpolationMode.BILINEAR
    if policy == "trivialaugment":
        step: Callable[[Tensor], Tensor] = TrivialAugmentWide(interpolation=smooth)
    else:
        step = RandAugment(num_ops=2, magnitude=10, interpolation=smooth)
    changed = []
    for tile, draw in zip(images.mul(255).round().to(torch.uint8), draws, strict=True):
        with _drawn_from(draw):
            changed.append(step(tile))
    return torch.stack(changed).to(images.dtype) / 255


def erased(images: Tensor, draws: Tensor) -> Tensor:
    """A black rectangle in each; torchvision's."""
    from torchvision.transforms import RandomErasing

    step = RandomErasing(p=1.0)
    changed = []
    for image, draw in zip(images, draws, strict=True):
        with _drawn_from(draw):
            changed.append(step(image))
    return torch.stack(changed)


@contextmanager
def _drawn_from(draw: Tensor) -> Iterator[None]:
    """What draws from torch's generator on the CPU draws what this number in [0, 1) says."""
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(int(draw.item() * 2**53))
    try:
        yield
    finally:
        generator.set_state(state)


def for_some(
    images: Tensor, which: Tensor, numbers: Tensor, step: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """``step`` where ``which`` is true, at the cost of only those tiles."""
    places = which.nonzero()[:, 0]
    if not len(places):
        return images
    there = places.to(images.device)
    return images.index_copy(0, there, step(images[there], numbers[places]))


def _about_greys(share: Tensor) -> Tensor:
    """Matrices ``(n, 3, 3)`` that turn colours about the axis of greys (Rodrigues)."""
    axis = torch.ones(3, dtype=torch.float64) / math.sqrt(3)
    cross = torch.linalg.cross(axis.expand(3, 3), torch.eye(3, dtype=torch.float64)).mT
    angle = (2 * math.pi * share)[:, None, None]
    eye = torch.eye(3, dtype=torch.float64)
    return eye + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)
