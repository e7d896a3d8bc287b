"""What metrics ask of a network: logits of images, a few at a time."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

Image = NDArray[np.float32]
"""RGB in [0, 1], ``(h, w, 3)``."""
Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""From images ``(k, h, w, 3)`` in [0, 1] to logits ``(k, classes)``."""
Explain = Callable[[NDArray[np.float32]], NDArray[np.floating]]
"""From images ``(k, h, w, 3)`` to their maps ``(k, h, w)``, of the class that is explained."""
Quantity = Literal["logit", "probability"]
Squash = Literal["softmax", "sigmoid"]
"""How logits become probabilities: of one class of several, or of each class by itself."""

BATCH = 32
"""Images that a network is given at once."""


def ask(score: Score, images: Iterable[Image], batch: int = BATCH) -> NDArray[np.float64]:
    """Logits of images, ``batch`` of which exist at a time.

    Args:
        score: the network.
        images: ``(h, w, 3)`` each; may be made while they are asked for.
        batch: images per call.

    Returns:
        ``(k, classes)``.

    Raises:
        ValueError: what the network returns is no finite number per image and class.
    """
    return np.concatenate([_logits(score, some) for some in stacks(images, batch)])


def stacks(images: Iterable[Image], batch: int) -> Iterator[NDArray[np.float32]]:
    """Images as arrays ``(at most batch, h, w, 3)``.

    Raises:
        ValueError: a batch of less than one image.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    rest = iter(images)
    while some := list(islice(rest, batch)):
        yield np.stack(some).astype(np.float32, copy=False)


def _logits(score: Score, images: NDArray[np.float32]) -> NDArray[np.float64]:
    logits = np.asarray(score(images), dtype=np.float64)
    if logits.ndim != 2 or len(logits) != len(images) or not np.isfinite(logits).all():
        raise ValueError(
            f"score must return finite logits ({len(images)}, classes) for {len(images)} images,"
            f" got shape {logits.shape}, {np.isfinite(logits).mean():.0%} of them finite"
        )
    return logits


def probability(
    logits: NDArray[np.float64], target: int, squash: Squash = "softmax"
) -> NDArray[np.float64]:
    """Probability of a class from logits ``(..., classes)``; of one class alone, its sigmoid."""
    if squash not in ("softmax", "sigmoid"):
        raise ValueError(f"squash must be softmax or sigmoid, got {squash!r}")
    if squash == "sigmoid" or logits.shape[-1] == 1:
        found: NDArray[np.float64] = expit(logits[..., target])
        return found
    return np.exp(log_softmax(logits, axis=-1)[..., target])


def said(
    logits: NDArray[np.float64], target: int, quantity: Quantity, squash: Squash = "softmax"
) -> NDArray[np.float64]:
    """A class's logit or probability from logits ``(..., classes)``.

    Raises:
        ValueError: a class that the network has not, or another quantity.
    """
    check_target(logits, target)
    if quantity == "logit":
        return logits[..., target]
    if quantity == "probability":
        return probability(logits, target, squash)
    raise ValueError(f"quantity must be logit or probability, got {quantity!r}")


def check(image: NDArray) -> None:
    """Refuse what is no image.

    Raises:
        ValueError: not RGB in [0, 1].
    """
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image must be (h, w, 3), got {image.shape}")
    if image.dtype.kind != "f" or not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(
            f"image must be RGB in [0, 1], got {image.dtype} from {image.min()} to {image.max()}"
        )


def check_map(image: NDArray, attribution: NDArray) -> None:
    """Refuse a map of another size.

    Raises:
        ValueError: a map that is not ``(h, w)`` as the image is, or not finite.
    """
    if attribution.shape != image.shape[:2]:
        raise ValueError(
            f"map must have a value per pixel of the image {image.shape[:2]}, got"
            f" {attribution.shape}"
        )
    if not np.isfinite(attribution).all():
        raise ValueError(
            f"map must be finite, got {(~np.isfinite(attribution)).sum()} values that are not"
        )


def check_target(logits: NDArray[np.float64], target: int) -> None:
    """Refuse a class that the network has not.

    Raises:
        ValueError: naming how many it has.
    """
    if not 0 <= target < logits.shape[-1]:
        raise ValueError(f"target must be one of {logits.shape[-1]} classes from 0, got {target}")
