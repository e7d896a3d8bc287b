"""Weights of the published B-cos v2 networks in our models.

The reference's layout is known from its checkpoints: convolutions and linear layers hold their
weight as ``linear.weight``, B-cos ViTs carry a prefix ``0.``, ConvNeXts count stem, stages and
down-sampling in one sequence. Neither logit bias nor temperature are stored there.
"""

import math
import pickle
import re
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from timm.models import get_pretrained_cfg
from torch import Tensor

from bcos_vit.errors import UnknownModelError, WeightsError
from bcos_vit.layers import Logits
from bcos_vit.models.base import BcosModel, fit
from bcos_vit.models.registry import create_model, nearest
from bcos_vit.models.weights import PUBLISHED

ENTRY_POINTS: dict[str, tuple[str, dict[str, Any]]] = {
    weights.entry: (weights.model, weights.model_args) for weights in PUBLISHED
}
"""The reference's entry points: our model, and what differs from its defaults."""

# What wrappers and training frameworks put in front of a model's own names.
_PREFIX = re.compile(r"^(?:(?:module|model|ema|_orig_mod|0)\.)*")

# By family, names there to names here, applied in order.
_RENAMES: dict[str, dict[str, str]] = {
    "resnet": {},
    "resnext": {},
    "densenet": {},
    "vgg": {
        r"^classifier\.0\.": "pre_logits.fc1.",
        r"^classifier\.1\.": "pre_logits.fc2.",
        r"^classifier\.2\.": "head.",
    },
    "convnext": {
        r"^features\.([01])\.": r"stem.\1.",
        **{rf"^features\.{2 + 2 * i}\.": f"stages.{i}.blocks." for i in range(4)},
        **{rf"^features\.{1 + 2 * i}\.": f"stages.{i}.downsample." for i in range(1, 4)},
        r"\.block\.0\.": ".conv_dw.",
        r"\.block\.1\.": ".norm.",
        r"\.block\.2\.": ".mlp.fc1.",
        r"\.block\.3\.": ".mlp.fc2.",
        r"\.layer_scale$": ".gamma",
        r"^classifier\.0\.": "norm.",
        r"^classifier\.1\.": "head.",
    },
    "vit": {
        r"^to_patch_embedding\.conv_stem\.": "patch_embed.convs.",
        r"^to_patch_embedding\.linear\.": "patch_embed.proj.",
        r"^transformer\.encoder_(\d+)\.": r"blocks.\1.",
        r"\.attn\.norm\.": ".norm1.",
        r"\.attn\.to_qkv\.": ".attn.qkv.",
        r"\.attn\.to_out\.": ".attn.proj.",
        r"\.ff\.net\.norm\.": ".norm2.",
        r"\.ff\.net\.linear([12])\.": r".mlp.fc\1.",
        r"^linear_head\.norm\.": "norm.",
        r"^linear_head\.linear\.": "head.",
    },
}


def from_bcos_v2(
    entry: str,
    state_dict: Mapping[str, Any] | str | Path,
    *,
    logit_bias: float | None = None,
    temperature: float = 1.0,
    prefix: str | None = None,
) -> BcosModel:
    """One of our models with the weights of a reference model; its outputs are the reference's.

    Args:
        entry: the reference's entry point, a key of :data:`ENTRY_POINTS`.
        state_dict: the reference model's, or a Lightning checkpoint that holds one, or the path of
            a file with either. Number of classes, channels and type are taken from it.
        logit_bias: of the network that was trained, which its state dict does not tell; the
            reference's default when omitted: ``logit(1 / classes)``, and 0 for the conventional
            (``standard_*``) networks. One that is given stays through ``reset_classifier``.
        temperature: likewise.
        prefix: of the weights' names, where the state dict holds more than one set.

    Returns:
        The model in eval mode, on the weights' device.

    Raises:
        UnknownModelError: no such entry point.
        WeightsError: the weights do not fit, or are not the only ones in the state dict.
    """
    tensors = convert_state_dict(entry, state_dict, prefix=prefix)
    name, arguments = ENTRY_POINTS[entry]
    config = get_pretrained_cfg(name)
    assert config is not None
    head, first = (
        tensors.get(f"{config.classifier}.weight"),
        tensors.get(f"{config.first_conv}.weight"),
    )
    if head is None or first is None:
        raise WeightsError(f"a state dict of {entry!r} lacks its first layer or its classifier")
    classes = len(head)
    # A plain patch embedding is a linear layer over 16 x 16 pixels.
    in_chans = first.shape[1] if first.ndim == 4 else first.shape[1] // 16**2
    model = create_model(
        name, num_classes=classes, in_chans=in_chans, temperature=temperature, **arguments
    )
    assert isinstance(model, BcosModel)
    model.logit_bias = logit_bias
    bias = logit_bias
    if bias is None and classes > 1:
        bias = 0.0 if model.kit.conventional else -math.log(classes - 1)
    model.logits = Logits(classes, bias, temperature)
    # The widest type there is: averages may be kept in float64 beside weights in float32.
    types = [t.dtype for t in tensors.values() if t.is_floating_point()]
    model.to(head.device, reduce(torch.promote_types, types))
    fit(model, tensors, f"a state dict of {entry!r}")
    return model.eval()


