"""What a network says when parts of an image are replaced: the question of every perturbation."""

from collections.abc import Iterable

import torch
from torch import Tensor

from bcos_vit.attribution.checks import check_batch, check_logits, undisturbed
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.layers.mode import outside_explanations


def check_counts(**counts: int) -> None:
    """Refuse settings that count something and are no positive whole number.

    Raises:
        TypeError: not an int.
        ValueError: below 1.
    """
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def plain_logits(classifier: Classifier, images: Tensor, target: Tensor, batch_size: int) -> Tensor:
    """Logits ``(n, classes)`` of the images as they are, after a check of all three.

    Raises:
        TypeError, ValueError: see :func:`check_batch` and :func:`check_logits`.
    """
    check_batch(images, target)
    with undisturbed(images), outside_explanations(), torch.no_grad():
        logits = torch.cat([classifier(some) for some in images.split(batch_size)])
    check_logits(logits, target)
    return logits


def masked_logits(
    classifier: Classifier,
    image: Tensor,
    filled: Tensor,
    masks: Iterable[Tensor],
    target: int,
) -> Tensor:
    """The target's logit of one image behind each mask.

    Args:
        classifier: in eval mode.
        image: ``(3, h, w)`` in [0, 1].
        filled: ``(3, h, w)``, what is seen where a mask is 0.
        masks: ``(k, h, w)`` in [0, 1] each; as many as are to be computed at once.
        target: class.

    Returns:
        ``(all k,)`` float64.
    """
    said = []
    with undisturbed(image), outside_explanations(), torch.no_grad():
        for some in masks:
            # Mixed by lerp, which is exact at 0 and 1 and never leaves [0, 1].
            mixed = torch.lerp(filled[None], image[None], some[:, None].to(image))
            said.append(classifier(mixed)[:, target].double())
    return torch.cat(said)
