"""Losses of class logits: binary cross-entropy, which suits B-cos models, and cross-entropy.

Labels are class indices ``(batch,)``, or targets ``(batch, classes)`` in [0, 1], as of mixed
images. All are sums over classes and means over the batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Weighted(nn.Module):
    """Class weights, which may be found out later.

    They are not stored with a model's weights: training sets them.
    """

    class_weights: Tensor | None

    def __init__(self, label_smoothing: float, class_weights: Tensor | None) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", None, persistent=False)
        if class_weights is not None:
            self.weigh(class_weights)

    def weigh(self, class_weights: Tensor) -> None:
        """Set the weight of every class.

        Raises:
            ValueError: weights that are not positive numbers.
        """
        if class_weights.ndim != 1 or not (class_weights.isfinite() & (class_weights > 0)).all():
            raise ValueError(f"class_weights must be positive, got {class_weights.tolist()}")
        self.class_weights = class_weights.float()


class OneHotBCE(_Weighted):
    """Binary cross-entropy of each logit against the one-hot label.

    It rewards evidence for the true class by itself, which keeps maps class-specific, where
    cross-entropy only rewards differences. Off-label targets are at least ``off_target``: the
    reference uses 1 / classes, which is no floor but half the evidence when there are two classes,
    hence 0 here. It also takes the mean over classes: gradients here are as many times as large,
    which Adam does not see, and adaptive clipping does.

    Args:
        off_target: lowest target of a class, in [0, 0.5).
        label_smoothing: share s of each label that is spread over all C classes, as for
            cross-entropy: targets are 1 - s + s / C and s / C.
        class_weights: ``(classes,)``; an image counts as much as its class, a mixed one as its
            classes by their shares.
    """

    def __init__(
        self,
        off_target: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(label_smoothing, class_weights)
        if not 0 <= off_target < 0.5:
            raise ValueError(f"off_target must be in [0, 0.5), got {off_target}")
        self.off_target = off_target

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over images of the sum over classes.

        Args:
            logits: ``(batch, classes)``.
            labels: ``(batch,)`` class indices, or ``(batch, classes)`` shares.
        """
        shares = as_shares(labels, logits)
        spread = self.label_smoothing
        target = shares * (1 - spread) + spread / logits.shape[1] if spread else shares
        losses = F.binary_cross_entropy_with_logits(
            logits, target.clamp_min(self.off_target), reduction="none"
        ).sum(1)
        if self.class_weights is not None:
            losses = losses * (shares @ self.class_weights.to(shares.dtype))
        return losses.mean()


class ClassCrossEntropy(_Weighted):
    """Cross-entropy of the softmax.

    With class weights it is still a mean over images: torch's divides by the weights of a batch,
    so that an image would count differently in every batch.

    Args:
        label_smoothing: share of each label that is spread over all classes.
        class_weights: ``(classes,)``, as in :class:`OneHotBCE`.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> None:
        super().__init__(label_smoothing, class_weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over images.

        Args:
            logits: ``(batch, classes)``.
            labels: ``(batch,)`` class indices, or ``(batch, classes)`` shares.
        """
        given = labels if labels.ndim == 1 else labels.to(logits.dtype)
        losses = F.cross_entropy(
            logits, given, reduction="none", label_smoothing=self.label_smoothing
        )
        if self.class_weights is not None:
            shares = as_shares(labels, logits)
            losses = losses * (shares @ self.class_weights.to(shares.dtype))
        return losses.mean()


class LabelBCE(_Weighted):
    """Binary cross-entropy of labels of which any number may be true.

    Args:
        label_smoothing: share s of each answer that is left open: targets are 1 - s / 2 and s / 2,
            for every label is a question of its own.
        class_weights: ``(labels,)``; how much a label that is there counts against one that is not.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> None:
        super().__init__(label_smoothing, class_weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over images of the sum over labels.

        Args:
            logits: ``(batch, labels)``.
            labels: the same, 1 for labels that are there; shares for mixed images.
        """
        spread = self.label_smoothing
        weights = self.class_weights
        losses = F.binary_cross_entropy_with_logits(
            logits,
            labels.to(logits.dtype) * (1 - spread) + spread / 2,
            pos_weight=None if weights is None else weights.to(logits.dtype),
            reduction="none",
        )
        return losses.sum(1).mean()


def as_shares(labels: Tensor, logits: Tensor) -> Tensor:
    """One-hot rows of the logits' type for class indices; shares as they are."""
    if labels.ndim == 1:
        labels = F.one_hot(labels, logits.shape[1])
    return labels.to(logits.dtype)


def balanced_weights(shares: Tensor) -> Tensor:
    """Class weights under which every class counts the same: 1 / (classes x share).

    Args:
        shares: of training images that each class has; they sum to 1, so that the weights' mean
            over training images is 1.

    Raises:
        ValueError: a class without a share.
    """
    if not (shares > 0).all():
        raise ValueError(f"every class needs training images, got shares {shares.tolist()}")
    return torch.reciprocal(len(shares) * shares)
