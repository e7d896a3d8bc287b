"""What a model must be for its gradient, taken in explanation mode, to be W(x)."""

from timm.layers import DropPath
from torch import nn

from bcos_vit.errors import NotExplainableError

# Linear, or linear once a selection that is constant almost everywhere is made.
_PIECEWISE_LINEAR = (
    nn.Identity,
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.Flatten,
    nn.Unflatten,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.MaxPool2d,
    nn.ReLU,
    nn.ZeroPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
    nn.Upsample,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
)
_BIASED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
_RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, DropPath)


def check_explainable(model: nn.Module) -> None:
    """Refuse models whose gradient in explanation mode would not be their effective matrix.

    Every module must say so itself (a class attribute ``dynamic_linear = True``: "my output is a
    matrix times my input, and what in that matrix depends on the input is marked by ``held``") or
    be known to be linear. The check runs at each call, so layers swapped in later are seen.

    Raises:
        NotExplainableError: naming the first layer at fault and what to do.
    """
    for name, module in model.named_modules():
        where = f"layer {name!r}" if name else "the model itself"
        kind = type(module).__name__
        if isinstance(module, _RANDOM):
            share = getattr(module, "p", None) or getattr(module, "drop_prob", None)
            if module.training and share:
                raise NotExplainableError(
                    f"{where} ({kind}) is in training mode and random; call model.eval() first"
                )
        elif isinstance(module, _BIASED):
            if module.bias is not None:
                raise NotExplainableError(
                    f"{where} ({kind}) adds a bias that no pixel owns;"
                    " build it with bias=False, or use its B-cos form"
                )
        elif not (
            getattr(module, "dynamic_linear", False) or isinstance(module, _PIECEWISE_LINEAR)
        ):
            raise NotExplainableError(
                f"{where} ({kind}) is not known to be dynamic-linear: its scale cannot be held"
                " constant. Use a B-cos layer, or mark factors that depend on the input with"
                " bcos_vit.layers.held and set dynamic_linear = True on its class"
            )
