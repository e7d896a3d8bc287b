"""Attribution: what a method says about pixels, as it says it, with what it cost."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Unit = Literal["logits", "none"]


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """Maps of a batch of images by one method, before any scaling.

    Args:
        maps: ``(n, h, w)`` float32, a value per pixel of the image.
        target: ``(n,)`` class explained.
        logits: ``(n, classes)`` the classifier's output on the images.
        unit: ``"logits"`` where the method means its values to add up to
            ``logit - reference - sum of constants``; ``"none"`` where only their order counts.
        constants: parts of the logit that no pixel owns, by name, ``(n,)`` each.
        reference: ``(n,)`` the logit of the baseline, for methods that explain the difference to
            one; zero when omitted.
        standard_error: ``(n, h, w)`` of the maps, where they are estimated from samples.
        fidelity: ``(n,)`` weighted R^2 of the surrogate that the maps are of, where there is one;
            NaN where the network says the same whatever it sees, or there is one superpixel.
        forward_passes: per image, by the method as it ran.
        backward_passes: likewise.
    """

    maps: Tensor
    target: Tensor
    logits: Tensor
    unit: Unit = "none"
    constants: dict[str, Tensor] = field(default_factory=dict)
    reference: Tensor | None = None
    standard_error: Tensor | None = None
    fidelity: Tensor | None = None
    forward_passes: float = 0
    backward_passes: float = 0

    @property
    def logit(self) -> Tensor:
        """The explained logit, ``(n,)`` float64."""
        return self.logits.double().gather(1, self.target[:, None])[:, 0]

    @property
    def completeness_gap(self) -> Tensor | None:
        """``|reference + constants + sum of maps - logit|``, ``(n,)`` float64; None without a unit.

        Of methods that explain another quantity than a logit (a difference of logits) it is what
        that quantity leaves.
        """
        if self.unit == "none":
            return None
        total = self.maps.double().sum((1, 2))
        for term in self.constants.values():
            total = total + term.double()
        if self.reference is not None:
            total = total + self.reference.double()
        return (total - self.logit).abs()
