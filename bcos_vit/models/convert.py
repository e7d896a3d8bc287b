"""Turning conventional networks from timm into B-cos networks ("B-cosification").

A network is rebuilt from our layers in their conventional form, at exponent 1 and with its biases:
the same function of the same image. Then ``b`` goes from 1 to 2 and the biases to 0 while the
network is fine-tuned (:class:`Homotopy`), and what is left is dynamic-linear without constants.
Explanations are exact all the way: what biases, positions and tokens carry is told apart.

Three things are exact rather than approximated: the normalisation of the input is folded into the
first layer (with six channels ``x + (1 - x) = 1``, so a mean ``m`` is ``m x + m (1 - x)``, linear
in the input), a batch norm's mean into its bias, and pooling is moved behind a linear classifier.

Arya et al., "B-cosification: Transforming Deep Neural Networks to be Inherently Interpretable",
NeurIPS 2024 (arXiv:2411.00715). Unlike there, the exponent and the biases change gradually, and
cosines stay cosines: dividing by the weights' length keeps them below 1 whatever that length is.
"""

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import DropPath, GluMlp, LayerScale, SwiGLU
from timm.models import ConvNeXt, ResNet, SwinTransformer, VisionTransformer
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from bcos_vit.errors import ConversionError
from bcos_vit.layers.scale import check_exponent
from bcos_vit.models.base import BcosModel, fit
from bcos_vit.models.convnext import BcosConvNeXt
from bcos_vit.models.resnet import BcosResNet
from bcos_vit.models.swin import BcosSwinTransformer
from bcos_vit.models.vit import BcosVisionTransformer
from bcos_vit.transforms import add_complement


def bcosify(model: nn.Module, *, in_chans: int = 6) -> BcosModel:
    """Rebuild a conventional timm model from layers that can become B-cos; same function.

    Args:
        model: a ViT (class token, registers, layer scale, SwiGLU as in DINOv2-like encoders),
            ResNet, ConvNeXt or Swin transformer; left as it is.
            Stochastic depth is taken over, other dropout is not; all parameters are trainable.
        in_chans: 6 for images in [0, 1] with their complement, as by
            :func:`bcos_vit.transforms.to_bcos`, the normalisation of the model's data config being
            folded into the first layer; 3 for the normalised images that the model takes now.

    Returns:
        A model of ours in eval mode at exponent 1 with all biases; on the same device, of the same
        type. :class:`Homotopy` takes it to its B-cos form.

    Raises:
        ConversionError: a kind of model, or a part of it, that has no form here; named. Also where
            outputs on a test image differ by more than rounding.
        ValueError: ``in_chans`` is neither 3 nor 6.
    """
    if in_chans not in (3, 6):
        raise ValueError(f"in_chans must be 3 or 6, got {in_chans}")
    family = next((f for f in _FAMILIES if type(model) is f.source), None)
    if family is None:
        known = ", ".join(f.source.__name__ for f in _FAMILIES)
        raise ConversionError(f"a {type(model).__name__} cannot be converted; only timm's {known}")
    like = next(model.parameters())
    # Foldings are rounded once, at the end.
    source: Any = copy.deepcopy(model).eval().double()
    try:
        arguments = family.arguments(source)
    except (AttributeError, IndexError, TypeError) as error:
        raise ConversionError(
            f"this {type(model).__name__} is built unlike others: {error}"
        ) from error
    first = source.get_submodule(family.first_conv)
    if not isinstance(first, nn.Conv2d) or first.in_channels != 3:
        raise ConversionError(f"first layer {family.first_conv!r} is not a convolution of RGB")
    try:
        converted = family.target(
            in_chans=in_chans,
            num_classes=source.num_classes,
            b=1.0,
            conventional=True,
            drop_path_rate=max(
                (float(m.drop_prob or 0) for m in source.modules() if isinstance(m, DropPath)),
                default=0.0,
            ),
            **arguments,
        )
    except ValueError as error:
        raise ConversionError(f"this {type(model).__name__} has no form here: {error}") from error
    config = dict(getattr(source, "pretrained_cfg", None) or {})
    if not {"mean", "std"} <= config.keys():
        raise ConversionError(
            "the model does not say how its images are normalised; set"
            ' model.pretrained_cfg = {"mean": (r, g, b), "std": (r, g, b)}'
        )
    mean, std = (torch.tensor(config[key], dtype=torch.float64) for key in ("mean", "std"))
    tensors = _tensors(source, family)
    if in_chans == 6:
        key = f"{family.first_conv}.weight"
        tensors[key] = _fold_normalisation(tensors[key], mean, std)
        config |= {"mean": (0.0,) * 6, "std": (1.0,) * 6}
    converted.pretrained_cfg = {
        "num_classes": source.num_classes,
        "mean": config["mean"],
        "std": config["std"],
        "encoding": converted.encoding,
        "input_size": (in_chans, *_input_size(source)),
        "first_conv": family.first_conv,
        "classifier": converted.classifier_name,
    }
    converted.to(like.device, torch.float64)
    _load(converted, tensors)
    _copy_norm_settings(source, converted, family)
    converted.eval()
    _check_same_function(source, converted, mean, std)
    return converted.to(like.dtype)


