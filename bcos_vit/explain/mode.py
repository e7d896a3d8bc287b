"""What a model must be for its gradient, taken in explanation mode, to be W(x)."""

from typing import Any

from timm.layers import DropPath
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from bcos_vit.errors import NotExplainableError
from bcos_vit.layers import BcosBatchNorm2d

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
_LINEAR_WITHOUT_BIAS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
_RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, DropPath)
_MIXES_IMAGES = (BcosBatchNorm2d, _BatchNorm)
# Shells around a model, which run it as it is ...
_AVERAGES = (AveragedModel, ModelEmaV3)
# ... or do more than that before and after.
_PARALLEL = (DataParallel, DistributedDataParallel)


def check_explainable(model: nn.Module) -> None:
    """Refuse models whose gradient in explanation mode would not be their effective matrix.

    Every module must say so itself (a class attribute ``dynamic_linear = True``: "my output is a
    matrix times my input; what in that matrix depends on the input is marked by ``held``") or be
    known to be linear. Saying so holds for the ``forward`` it stands beside: a subclass with
    another ``forward`` says it again. The check runs at each call, so layers swapped in later are
    seen.

    Raises:
        NotExplainableError: naming the first layer at fault and what to do.
    """
    model = _written(model)
    for name, module in model.named_modules():
        where = f"layer {name!r}" if name else "the model itself"
        kind = type(module).__name__
        if _is_a(module, _RANDOM):
            share = getattr(module, "p", None) or getattr(module, "drop_prob", None)
            if module.training and share:
                raise NotExplainableError(
                    f"{where} ({kind}) is in training mode and random; call model.eval() first"
                )
        elif isinstance(module, _MIXES_IMAGES) and module.training:
            raise NotExplainableError(
                f"{where} ({kind}) is in training mode, where one image's explanation depends on"
                " the others in the batch; call model.eval() first"
            )
        elif _is_a(module, _LINEAR_WITHOUT_BIAS):
            if module.bias is not None:
                raise NotExplainableError(
                    f"{where} ({kind}) adds a bias that no pixel owns;"
                    " build it with bias=False, or use its B-cos form"
                )
        elif isinstance(module, _PARALLEL):
            raise NotExplainableError(
                f"{where} ({kind}) runs a model in several places; explain the model in it,"
                " its attribute 'module'"
            )
        elif not (_declares(module) or _is_a(module, _PIECEWISE_LINEAR + _AVERAGES)):
            raise NotExplainableError(
                f"{where} ({kind}) is not known to be dynamic-linear: its scale cannot be held"
                " constant. Use a B-cos layer, or mark factors that depend on the input with"
                " bcos_vit.layers.held and set dynamic_linear = True on its class"
            )


def unwrapped(model: nn.Module) -> nn.Module:
    """The network in compiled and averaged shells, which run it as it is."""
    shell: Any = model
    while (inner := _written(shell)) is not shell or isinstance(shell, _AVERAGES):
        shell = shell.module if inner is shell else inner
    network: nn.Module = shell
    return network


def _written(model: nn.Module) -> nn.Module:
    """A compiled model is a shell around the one that was written."""
    written: nn.Module = getattr(model, "_orig_mod", model)
    return written


def _is_a(module: nn.Module, known: tuple[type[nn.Module], ...]) -> bool:
    """Whether it is of a known kind and computes what that kind computes."""
    return any(isinstance(module, k) and type(module).forward is k.forward for k in known)


def _declares(module: nn.Module) -> bool:
    """Whether the class that wrote this module's ``forward``, or a subclass, vouches for it."""
    for kind in type(module).__mro__:
        if "dynamic_linear" in vars(kind):
            return bool(vars(kind)["dynamic_linear"])
        if "forward" in vars(kind):
            return False
    return False
