"""What every attribution method is."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.classifier import Classifier


@runtime_checkable
class Method(Protocol):
    """From images and classes to maps; its settings are its own fields.

    Attributes:
        name: as in the registry.
        is_signed: whether negative values speak against the class; else none are negative by
            construction and they say nothing about what speaks against it.
        unit: of its maps.
    """

    name: str
    is_signed: bool
    unit: Unit

    def check(self, classifier: Classifier) -> None:
        """Refuse a classifier on which the method is wrong or undefined, before anything is run.

        Raises:
            UnsupportedMethodError: naming method, part of the network and reason.
        """

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        """Maps of images ``(n, 3, h, w)`` in [0, 1] for classes ``(n,)``.

        The classifier, its hooks, its mode, its parameters' gradients and the caller's random
        state are left as they were, under exceptions too. The same images, one by one or in a
        batch, have the same maps.

        Raises:
            UnsupportedMethodError: as :meth:`check`.
            ValueError: images or targets of the wrong shape or range, or with NaN.
        """