@dataclass(frozen=True, slots=True)
class Homotopy:
    """The way of a converted network to its B-cos form, linear in training steps.

    Args:
        steps: over how many steps; 0 takes the whole way at once.
        b: exponent at its end.

    Raises:
        ValueError: a negative number of steps, an exponent below 1.
    """

    steps: int
    b: float = 2.0

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 0:
            raise ValueError(f"steps must be a whole number of at least 0, got {self.steps}")
        check_exponent(self.b)

    def progress(self, step: int) -> float:
        """Share of the way done before training step ``step`` (the first is 0), in [0, 1]."""
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}")
        return min(1.0, step / self.steps) if self.steps else 1.0

    def apply(self, model: BcosModel, step: int) -> bool:
        """Set a network to where it should be at ``step``; whether that is the end of the way.

        An average of weights is a network of its own: apply it there, too.
        """
        done = self.progress(step)
        model.set_homotopy(1.0 + done * (self.b - 1.0), 1.0 - done)
        return done == 1.0


# --- families -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Family:
    """How models of one timm class map to one of ours.

    Args:
        source, target: the classes.
        first_conv: name of the first layer, in both.
        arguments: what ``target`` is made with to be like a given model.
        renames: patterns of names there, and names here.
    """

    source: type[nn.Module]
    target: Callable[..., BcosModel]
    first_conv: str
    arguments: Callable[[Any], dict[str, Any]]
    renames: dict[str, str]

    def rename(self, name: str) -> str:
        """A tensor's name here."""
        for pattern, replacement in self.renames.items():
            name = re.sub(pattern, replacement, name)
        return name


def _vit_arguments(model: Any) -> dict[str, Any]:
    block = model.blocks[0]
    hidden = sum(
        layer.out_features for name, layer in block.mlp.named_children() if name.startswith("fc1")
    )
    has_position = model.pos_embed is not None
    return {
        "img_size": model.patch_embed.img_size or 224,
        "patch_size": model.patch_embed.patch_size[0],
        "global_pool": model.global_pool,
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": block.attn.num_heads,
        "mlp_ratio": _ratio(hidden, model.embed_dim),
        "pos_embed": "learned" if has_position else "none",
        "class_token": model.has_class_token,
        "reg_tokens": model.num_reg_tokens,
        "mlp_layer": "swiglu" if isinstance(block.mlp, GluMlp | SwiGLU) else "mlp",
        "pre_norm": not isinstance(model.norm_pre, nn.Identity),
        "fc_norm": not isinstance(model.fc_norm, nn.Identity),
        "qkv_bias": block.attn.qkv.bias is not None,
        "proj_bias": block.attn.proj.bias is not None,
        "init_values": 1.0 if isinstance(block.ls1, LayerScale) else None,
    }


