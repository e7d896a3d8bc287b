"""Methods that walk from an image without information to the image, and add up gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.baselines import Baseline, check_baseline, encoded_baseline
from bcos_vit.attribution.checks import check_batch, check_eval, target_logit, undisturbed
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.gradients import Spread, check_samples
from bcos_vit.attribution.passes import encoded, generator, gradient, logits_of, noisy
from bcos_vit.attribution.registry import register


@register
@dataclass(frozen=True)
class IntegratedGradients:
    """The difference to a baseline times the mean gradient on the straight way from there.

    The way is straight in the network's own input, and what belongs to a pixel is summed over its
    channels. Between encoded images every point is an encoded image (of complements and of
    normalised RGB), but not between one and zero. In the limit the maps sum to the logit minus
    that of the baseline; what a finite number of steps misses is the completeness gap.

    Args:
        baseline: what to start from, a :data:`~bcos_vit.attribution.baselines.Baseline`.
        steps: gradients, at the points of a Gauss-Legendre rule.

    Raises:
        ValueError: no such baseline, or no steps.

    Source:
        Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017
        (arXiv:1703.01365), equation 1.
    """

    baseline: Baseline = "black"
    steps: int = 50

    name: ClassVar[str] = "integrated_gradients"
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "logits"

    def __post_init__(self) -> None:
        check_baseline(self.baseline)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    def check(self, classifier: Classifier) -> None:
        check_eval(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        self.check(classifier)
        check_batch(images, target)
        model = classifier.model
        points, weights = np.polynomial.legendre.leggauss(self.steps)
        with undisturbed(images):
            x = encoded(classifier, images)
            start = encoded_baseline(self.baseline, classifier, images)
            logits = logits_of(model, x)
            reference = target_logit(logits_of(model, start), target)
            mean = torch.zeros_like(x, dtype=torch.float64)
            # The rule is for [-1, 1], where weights sum to 2.
            for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
                slope = gradient(model, start + float(point) * (x - start), target)[1]
                mean += float(weight) * slope
            maps = ((x - start) * mean).sum(1)
        return Attribution(
            maps=maps.float(),
            target=target.clone(),
            logits=logits,
            unit=self.unit,
            reference=reference,
            forward_passes=self.steps + 2,
            backward_passes=self.steps,
        )


@register
@dataclass(frozen=True)
class GradientShap:
    """Integrated gradients in expectation over several baselines, from random points of the ways.

    Each sample is one point on each baseline's way. In expectation the maps sum to the logit minus
    the mean of the baselines'.

    Args:
        baselines: what to start from, each a :data:`~bcos_vit.attribution.baselines.Baseline`.
        samples: random points per baseline.
        noise: standard deviation of Gaussian noise that each sample's image gets before it is
            encoded, cut to [0, 1]; with noise, maps explain the mean logit of noisy images instead.
        seed: of points and noise, which are the same for every image.

    Raises:
        ValueError: no such baseline, or a number out of range.

    Source:
        Erion et al., "Improving performance of deep learning models with axiomatic attribution
        priors and expected gradients", Nature Machine Intelligence 2021 (arXiv:1906.10670);
        Lundberg and Lee, NeurIPS 2017 (arXiv:1705.07874).
    """

    baselines: Sequence[Baseline] = ("black", "white", "glass", "blur")
    samples: int = 12
    noise: float = 0.0
    seed: int = 0

    name: ClassVar[str] = "gradient_shap"
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "logits"

    def __post_init__(self) -> None:
        if isinstance(self.baselines, str) or not self.baselines:
            raise ValueError(f"baselines must be one or more, got {self.baselines!r}")
        for baseline in self.baselines:
            check_baseline(baseline)
        check_samples(self.samples, self.noise)

    def check(self, classifier: Classifier) -> None:
        check_eval(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        self.check(classifier)
        check_batch(images, target)
        model, count = classifier.model, len(self.baselines)
        chance = generator(self.seed)
        with undisturbed(images):
            x = encoded(classifier, images)
            starts = [encoded_baseline(each, classifier, images) for each in self.baselines]
            logits = logits_of(model, x)
            references = [target_logit(logits_of(model, start), target) for start in starts]
            spread = Spread()
            for _ in range(self.samples):
                copy = x
                if self.noise:
                    copy = encoded(classifier, noisy(images, self.noise, chance))
                maps = x.new_zeros((len(x), *x.shape[2:]), dtype=torch.float64)
                for start in starts:
                    point = float(torch.rand((), generator=chance, dtype=torch.float64))
                    slope = gradient(model, start + point * (copy - start), target)[1]
                    maps += ((copy - start) * slope).sum(1) / count
                spread.add(maps)
        return Attribution(
            maps=spread.mean.float(),
            target=target.clone(),
            logits=logits,
            unit=self.unit,
            reference=torch.stack(references).double().mean(0),
            standard_error=spread.standard_error,
            forward_passes=self.samples * count + count + 1,
            backward_passes=self.samples * count,
        )
