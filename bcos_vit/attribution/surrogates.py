"""Surrogates: a linear model of which superpixels are seen, fitted to what the network says.

Both methods hide random sets of superpixels, ask the network for its logit, and fit one number per
superpixel by weighted least squares; they differ in sets and weights. A superpixel's number is
spread evenly over its pixels, so that the sum over any part of the map is what that part is worth.

Fits are our own, in float64: Captum's need scikit-learn, and penalise coefficients unless told
not to.
"""

import itertools
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
from bcos_vit.attribution.passes import generator
from bcos_vit.attribution.registry import register
from bcos_vit.attribution.superpixels import superpixels


@dataclass(frozen=True)
class _Surrogate:
    """What both have in common.

    Args:
        n_superpixels: about how many SLIC is to make.
        compactness: of SLIC, see :func:`superpixels`.
        n_samples: sets of superpixels the network is asked about, per image.
        filling: what hidden superpixels are replaced by.
        seed: of the sets.
        batch_size: images through the network at once.

    Raises:
        TypeError, ValueError: counts that are none, fewer than four sets per superpixel, an unknown
            filling.
    """

    n_superpixels: int = 50
    compactness: float = 10.0
    n_samples: int = 1000
    filling: Filling = "blur"
    seed: int = 0
    batch_size: int = 64
    name: ClassVar[str]
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "none"

    def __post_init__(self) -> None:
        check_counts(
            n_superpixels=self.n_superpixels, n_samples=self.n_samples, batch_size=self.batch_size
        )
        check_filling(self.filling)
        if not self.compactness > 0:
            raise ValueError(f"compactness must be positive, got {self.compactness}")
        if self.n_samples < 4 * self.n_superpixels:
            raise ValueError(
                "n_samples must be at least four times n_superpixels, or the fit is none; got"
                f" {self.n_samples} for {self.n_superpixels}"
            )

    def check(self, classifier: Classifier) -> None:
        """Refuse a network in training mode."""
        check_eval(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        """See :class:`bcos_vit.attribution.Method`."""
        self.check(classifier)
        logits = plain_logits(classifier, images, target, self.batch_size)
        filled = fill(self.filling, images)
        maps, empty, fidelity, asked = [], [], [], 0
        for image, replaced, label, said in zip(
            images, filled, target.tolist(), logits, strict=True
        ):
            parts = superpixels(image, self.n_superpixels, self.compactness)
            sets, weights = self._sets(int(parts.max()) + 1)
            none = sets.new_zeros(1, sets.shape[1])
            masks = self._masks(torch.cat([none, sets]), parts)
            values = masked_logits(classifier, image, replaced, masks, label).cpu()
            whole = said[label].double().cpu()
            worth, fitted = self._fit(sets.double(), weights, values[1:], values[0], whole)
            sizes = torch.bincount(parts.flatten()).cpu()
            maps.append((worth / sizes).to(parts.device)[parts])
            empty.append(values[0])
            fidelity.append(_r_squared(weights, values[1:], fitted))
            asked += len(sets) + 1
        return Attribution(
            torch.stack(maps).float(),
            target,
            logits,
            unit=self.unit,
            reference=torch.stack(empty).to(logits.device) if self.unit == "logits" else None,
            fidelity=torch.stack(fidelity).to(logits.device),
            forward_passes=asked / len(images) + 1,
        )

    def _masks(self, sets: Tensor, parts: Tensor) -> Iterator[Tensor]:
        """``(k, h, w)`` masks of sets ``(n, superpixels)``, ``batch_size`` at a time."""
        for some in sets.split(self.batch_size):
            yield some.to(parts.device)[:, parts]

    def _sets(self, parts: int) -> tuple[Tensor, Tensor]:
        """Sets to ask about, ``(n, parts)`` bool, neither all nor none; their weights ``(n,)``."""
        raise NotImplementedError

    def _fit(
        self, sets: Tensor, weights: Tensor, values: Tensor, empty: Tensor, whole: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What each superpixel is worth, ``(parts,)``; what the surrogate says of each set."""
        raise NotImplementedError


@register
@dataclass(frozen=True)
class Lime(_Surrogate):
    """LIME: a ridge regression around the whole image.

    Each superpixel is seen with chance one half. Sets count by how near they are to the whole
    image, ``exp(-d^2 / (2 width^2))`` of their cosine distance ``d = 1 - sqrt(share seen)``.

    Args:
        n_superpixels, compactness, n_samples, filling, seed, batch_size: see module.
        width: of the neighbourhood, in cosine distance.
        ridge: penalty on the squares of what superpixels are worth (not on the intercept).

    Raises:
        TypeError, ValueError: counts that are none, fewer than four sets per superpixel, an unknown
            filling, a width or ridge that is not positive.

    Source:
        Ribeiro, Singh and Guestrin, "Why Should I Trust You?", KDD 2016 (arXiv:1602.04938), eq. 1
        and 2; kernel, width and ridge of the authors' package.
    """

    width: float = 0.25
    ridge: float = 1.0
    name: ClassVar[str] = "lime"

    def __post_init__(self) -> None:
        super().__post_init__()
        for setting in ("width", "ridge"):
            if not getattr(self, setting) > 0:
                raise ValueError(f"{setting} must be positive, got {getattr(self, setting)}")

    def _sets(self, parts: int) -> tuple[Tensor, Tensor]:
        chance = generator(self.seed)
        sets = torch.rand(self.n_samples, parts, generator=chance) < 0.5
        distance = 1 - sets.double().mean(1).sqrt()
        return sets, torch.exp(-0.5 * (distance / self.width) ** 2)

    def _fit(
        self, sets: Tensor, weights: Tensor, values: Tensor, empty: Tensor, whole: Tensor
    ) -> tuple[Tensor, Tensor]:
        share = (weights / weights.sum())[:, None]
        seen, said = (share * sets).sum(0), (share[:, 0] * values).sum()
        apart = sets - seen
        gram = apart.T @ (weights[:, None] * apart)
        gram.diagonal().add_(self.ridge)
        worth = torch.linalg.solve(gram, apart.T @ (weights * (values - said)))
        return worth, said + apart @ worth


@register
@dataclass(frozen=True)
class KernelShap(_Surrogate):
    """KernelSHAP: the weights under which least squares gives Shapley values.

    What superpixels are worth sums to the logit of the image minus that of the image of which
    nothing is seen, exactly. Where all sets are no more than ``n_samples``, all are asked and the
    numbers are the Shapley values; else sets are drawn by the kernel, each with its complement.

    Args:
        n_superpixels, compactness, n_samples, filling, seed, batch_size: see module.

    Raises:
        TypeError, ValueError: counts that are none, fewer than four sets per superpixel, an unknown
            filling.

    Source:
        Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017
        (arXiv:1705.07874), theorem 2; pairs and the constrained fit as in "Improving KernelSHAP",
        AISTATS 2021 (arXiv:2012.01536).
    """

    name: ClassVar[str] = "kernel_shap"
    unit: ClassVar[Unit] = "logits"

    def _sets(self, parts: int) -> tuple[Tensor, Tensor]:
        if parts < 2:
            return torch.zeros(0, parts, dtype=torch.bool), torch.zeros(0, dtype=torch.float64)
        sizes = torch.arange(1, parts, dtype=torch.float64)
        by_size = 1 / (sizes * (parts - sizes))
        if _is_few(parts, self.n_samples):
            every = torch.tensor(list(itertools.product((False, True), repeat=parts)))[1:-1]
            size = every.sum(1)
            many = torch.bincount(size)[size]
            return every, by_size[size - 1] / many
        chance = generator(self.seed)
        half = (self.n_samples + 1) // 2
        size = 1 + torch.multinomial(by_size, half, replacement=True, generator=chance)
        # The first places of a random order are a random set of that size.
        order = torch.rand(half, parts, generator=chance).argsort(1).argsort(1)
        sets = order < size[:, None]
        sets = torch.cat([sets, ~sets])
        return sets, torch.ones(len(sets), dtype=torch.float64)

    def _fit(
        self, sets: Tensor, weights: Tensor, values: Tensor, empty: Tensor, whole: Tensor
    ) -> tuple[Tensor, Tensor]:
        gain = whole - empty
        if sets.shape[1] == 1:
            return gain[None], values
        gram = sets.T @ (weights[:, None] * sets)
        right = torch.stack(
            [sets.T @ (weights * (values - empty)), gram.new_ones(len(gram))], dim=1
        )
        free, one = torch.linalg.solve(gram, right).T
        # The multiplier that makes the sum what it has to be.
        worth = free - one * (free.sum() - gain) / one.sum()
        return worth, empty + sets @ worth


def _is_few(parts: int, n_samples: int) -> bool:
    """Whether all sets of superpixels can be asked about."""
    return 2**parts - 2 <= n_samples


def _r_squared(weights: Tensor, values: Tensor, fitted: Tensor) -> Tensor:
    """Share of the weighted variance of ``values`` that ``fitted`` has; NaN where there is none."""
    if not len(values):
        return torch.tensor(torch.nan, dtype=torch.float64)
    mean = (weights * values).sum() / weights.sum()
    total = (weights * (values - mean) ** 2).sum()
    left = (weights * (values - fitted) ** 2).sum()
    return torch.where(total > 0, 1 - left / total, torch.nan)
