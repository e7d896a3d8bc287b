"""Class activation maps, as their formulas give them: never scaled to an image's own range.

With ``A`` the ``(channels, rows, columns)`` output of the last layer with places, ``G`` the
gradient of the logit by it, ``w`` a weight per channel and ``+`` for negative values set to zero:

================= ==================================================================
gradcam           ``(sum_k w_k A_k)+``, ``w_k`` the mean of ``G_k`` over places
gradcam++         ``w_k = sum_ij a_kij (G_kij)+``, ``a = G^2 / (2 G^2 + S_k G^3)`` with
                  ``S_k`` the sum of ``A_k`` over places
smooth_gradcam++  the same with means of ``G``, ``G^2``, ``G^3`` over noisy images
layercam          ``(sum_k (G_k)+ A_k)+``, a weight of each place
scorecam          ``w`` the softmax over channels of the logits of the image behind
                  each ``A_k`` as a mask
================= ==================================================================

Maps are interpolated bilinearly to the size of the image. They are as fine as their layer: the last
of a ResNet has 2 x 2 places for 64 px, and ``layer="layer2"`` has 8 x 8.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.checks import check_batch, check_eval, check_logits, undisturbed
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.gradients import check_samples
from bcos_vit.attribution.passes import encoded, generator, logits_of, noisy
from bcos_vit.attribution.registry import register
from bcos_vit.attribution.spatial import places_and_slopes, run_from, spatial_layer


@dataclass(frozen=True)
class _Cam(ABC):
    """What maps of activations and their gradients have in common."""

    layer: str | None = None

    name: ClassVar[str]
    is_signed: ClassVar[bool] = False
    unit: ClassVar[Unit] = "none"

    def check(self, classifier: Classifier) -> None:
        check_eval(self.name, classifier)
        spatial_layer(self.name, classifier.model, self.layer)

    @abstractmethod
    def combine(self, places: Tensor, slopes: Tensor) -> Tensor:
        """``A`` and ``G``, both ``(n, channels, rows, columns)``, to ``(n, rows, columns)``."""

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        self.check(classifier)
        check_batch(images, target)
        cut = spatial_layer(self.name, classifier.model, self.layer)
        with undisturbed(images):
            x = encoded(classifier, images)
            places, slopes, logits = places_and_slopes(self.name, classifier.model, cut, x, target)
            maps = _enlarged(self.combine(places, slopes), images)
        return Attribution(
            maps=maps,
            target=target.clone(),
            logits=logits,
            unit=self.unit,
            forward_passes=1,
            backward_passes=1,
        )


@register
@dataclass(frozen=True)
class GradCam(_Cam):
    """Activations weighted by their channel's mean gradient.

    Args:
        layer: whose output is mapped; the last with places when omitted.
        signed: whether negative values of the map are kept.

    Source:
        Selvaraju et al., "Grad-CAM", ICCV 2017 (arXiv:1610.02391), equations 1 and 2.
    """

    signed: bool = False

    name: ClassVar[str] = "gradcam"

    @property
    def is_signed(self) -> bool:  # type: ignore[override]
        return self.signed

    def combine(self, places: Tensor, slopes: Tensor) -> Tensor:
        maps = (slopes.mean((2, 3), keepdim=True) * places).sum(1)
        return maps if self.signed else maps.relu()


@register
@dataclass(frozen=True)
class LayerCam(_Cam):
    """Activations weighted place by place with their own gradients.

    Args:
        layer: whose output is mapped; the last with places when omitted.
        signed: whether negative values of gradients and map are kept, which makes it HiResCAM
            (Draelos et al., arXiv:2011.08891).

    Source:
        Jiang et al., "LayerCAM", IEEE Transactions on Image Processing 2021, equations 6 to 8.
    """

    signed: bool = False

    name: ClassVar[str] = "layercam"

    @property
    def is_signed(self) -> bool:  # type: ignore[override]
        return self.signed

    def combine(self, places: Tensor, slopes: Tensor) -> Tensor:
        if self.signed:
            return (slopes * places).sum(1)
        return (slopes.relu() * places).sum(1).relu()


@register
@dataclass(frozen=True)
class GradCamPlusPlus(_Cam):
    """Activations weighted by a mean of their channel's positive gradients, peaks counting alike.

    The paper explains ``exp(logit)``, which multiplies a whole map by that; it is left out, so that
    maps of different images stay comparable. What is left does depend on the scale of logits.

    Args:
        layer: whose output is mapped; the last with places when omitted.

    Source:
        Chattopadhay et al., "Grad-CAM++", WACV 2018 (arXiv:1710.11063), equations 5, 6 and 19.
    """

    name: ClassVar[str] = "gradcam++"

    def combine(self, places: Tensor, slopes: Tensor) -> Tensor:
        return _plus_plus(places, *(slopes.double() ** power for power in (1, 2, 3)))


@register
@dataclass(frozen=True)
class SmoothGradCamPlusPlus(_Cam):
    """Grad-CAM++ with derivatives averaged over noisy copies of the image.

    Args:
        layer: whose output is mapped; the last with places when omitted.
        samples: noisy copies.
        noise: standard deviation; noisy values are cut to [0, 1].
        seed: of the noise, which is the same for every image.

    Raises:
        ValueError: a number out of range.

    Source:
        Omeiza et al., "Smooth Grad-CAM++" (arXiv:1908.01224).
    """

    samples: int = 25
    noise: float = 0.15
    seed: int = 0

    name: ClassVar[str] = "smooth_gradcam++"

    def __post_init__(self) -> None:
        check_samples(self.samples, self.noise)

    def combine(self, places: Tensor, slopes: Tensor) -> Tensor:
        """Of a single copy."""
        return _plus_plus(places, *(slopes.double() ** power for power in (1, 2, 3)))

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        self.check(classifier)
        check_batch(images, target)
        model = classifier.model
        cut = spatial_layer(self.name, model, self.layer)
        chance = generator(self.seed)
        with undisturbed(images):
            leaf, logits = run_from(self.name, model, cut, encoded(classifier, images))
            check_logits(logits, target)
            places = cut.places(leaf.detach(), (images.shape[2], images.shape[3]))
            powers = [torch.zeros_like(places, dtype=torch.float64) for _ in range(3)]
            for _ in range(self.samples):
                x = encoded(classifier, noisy(images, self.noise, chance))
                slopes = places_and_slopes(self.name, model, cut, x, target)[1]
                for power, total in enumerate(powers, 1):
                    total += slopes.double() ** power / self.samples
            maps = _enlarged(_plus_plus(places, *powers), images)
        return Attribution(
            maps=maps,
            target=target.clone(),
            logits=logits.detach(),
            unit=self.unit,
            forward_passes=self.samples + 1,
            backward_passes=self.samples,
        )


@register
@dataclass(frozen=True)
class ScoreCam:
    """Activations weighted by what the network says of the image behind each of them as a mask.

    Masks are scaled to [0, 1], as they must be to be masks; the map is not. They multiply the RGB
    image, so what they hide is black. A constant channel hides everything.

    Args:
        layer: whose output is mapped; the last with places when omitted.
        batch_size: masked images that are run together.

    Raises:
        ValueError: a number out of range.

    Source:
        Wang et al., "Score-CAM", CVPR Workshops 2020 (arXiv:1910.01279), algorithm 1, with logits
        as scores.
    """

    layer: str | None = None
    batch_size: int = 32

    name: ClassVar[str] = "scorecam"
    is_signed: ClassVar[bool] = False
    unit: ClassVar[Unit] = "none"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def check(self, classifier: Classifier) -> None:
        check_eval(self.name, classifier)
        spatial_layer(self.name, classifier.model, self.layer)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        self.check(classifier)
        check_batch(images, target)
        cut = spatial_layer(self.name, classifier.model, self.layer)
        with undisturbed(images), torch.no_grad():
            x = encoded(classifier, images)
            leaf, logits = run_from(self.name, classifier.model, cut, x)
            check_logits(logits, target)
            places = cut.places(leaf.detach(), (images.shape[2], images.shape[3]))
            maps = [
                self._map(classifier, image, int(label), channels)
                for image, label, channels in zip(images, target, places, strict=True)
            ]
        return Attribution(
            maps=_enlarged(torch.stack(maps), images),
            target=target.clone(),
            logits=logits.detach(),
            unit=self.unit,
            forward_passes=places.shape[1] + 1,
        )

    def _map(self, classifier: Classifier, image: Tensor, label: int, channels: Tensor) -> Tensor:
        """``(rows, columns)`` of one image ``(3, h, w)`` and its ``(channels, rows, columns)``."""
        scores = []
        for some in channels.split(self.batch_size):
            masks = _masks(_enlarged(some, image[None]).to(image.dtype))
            x = encoded(classifier, image * masks[:, None])
            scores.append(logits_of(classifier.model, x)[:, label])
        weights = torch.cat(scores).softmax(0)
        return (weights[:, None, None] * channels).sum(0).relu()


def _plus_plus(places: Tensor, slopes: Tensor, squares: Tensor, cubes: Tensor) -> Tensor:
    """The map of Grad-CAM++ from ``A`` and the first three powers of ``G``, in float64.

    Third powers of small gradients are zero in single precision.
    """
    below = 2 * squares + places.sum((2, 3), keepdim=True) * cubes
    # Where the gradient is zero so is the weight.
    shares = torch.where(below == 0, 0, squares / torch.where(below == 0, 1, below))
    weights = (shares * slopes.relu()).sum((2, 3), keepdim=True)
    return (weights * places).sum(1).relu()


def _masks(channels: Tensor) -> Tensor:
    """Maps ``(k, h, w)``, each scaled to its own range; zeros where there is none."""
    low, high = channels.amin((1, 2), keepdim=True), channels.amax((1, 2), keepdim=True)
    extent = high - low
    return (channels - low) / torch.where(extent == 0, 1, extent)


def _enlarged(maps: Tensor, images: Tensor) -> Tensor:
    """``(n, rows, columns)`` to the images' ``(n, h, w)``, float32."""
    size = (images.shape[2], images.shape[3])
    y: Tensor = F.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False)
    return y[:, 0]