def convert_state_dict(
    entry: str, state_dict: Mapping[str, Any] | str | Path, *, prefix: str | None = None
) -> dict[str, Tensor]:
    """The tensors of a reference state dict under our names; arguments as :func:`from_bcos_v2`.

    Raises:
        UnknownModelError, WeightsError: as there.
    """
    if entry not in ENTRY_POINTS:
        raise UnknownModelError(
            f"B-cos v2 has no entry point {entry!r}{nearest(entry, list(ENTRY_POINTS))}"
        )
    tensors = _only_set(_tensors(state_dict), prefix)
    renames = _RENAMES[_family(entry)]
    converted = {}
    for key, value in tensors.items():
        if key.endswith(".running_mean"):
            # The reference has the buffer but neither reads nor writes it.
            if value.any():
                raise WeightsError(f"{key!r} is not zero: batch norm is centred, not B-cos v2's")
            continue
        name = key if entry.startswith("standard_") else key.replace(".linear.weight", ".weight")
        for pattern, replacement in renames.items():
            name = re.sub(pattern, replacement, name)
        converted[name] = value.flatten() if name.endswith(".gamma") else value
    return converted


def _family(entry: str) -> str:
    """Which renames an entry point needs."""
    return next((family for family in _RENAMES if entry.startswith(family)), "vit")


def _tensors(state_dict: Mapping[str, Any] | str | Path) -> dict[str, Tensor]:
    """What of a state dict, checkpoint or file are weights."""
    if isinstance(state_dict, str | Path):
        path = Path(state_dict)
        try:
            state_dict = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise WeightsError(
                f"{path}: holds more than tensors, which is not loaded; if you trust its source,"
                ' save torch.load(path, weights_only=False)["state_dict"] once and use that'
            ) from error
        except (OSError, EOFError, RuntimeError) as error:
            raise WeightsError(f"{path}: cannot be read: {error}") from error
    if not isinstance(state_dict, Mapping):
        raise WeightsError(f"expected a state dict, got {type(state_dict).__name__}")
    inner = state_dict.get("state_dict", state_dict)
    if not isinstance(inner, Mapping):
        raise WeightsError(f"expected a state dict, got a {type(inner).__name__} of that name")
    tensors = {k: v for k, v in inner.items() if isinstance(v, Tensor)}
    if not tensors:
        raise WeightsError("the state dict holds no tensors")
    return tensors


def _only_set(tensors: Mapping[str, Tensor], prefix: str | None) -> dict[str, Tensor]:
    """The weights under ``prefix``, or under the only one there is, without it."""
    sets: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        match = _PREFIX.match(key)
        found = match[0] if match else ""
        sets.setdefault(found, {})[key.removeprefix(found)] = value
    if prefix is None:
        if len(sets) != 1:
            raise WeightsError(
                f"the state dict holds {len(sets)} sets of weights, under {sorted(sets)};"
                " choose one with prefix="
            )
        return next(iter(sets.values()))
    prefix = f"{prefix.rstrip('.')}." if prefix else ""
    if prefix not in sets:
        raise WeightsError(f"no weights under prefix {prefix!r}, only under {sorted(sets)}")
    return sets[prefix]
