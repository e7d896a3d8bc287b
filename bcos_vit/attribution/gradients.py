"""Methods of one gradient: times the input, or averaged over noise."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.checks import check_batch, check_eval, undisturbed
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.passes import encoded, generator, gradient, logits_of, noisy
from bcos_vit.attribution.registry import register


@register
@dataclass(frozen=True)
class InputXGradient:
    """The gradient of the logit times the network's input, summed over its channels.

    The plain gradient, through norms, gates and attention as they depend on the image: for a B-cos
    network this is not its explanation. What the sum misses of the logit is the completeness gap.

    Source:
        Shrikumar et al., "Not Just a Black Box" (arXiv:1605.01713).
    """

    name: ClassVar[str] = "input_x_gradient"
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "logits"

    def check(self, classifier: Classifier) -> None:
        check_eval(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        self.check(classifier)
        check_batch(images, target)
        with undisturbed(images):
            x = encoded(classifier, images)
            logits, slope = gradient(classifier.model, x, target)
            maps = (x * slope).sum(1)
        return Attribution(
            maps=maps.float(),
            target=target.clone(),
            logits=logits,
            unit=self.unit,
            forward_passes=1,
            backward_passes=1,
        )


@register
@dataclass(frozen=True)
class SmoothGrad:
    """The mean of gradients at noisy copies of the image.

    Noise is added to the RGB image, before it is encoded.

    Args:
        samples: noisy copies.
        noise: standard deviation; noisy values are cut to [0, 1].
        times_input: whether the mean is multiplied by the network's input and summed over its
            channels, which keeps signs and comes with a standard error; else its absolute values
            are summed over channels.
        seed: of the noise, which is the same for every image.

    Raises:
        ValueError: a number out of range.

    Source:
        Smilkov et al., "SmoothGrad" (arXiv:1706.03825).
    """

    samples: int = 25
    noise: float = 0.15
    times_input: bool = True
    seed: int = 0

    name: ClassVar[str] = "smoothgrad"
    unit: ClassVar[Unit] = "none"

    def __post_init__(self) -> None:
        check_samples(self.samples, self.noise)

    @property
    def is_signed(self) -> bool:
        return self.times_input

    def check(self, classifier: Classifier) -> None:
        check_eval(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        self.check(classifier)
        check_batch(images, target)
        chance = generator(self.seed)
        with undisturbed(images):
            x = encoded(classifier, images)
            slopes = torch.zeros_like(x, dtype=torch.float64)
            spread = Spread()
            for _ in range(self.samples):
                copy = encoded(classifier, noisy(images, self.noise, chance))
                slope = gradient(classifier.model, copy, target)[1]
                slopes += slope
                spread.add((x * slope).sum(1))
            logits = logits_of(classifier.model, x)
        maps = spread.mean if self.times_input else (slopes / self.samples).abs().sum(1)
        return Attribution(
            maps=maps.float(),
            target=target.clone(),
            logits=logits,
            unit=self.unit,
            standard_error=spread.standard_error if self.times_input else None,
            forward_passes=self.samples + 1,
            backward_passes=self.samples,
        )


def check_samples(samples: int, noise: float) -> None:
    """Refuse numbers that no average can be made with.

    Raises:
        ValueError: no sample, or a deviation that is negative.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if not 0 <= noise < float("inf"):
        raise ValueError(f"noise must not be negative, got {noise}")


class Spread:
    """Mean of maps that come one by one, and its standard error, in float64 (Welford)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(self, maps: Tensor) -> None:
        """One more sample, ``(n, h, w)``."""
        maps = maps.detach().double()
        self._count += 1
        off = maps - self._mean
        self._mean = self._mean + off / self._count
        self._squares = self._squares + off * (maps - self._mean)

    @property
    def mean(self) -> Tensor:
        """Of the samples."""
        return torch.as_tensor(self._mean)

    @property
    def standard_error(self) -> Tensor | None:
        """Of the mean, float32; None of a single sample."""
        if self._count < 2:
            return None
        variance = torch.as_tensor(self._squares) / (self._count - 1)
        return (variance / self._count).sqrt().float()
