"""The exact maps of B-cos networks, behind the interface of all others."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.checks import (
    check_batch,
    check_bcos,
    check_eval,
    check_logits,
    undisturbed,
)
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.passes import encoded, logits_of
from bcos_vit.attribution.registry import register
from bcos_vit.errors import UnsupportedMethodError
from bcos_vit.explain.contribution import explain
from bcos_vit.explain.explanation import Explanation


@register
@dataclass(frozen=True)
class Bcos:
    """``W(x) x``: what each pixel contributes to the logit, by the network's own linear map.

    Source:
        Boehle et al., CVPR 2022 (arXiv:2205.10268), section 3.
    """

    name: ClassVar[str] = "bcos"
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "logits"

    def check(self, classifier: Classifier) -> None:
        check_eval(self.name, classifier)
        check_bcos(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        self.check(classifier)
        check_batch(images, target)
        with undisturbed(images):
            explanation = explain(classifier.model, encoded(classifier, images), target)
        return Attribution(
            maps=explanation.contributions.float(),
            target=explanation.target,
            logits=explanation.logits,
            unit=self.unit,
            constants=_constants(explanation),
            forward_passes=1,
            backward_passes=1,
        )


@register
@dataclass(frozen=True)
class BcosContrastive:
    """What each pixel contributes to the logit beyond what it contributes to the mean of the rest.

    The difference of the exact map of the class and the mean of the exact maps of all others, in
    one backward pass. Evidence that all classes share, such as "here is tissue", cancels out. The
    reference is the mean of the others' logits, so maps and constants sum to the logit minus it.
    """

    name: ClassVar[str] = "bcos_contrastive"
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "logits"

    def check(self, classifier: Classifier) -> None:
        check_eval(self.name, classifier)
        check_bcos(self.name, classifier)
        classes = getattr(classifier.model, "num_classes", None)
        if classes == 1:
            raise UnsupportedMethodError(f"{self.name}: the network has no other class to compare")

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        self.check(classifier)
        check_batch(images, target)
        with undisturbed(images):
            x = encoded(classifier, images)
            logits = logits_of(classifier.model, x)
            check_logits(logits, target)
            explanation = explain(_Contrast(classifier.model), x, target)
        others = logits.sum(1) - logits.gather(1, explanation.target[:, None])[:, 0]
        return Attribution(
            maps=explanation.contributions.float(),
            target=explanation.target,
            logits=logits,
            unit=self.unit,
            constants=_constants(explanation),
            reference=others / (logits.shape[1] - 1),
            forward_passes=2,
            backward_passes=1,
        )


class _Contrast(nn.Module):
    """A network whose logits are those of another, each minus the mean of the rest.

    Args:
        model: the other.
    """

    dynamic_linear = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        classes = logits.shape[1]
        if classes < 2:
            raise UnsupportedMethodError("bcos_contrastive: there is no other class to compare")
        return logits - (logits.sum(1, keepdim=True) - logits) / (classes - 1)


def _constants(explanation: Explanation) -> dict[str, Tensor]:
    """All that no pixel owns, by name."""
    return {"bias": explanation.bias} | explanation.constants
