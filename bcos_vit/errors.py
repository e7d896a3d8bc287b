"""The errors of ``bcos_vit``.

::

    BcosError
    +-- UnknownModelError     (also LookupError)  no model of that name; suggests the nearest
    +-- WeightsError          weights that do not fit: shape, class count, hash
    +-- ConversionError       a conventional model that has no B-cos form here; names the part
    +-- NotExplainableError   a layer whose dynamic scale cannot be held constant; names the layer
    +-- UnsupportedMethodError  a method that is wrong or undefined on a model; says why

Arguments that are wrong by themselves raise ``ValueError`` or ``TypeError`` where they are given.
"""


class BcosError(Exception):
    """Root of everything ``bcos_vit`` raises on purpose."""


class UnknownModelError(BcosError, LookupError):
    """No model is registered under that name."""


class WeightsError(BcosError):
    """Weights do not fit the model they are loaded into."""


class ConversionError(BcosError):
    """A conventional model has no B-cos form here; the message names the part."""


class NotExplainableError(BcosError):
    """The model, as it is, is not one matrix W(x) per input; the message names the layer."""


class UnsupportedMethodError(BcosError):
    """An attribution method is wrong or undefined on a model; the message says why."""
