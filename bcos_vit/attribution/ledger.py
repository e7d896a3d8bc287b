"""The exact ledger of a conventional network: what pixels and constants bring to a logit."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor

from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.checks import check_batch
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.following import check_followable, take_apart
from bcos_vit.attribution.gates import Gates
from bcos_vit.attribution.registry import register
from bcos_vit.attribution.settings import one_of

Zero = Literal["black", "mean"]


@register
@dataclass(frozen=True)
class Ledger:
    """Pixels, position code, tokens and biases of a logit, with the network's gates held.

    The honest control to B-cos: any network of gates, norms and attention is one matrix ``W(x)``
    per image plus constants, and the gap of this ledger is rounding, too. What differs between
    networks is how much of a logit is in the pixels. For ReLU networks maps are those of Input x
    Gradient; with GELU, norms and attention they are not, since there the gradient also follows how
    the gates move.

    Where an encoding subtracts a mean, it decides what a pixel's nothing is: numbers are the same
    in sum, but on bright slides maps look different.

    Constants: ``position`` (codes added to tokens), ``tokens`` (class token, registers), ``biases``
    (of any layer, and shifts of norms), ``mean`` (what the encoding's normalisation subtracts).

    Args:
        zero: ``"black"``: a pixel owns what its own value brings, and what the encoding subtracts
            is the constant ``mean``; ``"mean"``: it owns all that the encoding makes of it.

    Source:
        Attention and deviations held: Ali et al., "XAI for Transformers: Better Explanations
        through Conservative Propagation", ICML 2022 (arXiv:2202.07304). One matrix for a whole
        conventional network is the idea of OMENN; position as a part of its own, of PA-LRP.
    """

    name: ClassVar[str] = "ledger"
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "logits"

    zero: Zero = "black"

    def __post_init__(self) -> None:
        one_of("zero", self.zero, get_args(Zero))

    def check(self, classifier: Classifier) -> None:
        check_followable(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        check_batch(images, target)
        self.check(classifier)
        gates = Gates(self.name, classifier, images)
        behind = self.zero == "mean"
        return take_apart(gates, classifier, images, target, behind_encoding=behind)
