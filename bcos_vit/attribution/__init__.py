"""Maps of any method for any network, before anything scales them: what B-cos is compared with."""

from importlib import import_module
from pkgutil import iter_modules

from bcos_vit.attribution.attribution import Attribution
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.method import Method
from bcos_vit.attribution.registry import METHODS, make_method, register, settings_of

__all__ = [
    "METHODS",
    "Attribution",
    "Classifier",
    "Method",
    "make_method",
    "register",
    "settings_of",
]

# Each module of this folder registers the methods that it holds.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
