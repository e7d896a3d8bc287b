"""Stain space: the optical density of H&E taken apart into haematoxylin, eosin and a residual.

Light that passes a stain is weakened by a factor, so stains add up in optical density, and known
stain vectors take them apart again (Ruifrok and Johnston, "Quantification of histochemical
staining by color deconvolution", Anal. Quant. Cytol. Histol. 23, 2001)::

    od = log10(white / light)                 of red, green and blue; 0 for glass
    od = h * H + e * E + r * R                solved for the amounts h, e, r
    channels = [h, e, r, e+r, h+r, h+e]

Amounts are signed and linear in the optical density: what neither dye explains is the residual,
what is redder than eosin has a negative haematoxylin, and nothing is lost. A stain's complement is
what of the pixel's density is *not* that stain, so glass is zero in all six channels and
contributes nothing, whatever the weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

STAINS = ("haematoxylin", "eosin", "residual")
"""What the first three channels hold, in this order."""

DARKEST = 1 / 255
"""Light below one step of eight bits counts as one step, so that black has a density."""

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class StainSpace:
    """The stains of a set of slides, and their glass.

    Args:
        haematoxylin, eosin: how each dye absorbs red, green and blue; scaled to length 1, so that
            amounts are optical densities. Ruifrok and Johnston's when omitted.
        residual: a third direction; at right angles to both when omitted, brown pigment positive.
        white: light of red, green and blue that counts as glass, in (1/255, 1]; what is brighter
            has density 0 too. The default is the customary 240 of 255; scanners differ.

    Raises:
        ValueError: not three finite numbers, stains in one plane, a white out of range.
    """

    haematoxylin: Vector = (0.65, 0.70, 0.29)
    eosin: Vector = (0.07, 0.99, 0.11)
    residual: Vector | None = None
    white: Vector = (240 / 255, 240 / 255, 240 / 255)

    def __post_init__(self) -> None:
        white = _three("white", self.white)
        if not ((white > DARKEST) & (white <= 1)).all():
            raise ValueError(
                f"white must lie in (1/255, 1], got {self.white}; divide 8-bit values by 255"
            )
        h, e = _unit("haematoxylin", self.haematoxylin), _unit("eosin", self.eosin)
        r = _unit("residual", np.cross(h, e) if self.residual is None else self.residual)
        # Dyes 0.06 degrees apart: amounts would be noise times a thousand.
        if abs(np.linalg.det([h, e, r])) < 1e-3:
            raise ValueError(
                "stains must point in three directions, or they cannot be told apart; got"
                f" haematoxylin {self.haematoxylin}, eosin {self.eosin}, residual {self.residual}"
            )
        for name, vector in zip((*STAINS, "white"), (h, e, r, white), strict=True):
            object.__setattr__(self, name, tuple(vector.tolist()))

    def __str__(self) -> str:
        stains = (f"{name} {_digits(getattr(self, name))}" for name in STAINS)
        return f"{', '.join(stains)}, white {_digits(self.white)}"

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The stains as rows, ``(3, 3)``: ``od = amounts @ matrix``."""
        return np.array([self.haematoxylin, self.eosin, self.residual])

    @cached_property
    def _unmixing(self) -> NDArray[np.float64]:
        """``amounts = od @ unmixing``."""
        return np.asarray(np.linalg.inv(self.matrix), dtype=np.float64)

    def amounts(self, images: Tensor) -> Tensor:
        """How much of each stain lies in the light's way.

        Args:
            images: ``(..., 3, height, width)`` RGB in [0, 1].

        Returns:
            ``(..., 3, height, width)`` optical densities in the order of :data:`STAINS`; exactly 0
            where no colour is darker than ``white``.
        """
        wide = images.to(torch.promote_types(images.dtype, torch.float32))
        # Rounded as the images are, or glass of exactly that value would be a hair darker.
        white = images.new_tensor(self.white)[:, None, None].to(wide)
        density = torch.log10(white / wide.clamp_min(DARKEST).clamp_max(white))
        return _mix(density, self._unmixing).to(images.dtype)

    def encode(self, images: Tensor) -> Tensor:
        """RGB in [0, 1] to the six channels, ``(..., 6, height, width)``."""
        amounts = self.amounts(images)
        return torch.cat([amounts, others(amounts)], dim=-3)

    def decode(self, channels: Tensor) -> Tensor:
        """The RGB image behind six channels, ``(..., 3, height, width)``; glass is ``white``."""
        density = _mix(channels[..., :3, :, :], self.matrix)
        return channels.new_tensor(self.white)[:, None, None] * 10**-density


def others(stains: Tensor) -> Tensor:
    """For each of three stains the sum of the other two, ``(..., 3, height, width)`` to the same.

    Never "all minus this one", which would not be exactly 0 where both others are. The map is its
    own transpose, so it also takes weights of complements to the stains they hold.
    """
    return stains.roll(1, -3) + stains.roll(2, -3)


def _mix(pixels: Tensor, matrix: NDArray[np.float64]) -> Tensor:
    """``pixels @ matrix`` over the colour dimension.

    Products and sums by hand: a matrix product would be rounded to half precision under autocast,
    and to ten bits by TF32.
    """
    return (pixels.unsqueeze(-4) * pixels.new_tensor(matrix.T)[:, :, None, None]).sum(-3)


def _digits(vector: Iterable[float]) -> str:
    return " ".join(f"{number:.4f}" for number in vector)


def _three(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Three finite numbers.

    Raises:
        ValueError: something else.
    """
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (3,) or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be three finite numbers, got {value!r}")
    return numbers


def _unit(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """``value`` at length 1; zeros stay, and what has length 1 is not touched by rounding."""
    vector = _three(name, value)
    length = np.linalg.norm(vector)
    return vector if length == 0 or abs(length - 1) < 1e-9 else vector / length
