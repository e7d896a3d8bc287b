"""Names for parts of a network while it runs: of layers for messages, of constants for ledgers."""

import sys
from typing import Any

from torch import Tensor, nn

from bcos_vit.attribution.classifier import Classifier
from bcos_vit.explain.mode import unwrapped

_TOKENS = ("cls_token", "reg_token", "register_token", "dist_token", "mask_token")
_POSITIONS = ("pos_embed", "pos_code", "position")


class Names:
    """What the modules and parameters of a classifier are called.

    Args:
        classifier: its model and its encoding.
    """

    def __init__(self, classifier: Classifier) -> None:
        parts = {"": unwrapped(classifier.model), "encoding": classifier.encode}
        self._modules = {
            id(module): name
            for prefix, part in parts.items()
            for name, module in part.named_modules(prefix=prefix)
        }
        self._parameters = {
            id(each): _kind(name)
            for part in parts.values()
            for named in (part.named_parameters(), part.named_buffers())
            for name, each in named
        }

    def is_parameter(self, value: Tensor) -> bool:
        """Whether it is a parameter or buffer itself."""
        return id(value) in self._parameters

    def owner(self, value: Any) -> str | None:
        """Of a parameter or buffer ``tokens``, ``position`` or ``biases``; else None."""
        return self._parameters.get(id(value))

    def running(self) -> nn.Module | None:
        """The innermost module whose forward is running, found where Python keeps it."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in self._modules:
                return owner
            frame = frame.f_back
        return None

    def layer(self, module: nn.Module) -> str:
        """A module of the classifier as messages name it."""
        name, kind = self._modules[id(module)], type(module).__name__
        return f"layer {name!r} ({kind})" if name else f"the {kind}"


def _kind(name: str) -> str:
    """Whose a parameter is by its name; all that is not told apart is a bias."""
    last = name.rsplit(".", 1)[-1]
    if any(each in last for each in _TOKENS):
        return "tokens"
    return "position" if any(each in last for each in _POSITIONS) else "biases"
