"""Applying stain profiles: batches of tiles become as the target slide would show them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pathology.errors import StampMismatchError
from pathology.stain.lab import lab_to_rgb, mix, rgb_to_lab
from pathology.stain.profile import Method, StainProfile


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
        return _STEPS[self.target.method](light, *numbers)

    def _numbers_of(self, profile: StainProfile) -> tuple[Tensor, ...]:
        """What the arithmetic needs of one slide and the target, as float32, on the CPU."""
        if profile not in self._numbers:
            if profile.method != self.target.method:
                raise StampMismatchError(
                    f"the stain profile of {profile.name} is made by {profile.method}, that of the"
                    f" target {self.target.name} by {self.target.method}; fit both by one method"
                )
            self._numbers[profile] = tuple(
                torch.from_numpy(np.asarray(array, dtype=np.float64)).float()
                for array in _numbers(profile, self.target)
            )
        return self._numbers[profile]


def _numbers(own: StainProfile, target: StainProfile) -> tuple[ArrayLike, ...]:
    """The arguments of a method's step, of one slide; in float64."""
    if own.method == "reinhard":
        scale = np.array(target.deviations) / np.array(own.deviations)
        return scale, np.array(target.means) - scale * np.array(own.means)
    unmix = np.linalg.pinv(own.matrix).T  # amounts, in 99th percentiles
    if own.method == "macenko":
        return target.matrix.T @ unmix, own.white, target.white
    products = own.matrix @ own.matrix.T
    shared = products[0, 1] / products.diagonal()
    return unmix, shared, target.matrix.T, own.white, target.white


def _exchange(light: Tensor, change: Tensor, white: Tensor, target_white: Tensor) -> Tensor:
    """Stains for others: densities by ``(n, 3, 3)`` matrices; the logarithm's base cancels."""
    return _light(mix(_density(light, white), change), target_white)


def _exchange_positive(
    light: Tensor, unmix: Tensor, shared: Tensor, to: Tensor, white: Tensor, target_white: Tensor
) -> Tensor:
    """The same with amounts never below 0: where one would be, the other explains alone.

    It then holds what of the negative one lies in its own direction, ``shared`` of it.
    """
    both = mix(_density(light, white), unmix)
    excess = both.flip(1).clamp_(max=0).mul_(shared[:, :, None, None])
    return _light(mix(both.add_(excess).clamp_(min=0), to), target_white)


def _shift(light: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """L*, a* and b* times ``scale`` plus ``shift``, ``(n, 3)`` each."""
    lab = rgb_to_lab(light.div_(255))
    return lab_to_rgb(lab.mul_(scale[:, :, None, None]).add_(shift[:, :, None, None])).mul_(255)


_STEPS: dict[Method, Callable[..., Tensor]] = {
    "macenko": _exchange,
    "vahadane": _exchange_positive,
    "reinhard": _shift,
}


def _density(light: Tensor, white: Tensor) -> Tensor:
    glass = white[:, :, None, None]
    return torch.minimum(light.clamp_(min=1), glass).div_(glass).log_().neg_()


def _light(density: Tensor, white: Tensor) -> Tensor:
    return density.neg_().exp_().mul_(white[:, :, None, None])


def _to_uint8(light: Tensor) -> Tensor:
    return light.round_().clamp_(0, 255).to(torch.uint8)