def _ratio(hidden: int, dim: int) -> float:
    """``hidden / dim``, a hair more: cut to a whole number, ``dim`` times it is ``hidden``."""
    return (hidden + 1e-6) / dim


def _resnet_arguments(model: Any) -> dict[str, Any]:
    block = model.layer1[0]
    bottleneck = isinstance(block, Bottleneck)
    return {
        "layers": tuple(len(model.get_submodule(f"layer{i}")) for i in (1, 2, 3, 4)),
        "block": "bottleneck" if bottleneck else "basic",
        "groups": block.conv2.groups,
        "base_width": block.conv2.out_channels // block.conv2.groups if bottleneck else 64,
    }


def _convnext_arguments(model: Any) -> dict[str, Any]:
    blocks = [stage.blocks for stage in model.stages]
    return {
        "depths": tuple(len(each) for each in blocks),
        "dims": tuple(each[0].conv_dw.out_channels for each in blocks),
        "ls_init_value": None if blocks[0][0].gamma is None else 1.0,
        "head_norm_first": not isinstance(model.norm_pre, nn.Identity),
    }


def _swin_arguments(model: Any) -> dict[str, Any]:
    first = [layer.blocks[0] for layer in model.layers]
    return {
        "img_size": tuple(model.patch_embed.img_size),
        "patch_size": model.patch_embed.patch_size[0],
        "embed_dim": model.embed_dim,
        "depths": tuple(len(layer.blocks) for layer in model.layers),
        "num_heads": tuple(block.attn.num_heads for block in first),
        "window_size": tuple(tuple(block.attn.window_size) for block in first),
        "mlp_ratio": _ratio(first[0].mlp.fc1.out_features, model.embed_dim),
        "qkv_bias": first[0].attn.qkv.bias is not None,
    }


_FAMILIES = (
    _Family(
        VisionTransformer,
        BcosVisionTransformer,
        "patch_embed.proj",
        _vit_arguments,
        {r"^fc_norm\.": "norm.", r"^pos_embed$": "pos_embed.code"},
    ),
    _Family(ResNet, BcosResNet, "conv1", _resnet_arguments, {}),
    _Family(
        ConvNeXt,
        BcosConvNeXt,
        "stem.0",
        _convnext_arguments,
        {r"^head\.norm\.|^norm_pre\.": "norm.", r"^head\.fc\.": "head."},
    ),
    _Family(
        SwinTransformer,
        BcosSwinTransformer,
        "patch_embed.proj",
        _swin_arguments,
        {r"^head\.fc\.": "head."},
    ),
)


# --- tensors ------------------------------------------------------------------------------------


def _tensors(source: nn.Module, family: _Family) -> dict[str, Tensor]:
    """The source's tensors under our names, in the source's shapes."""
    stored = source.state_dict()
    _fold_batch_norms(source, stored)
    _gather_prefix_tokens(source, stored)
    _join_gates(stored)
    return {family.rename(key): value for key, value in stored.items()}


def _fold_batch_norms(source: nn.Module, stored: dict[str, Tensor]) -> None:
    """Put the mean that a batch norm subtracts into its bias: ours divide only."""
    for name, norm in source.named_modules():
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        if norm.weight is None or norm.running_var is None:
            raise ConversionError(f"batch norm {name!r} has no weight, or no running statistics")
        mean = stored.pop(f"{name}.running_mean")
        scale = stored[f"{name}.weight"] * (stored[f"{name}.running_var"] + norm.eps).rsqrt()
        stored[f"{name}.bias"] = stored[f"{name}.bias"] - mean * scale


def _gather_prefix_tokens(source: Any, stored: dict[str, Tensor]) -> None:
    """Class token and registers as one tensor, with the position code they are given."""
    tokens = [stored.pop(key) for key in ("cls_token", "reg_token") if key in stored]
    if not tokens:
        return
    prefix = torch.cat(tokens, dim=1)
    position = stored.get("pos_embed")
    if position is not None and not source.no_embed_class:
        count = prefix.shape[1]
        prefix = prefix + position[:, :count]
        stored["pos_embed"] = position[:, count:]
    stored["prefix.code"] = prefix


