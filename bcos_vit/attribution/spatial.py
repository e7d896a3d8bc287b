"""The last layer of a network at which every value still belongs to a place of the image."""

import difflib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bcos_vit.attribution.checks import target_logit
from bcos_vit.errors import UnsupportedMethodError
from bcos_vit.explain.mode import unwrapped
from bcos_vit.layers.cut import Cut


def spatial_layer(name: str, model: nn.Module, layer: str | None = None) -> Cut:
    """The layer that a class activation map is made at, and how places lie in its output.

    The last feature map before pooling; of a network of tokens the output of the last block, or,
    where the head reads a class token alone, of the first norm in it: behind the last attention
    patches have no way to that token any more, and their gradients are zero.

    Args:
        name: of the method, for the message.
        model: ours or timm's.
        layer: its name in the network, where it is chosen by hand.

    Raises:
        UnsupportedMethodError: the network has no such layer, or none that is known.
    """
    network: Any = unwrapped(model)
    if layer is None:
        layer = _last_layer(network)
        if layer is None:
            raise UnsupportedMethodError(
                f"{name}: no map of places is known in this {type(network).__name__}; name a layer"
                " of it as setting 'layer' if it has one"
            )
    known = dict(network.named_modules())
    if layer not in known or not layer:
        near = difflib.get_close_matches(layer, known, n=1)
        raise UnsupportedMethodError(
            f"{name}: this {type(network).__name__} has no layer {layer!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    cuts = {cut.module: cut for cut in network.layer_cuts()} if hasattr(network, "cuts") else {}
    if layer in cuts:
        return cuts[layer]
    if hasattr(network, "blocks") and hasattr(network, "num_prefix_tokens"):
        return Cut(layer, "tokens", network.num_prefix_tokens, _patch_size(name, network))
    channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
    return Cut(layer, "NHWC" if channels_last else "NCHW")


def _last_layer(network: Any) -> str | None:
    """Name of the last layer with places; None where it is not known."""
    if hasattr(network, "blocks") and hasattr(network, "num_prefix_tokens"):
        block = f"blocks.{len(network.blocks) - 1}"
        return f"{block}.norm1" if network.global_pool == "token" else block
    if hasattr(network, "layer_cuts"):
        return next((cut.module for cut in reversed(network.layer_cuts())), None)
    info = getattr(network, "feature_info", None)
    rows: list[dict[str, Any]] = getattr(info, "info", info) or []
    return rows[-1]["module"] if rows else None


def _patch_size(name: str, network: Any) -> int:
    """Side of a token's square in pixels."""
    size = network.patch_embed.patch_size
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise UnsupportedMethodError(f"{name}: tokens of {height} x {width} px are not square")
    return int(height)


@contextmanager
def replaced_output(layer: nn.Module, seen: list[Tensor]) -> Iterator[None]:
    """Let the network go on from a leaf in place of the layer's output, which ``seen`` collects.

    Other threads run through the same layer untouched; behind the context it is as it was.
    """
    mine = threading.get_ident()

    def hook(_layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        if threading.get_ident() != mine:
            return None
        seen.append(output.detach().clone().requires_grad_())
        return seen[-1].clone()  # what follows may work in place

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def run_from(name: str, model: nn.Module, cut: Cut, x: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's output as a leaf, and the logits over it.

    Raises:
        UnsupportedMethodError: the network does not run the layer exactly once, or its output is
            no map of places.
    """
    network = unwrapped(model)
    seen: list[Tensor] = []
    with replaced_output(network.get_submodule(cut.module), seen):
        logits: Tensor = network(x)
    if len(seen) != 1:
        raise UnsupportedMethodError(
            f"{name}: layer {cut.module!r} runs {len(seen)} times per image, so its map is not one;"
            " a compiled part of the network may pass it by"
        )
    check_places(name, cut, seen[0], x)
    return seen[0], logits


def check_places(name: str, cut: Cut, features: Tensor, x: Tensor) -> None:
    """Refuse a layer whose output has no place for each square of the image.

    Raises:
        UnsupportedMethodError: it is no map.
    """
    tokens = cut.layout == "tokens" and features.ndim == 3
    rows, columns = (side // cut.patch_size for side in x.shape[2:])
    is_map = features.ndim == 4 and cut.layout != "tokens"
    if not (is_map or (tokens and features.shape[1] - cut.prefix == rows * columns)):
        raise UnsupportedMethodError(
            f"{name}: layer {cut.module!r} puts out {tuple(features.shape)}, no map of places"
        )


def places_and_slopes(
    name: str, model: nn.Module, cut: Cut, x: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The layer's output, the gradient of the target's logit by it, and all logits.

    Returns:
        Both ``(n, channels, rows, columns)``, tokens that are no place left out, and
        ``(n, classes)``; without a graph.
    """
    leaf, logits = run_from(name, model, cut, x)
    total = target_logit(logits, target).sum()
    (slope,) = torch.autograd.grad(total, leaf)
    size = (x.shape[2], x.shape[3])
    return cut.places(leaf.detach(), size), cut.places(slope, size), logits.detach()
