"""Applying stain profiles: batches of tiles become as the target slide would show them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pathology.errors import StampMismatchError
from pathology.stain.lab import lab_to_rgb, mix, rgb_to_lab
from pathology.stain.profile import StainProfile


class StainNormaliser(nn.Module):
    """Tiles of slides of known profiles, in the colours of a target.

    Macenko and Vahadane: the density of each pixel is taken apart into the amounts of its own
    slide's stains, these are scaled as the 99th percentiles compare, and put together with the
    target's stains. What neither stain explains is dropped; glass becomes the target's glass
    exactly. Vahadane's amounts are never negative. Reinhard: L*, a* and b* of all pixels are
    shifted and scaled as means and deviations of stained pixels compare; glass changes with them.

    One pass of the same arithmetic for all pixels of a batch, on its device; nothing is fitted
    here, so blank tiles are as good as any.

    Args:
        target: what tiles are to look like.

    Source:
        Macenko et al., ISBI 2009; Vahadane et al., IEEE TMI 35, 2016; Reinhard et al., "Color
        transfer between images", IEEE CG&A 21, 2001, with CIELAB for its l-alpha-beta, as
        torchstain and TIAToolbox have it.
    """

    def __init__(self, target: StainProfile) -> None:
        super().__init__()
        self.target = target
        self._numbers: dict[StainProfile, tuple[Tensor, ...]] = {}

    @torch.no_grad()
    def forward(self, tiles: Tensor, profiles: StainProfile | Sequence[StainProfile]) -> Tensor:
        """Normalised tiles.

        Args:
            tiles: uint8 ``(n, 3, height, width)`` on any device.
            profiles: that of each tile's slide, or one for all.

        Returns:
            uint8 tiles of the same shape, on the same device.

        Raises:
            StampMismatchError: a profile made by another method than the target.
            TypeError: tiles that are not uint8.
            ValueError: tiles of another shape, or not one profile per tile.
        """
        if tiles.dtype != torch.uint8:
            raise TypeError(f"tiles must be uint8, got {tiles.dtype}")
        if tiles.ndim != 4 or tiles.shape[1] != 3:
            raise ValueError(f"tiles must be (n, 3, height, width), got {tuple(tiles.shape)}")
        if isinstance(profiles, StainProfile):
            profiles = [profiles] * len(tiles)
        if len(profiles) != len(tiles):
            raise ValueError(f"{len(tiles)} tiles need as many profiles, got {len(profiles)}")
        if not len(tiles):
            return tiles.clone()
        numbers = [
            torch.stack(values).to(tiles.device)
            for values in zip(*map(self._numbers_of, profiles), strict=True)
        ]
        if tiles.device.type != "cpu":
            return _to_uint8(self._apply(tiles.float(), *numbers))
        # Tile by tile, so that the numbers in between stay in the cache.
        result = torch.empty_like(tiles)
        for i in range(len(tiles)):
            one = slice(i, i + 1)
            result[one] = _to_uint8(self._apply(tiles[one].float(), *(n[one] for n in numbers)))
        return result

    def _apply(self, light: Tensor, *numbers: Tensor) -> Tensor:
        """Light of 0 to 255 to light, not rounded; writes over ``light``."""
        if self.target.method == "reinhard":
            return _shift_colours(light, *numbers)
        own, white, target, target_white = numbers
        positive = self.target.method == "vahadane"
        return _exchange_stains(light, own, white, target, target_white, positive)

    def _numbers_of(self, profile: StainProfile) -> tuple[Tensor, ...]:
        """What the arithmetic needs of one slide and the target, as float32, on the CPU."""
        if profile not in self._numbers:
            target = self.target
            if profile.method != target.method:
                raise StampMismatchError(
                    f"the stain profile of {profile.name} is made by {profile.method}, that of the"
                    f" target {target.name} by {target.method}; fit both by one method"
                )
            arrays = (
                [profile.means, profile.deviations, target.means, target.deviations]
                if target.method == "reinhard"
                else [profile.matrix, profile.white, target.matrix, target.white]
            )
            self._numbers[profile] = tuple(
                torch.from_numpy(np.asarray(array, dtype=np.float64)).float() for array in arrays
            )
        return self._numbers[profile]


def _exchange_stains(
    light: Tensor, own: Tensor, white: Tensor, target: Tensor, target_white: Tensor, positive: bool
) -> Tensor:
    """Stains of one matrix for those of another; ``(n, 2, 3)`` matrices, ``(n, 3)`` whites.

    The base of the logarithm cancels.
    """
    white = white[:, :, None, None]
    density = torch.minimum(light.clamp_(min=1), white).div_(white).log_().neg_()
    if positive:
        lengths = own.square().sum(-1)
        alone = mix(density, own / lengths[:, :, None])
        both = mix(density, torch.linalg.pinv(own.double()).mT.to(own.dtype))
        amounts = torch.where(both.flip(1) < 0, alone, both).clamp_(min=0)
        density = mix(amounts, target.mT)
    else:
        change = target.double().mT @ torch.linalg.pinv(own.double()).mT
        density = mix(density, change.to(own.dtype))
    return density.neg_().exp_().mul_(target_white[:, :, None, None])


def _shift_colours(
    light: Tensor, means: Tensor, deviations: Tensor, target_means: Tensor, target_dev: Tensor
) -> Tensor:
    """Means and deviations of L*, a* and b*, ``(n, 3)``, for those of another slide."""
    scale = target_dev / deviations
    shift = target_means - means * scale
    lab = rgb_to_lab(light.div_(255)).mul_(scale[:, :, None, None]).add_(shift[:, :, None, None])
    return lab_to_rgb(lab).mul_(255)


def _to_uint8(light: Tensor) -> Tensor:
    return light.round_().clamp_(0, 255).to(torch.uint8)