def _join_gates(stored: dict[str, Tensor]) -> None:
    """Gate and value of a SwiGLU in two layers as one layer, the gate first."""
    for key in [key for key in stored if ".fc1_g." in key]:
        value = stored.pop(key.replace(".fc1_g.", ".fc1_x."))
        stored[key.replace(".fc1_g.", ".fc1.")] = torch.cat([stored.pop(key), value])


def _fold_normalisation(weight: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Filters for ``[x, 1 - x]`` from filters for ``(x - mean) / std``, ``(out, 3, h, w)``.

    ``x - m = (1 - m) x - m (1 - x)``; where both are zero, as padding is, so is the result.
    """
    weight = weight / std.to(weight)[:, None, None]
    m = mean.to(weight)[:, None, None]
    return torch.cat([weight * (1 - m), -weight * m], dim=1)


def _load(converted: BcosModel, tensors: dict[str, Tensor]) -> None:
    """Give the network its tensors, reshaped where a convolution became a linear layer."""
    wanted = converted.state_dict()
    fitted = {
        key: _shaped(tensor, wanted[key].shape) if key in wanted else tensor
        for key, tensor in tensors.items()
    }
    fit(converted, fitted, "this variant cannot be converted: it", ConversionError)


def _shaped(tensor: Tensor, shape: torch.Size) -> Tensor:
    """A weight in the shape it has here: a patch's linear layer reads row, column, channel."""
    if tensor.ndim == 4 and len(shape) == 2:
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(shape) if tensor.numel() == shape.numel() else tensor


def _copy_norm_settings(source: nn.Module, converted: nn.Module, family: _Family) -> None:
    """Give every norm the epsilon, and the momentum, of the one it stands for."""
    ours: dict[str, Any] = dict(converted.named_modules())
    for name, module in source.named_modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            norm = ours[family.rename(f"{name}.weight").removesuffix(".weight")]
            norm.eps = module.eps
            if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
                norm.momentum = module.momentum


def _input_size(source: Any) -> tuple[int, int]:
    """Height and width of the images a model is for."""
    fixed = getattr(getattr(source, "patch_embed", None), "img_size", None)
    config = getattr(source, "pretrained_cfg", None) or {}
    height, width = fixed or config.get("input_size", (3, 224, 224))[1:]
    return height, width


def _check_same_function(source: Any, converted: BcosModel, mean: Tensor, std: Tensor) -> None:
    """Compare features and outputs of two float64 networks on one image of noise.

    Every branch scale is 1 meanwhile: a branch that is scaled to next to nothing would hide what it
    computes.

    Raises:
        ConversionError: they differ by more than 1e-9 of the largest value, some thousand roundings
            of each of some hundred layers.
    """
    device = next(source.parameters()).device
    noise = torch.rand((1, 3, *_input_size(source)), generator=torch.Generator().manual_seed(0))
    image = noise.double().to(device)
    normalised = (image - mean.to(image)[:, None, None]) / std.to(image)[:, None, None]
    own = add_complement(image) if converted.in_chans == 6 else normalised
    with _branches_at_full_scale(source), _branches_at_full_scale(converted), torch.no_grad():
        for part in ("forward_features", "forward"):
            expected, found = getattr(source, part)(normalised), getattr(converted, part)(own)
            largest = expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
            error = (found - expected).abs().max() / largest
            if not error < 1e-9:
                raise ConversionError(
                    f"the converted {type(source).__name__} computes something else (outputs"
                    f" differ by {error:.1e} of the largest): it has a part that is not known here"
                )


@contextmanager
def _branches_at_full_scale(model: nn.Module) -> Iterator[None]:
    """Set every layer scale to 1 for a while."""
    scales = [p for name, p in model.named_parameters() if name.endswith("gamma")]
    kept = [scale.detach().clone() for scale in scales]
    with torch.no_grad():
        for scale in scales:
            scale.fill_(1)
        yield
        for scale, value in zip(scales, kept, strict=True):
            scale.copy_(value)
