"""Images without information, that methods of differences compare an image with."""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.fillings import Filling, fill
from bcos_vit.attribution.passes import encoded

Baseline = str | Sequence[float]
"""A :data:`~bcos_vit.attribution.fillings.Filling`, a colour of three numbers in [0, 1], or
``"zero"``: zeros in the network's own input, which for a B-cos network of complements is no colour
but a place that contributes exactly nothing, and for normalised RGB the mean colour of training."""


def check_baseline(baseline: Baseline) -> None:
    """Refuse what is no baseline.

    Raises:
        ValueError: an unknown name, or not a colour.
    """
    if isinstance(baseline, str):
        known = (*get_args(Filling), "zero")
        if baseline not in known:
            raise ValueError(
                f"baseline must be one of {known} or a colour of three numbers, got {baseline!r}"
            )
    elif len(baseline) != 3 or not all(0 <= value <= 1 for value in baseline):
        raise ValueError(f"a baseline's colour must be three numbers in [0, 1], got {baseline!r}")


def encoded_baseline(baseline: Baseline, classifier: Classifier, images: Tensor) -> Tensor:
    """The baseline of each image as the network is given it, ``(n, c, h, w)``."""
    if isinstance(baseline, str):
        if baseline == "zero":
            return torch.zeros_like(encoded(classifier, images))
        return encoded(classifier, fill(baseline, images))
    colour = images.new_tensor(list(baseline))[:, None, None]
    return encoded(classifier, colour.expand_as(images).contiguous())
