"""RISE: what the network says about many images of which a random half is hidden.

Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models",
BMVC 2018 (arXiv:1806.07421), on logits, with a standard error for every pixel.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.checks import check_eval
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.fillings import Filling, check_filling, fill
from bcos_vit.attribution.masking import check_counts, masked_logits, plain_logits
from bcos_vit.attribution.passes import generator
from bcos_vit.attribution.registry import register
from bcos_vit.attribution.settings import one_of

Estimate = Literal["centred", "expectation"]

_FEWEST = 10  # masks below which a standard error means nothing


@register
@dataclass(frozen=True)
class Rise:
    """A pixel's value is what the logit gains where the pixel is seen.

    With masks ``m`` and the logits ``f`` of the images behind them::

        centred       cov(f, m_pixel) / var(m_pixel)     from hidden to seen, the slope of f
        expectation   E[f m_pixel] / p - E[f]            seen, against the mean: RISE's own

    RISE's own map is the second plus ``E[f]``, which is the same for every pixel and changes no
    order. It carries the chance of a pixel to be seen often times the size of the logit; the slope
    does not, and needs fewer masks where logits are far from zero.

    Args:
        n_masks: images per map.
        cells: of the coarse grid along each side of the image.
        p: chance of a cell to be seen.
        estimate: ``"centred"`` or ``"expectation"``.
        filling: what is seen where a mask is 0; the paper's is ``"black"``.
        seed: of the masks, which are the same for every image of a size.
        batch_size: images through the network at once.

    Raises:
        TypeError, ValueError: counts that are none, fewer than 10 masks, a chance outside (0, 1),
            an unknown estimate or filling.
    """

    n_masks: int = 1000
    cells: int = 7
    p: float = 0.5
    estimate: Estimate = "centred"
    filling: Filling = "blur"
    seed: int = 0
    batch_size: int = 64
    name: ClassVar[str] = "rise"
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "none"

    def __post_init__(self) -> None:
        check_counts(n_masks=self.n_masks, cells=self.cells, batch_size=self.batch_size)
        check_filling(self.filling)
        if self.n_masks < _FEWEST:
            raise ValueError(f"n_masks must be at least {_FEWEST}, got {self.n_masks}")
        if not 0 < self.p < 1:
            raise ValueError(f"p must be in (0, 1), got {self.p}")
        one_of("estimate", self.estimate, get_args(Estimate))

    def check(self, classifier: Classifier) -> None:
        """Refuse a network in training mode."""
        check_eval(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        """See :class:`bcos_vit.attribution.Method`."""
        self.check(classifier)
        logits = plain_logits(classifier, images, target, self.batch_size)
        filled = fill(self.filling, images)
        said = torch.stack(
            [
                masked_logits(classifier, image, replaced, self._masks(images), label)
                for image, replaced, label in zip(images, filled, target.tolist(), strict=True)
            ],
            dim=1,
        )  # masks x images
        estimate = self._slope if self.estimate == "centred" else self._expectation
        value, variance = estimate(said, images)
        shape = (-1, *images.shape[2:])
        return Attribution(
            value.T.reshape(shape).float(),
            target,
            logits,
            standard_error=variance.clamp_min(0).sqrt().T.reshape(shape).float(),
            forward_passes=self.n_masks + 1,
        )

    def _masks(self, images: Tensor) -> Iterator[Tensor]:
        """``(k, h, w)`` masks in [0, 1], ``batch_size`` at a time; the same every time.

        Coarse random grids, enlarged to one cell more than the image and cut out where a random
        shift of up to a cell says.
        """
        # Drawn on the CPU and all at once, so that devices and batches of any size see the same.
        chance = generator(self.seed)
        grids = torch.rand(self.n_masks, 1, self.cells, self.cells, generator=chance) < self.p
        height, width = images.shape[2:]
        down, across = (math.ceil(side / self.cells) for side in (height, width))
        tops = torch.randint(down, (self.n_masks,), generator=chance)
        lefts = torch.randint(across, (self.n_masks,), generator=chance)
        size = ((self.cells + 1) * down, (self.cells + 1) * across)
        for some in torch.arange(self.n_masks).split(self.batch_size):
            wide = F.interpolate(grids[some].float(), size=size, mode="bilinear")[:, 0]
            corners = zip(tops[some].tolist(), lefts[some].tolist(), strict=True)
            cut = [
                mask[top : top + height, left : left + width]
                for mask, (top, left) in zip(wide, corners, strict=True)
            ]
            yield torch.stack(cut).to(images.device)

    def _pixels(self, images: Tensor, said: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Masks ``(k, pixels)`` and what was said behind them ``(k, images)``, float64."""
        for masks, some in zip(self._masks(images), said.split(self.batch_size), strict=True):
            yield masks.flatten(1).double(), some

    def _slope(self, said: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Slope of the logit on a pixel's mask, and its variance, ``(pixels, images)``.

        The variance is the one that allows for residuals of any size (White, 1980): what the other
        pixels do to the logit is the residual here, and it depends on the mask.
        """
        n = self.n_masks
        mean: Tensor = sum(m.sum(0) for m in self._masks(images)).double().flatten() / n  # type: ignore[union-attr]
        apart = said - said.mean(0)
        square, fourth = said.new_zeros(2, len(mean), 1)
        product, cubic, both = said.new_zeros(3, len(mean), said.shape[1])
        for mask, some in self._pixels(images, apart):
            d = mask - mean
            square += (d**2).sum(0)[:, None]
            fourth += (d**4).sum(0)[:, None]
            product += d.T @ some
            cubic += (d**3).T @ some
            both += (d**2).T @ some**2
        slope = product / square
        residuals = both - 2 * slope * cubic + slope**2 * fourth
        return slope, residuals / square**2 * n / (n - 2)

    def _expectation(self, said: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of ``f (m / p - 1)`` and its variance, ``(pixels, images)``."""
        n = self.n_masks
        first, second = said.new_zeros(2, images[0, 0].numel(), said.shape[1])
        for mask, some in self._pixels(images, said):
            share = mask / self.p - 1
            first += share.T @ some
            second += (share**2).T @ some**2
        mean = first / n
        return mean, (second / n - mean**2) / (n - 1)
