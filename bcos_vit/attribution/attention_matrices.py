"""The attention matrices of a vision transformer: read, or changed, while it runs.

Fused kernels never make a matrix. Inside :func:`explicit_attention` every call of
``scaled_dot_product_attention`` of this thread is written out instead, so that any layer that calls
it can be read, ours and timm's, and none needs a hook or a switch of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.swin_transformer import WindowAttention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bcos_vit.attribution.checks import attentions, check_eval
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.errors import UnsupportedMethodError
from bcos_vit.explain.mode import unwrapped
from bcos_vit.layers import BcosAttention, BcosWindowAttention
from bcos_vit.models.vit import BcosVisionTransformer

Upsampling = Literal["bilinear", "nearest"]
"""How a value per token becomes one per pixel."""

Edit = Callable[[Tensor], Tensor]
"""What happens to scores ``(batch, heads, tokens, tokens)`` before the softmax over keys."""


@dataclass(frozen=True)
class Transformer:
    """A vision transformer of which each block attends from all tokens to all tokens.

    Args:
        model: the network itself, without any shell.
        prefix: tokens in front that are no patch.
        patch: height and width of a token's rectangle in pixels.
        pooled: which tokens the head reads, as a slice of all.
    """

    model: nn.Module
    prefix: int
    patch: tuple[int, int]
    pooled: slice

    @classmethod
    def of(cls, name: str, classifier: Classifier) -> "Transformer":
        """The classifier's network, in eval mode.

        Args:
            name: of the method that asks.
            classifier: to be looked at.

        Raises:
            UnsupportedMethodError: a network without attention, with attention in windows, or
                that pools or attends in a way that is not known here.
        """
        check_eval(name, classifier)
        model: Any = unwrapped(classifier.model)
        kind = type(model).__name__
        found = attentions(model)
        for where, layer in found.items():
            if isinstance(layer, (BcosWindowAttention, WindowAttention)):
                raise UnsupportedMethodError(
                    f"{name}: {where!r} of {kind} attends within windows that move and merge; it"
                    " has no matrix of all tokens to all tokens"
                )
        if not found:
            raise UnsupportedMethodError(f"{name}: {kind} has no attention")
        if type(model) is not VisionTransformer and not isinstance(model, BcosVisionTransformer):
            raise UnsupportedMethodError(
                f"{name}: {kind} is no plain vision transformer, of bcos_vit or timm's"
                " VisionTransformer; what its tokens are is not known"
            )
        blocks = {f"blocks.{i}.attn" for i in range(len(model.blocks))}
        for where in sorted(blocks ^ set(found)) or sorted(blocks):
            attention = found.get(where)
            if where not in blocks or type(attention) not in (BcosAttention, Attention):
                is_what = f"is a {type(attention).__name__}" if attention else "is missing"
                raise UnsupportedMethodError(
                    f"{name}: attention of {kind} must be one plain layer per block; {where!r}"
                    f" {is_what}"
                )
        if model.global_pool not in ("token", "avg"):
            raise UnsupportedMethodError(
                f"{name}: {kind} pools by {model.global_pool!r}; which tokens speak for the image"
                ' is only known of "token" and "avg"'
            )
        prefix = int(model.num_prefix_tokens)
        everything = getattr(model, "pool_include_prefix", False)
        pooled = (
            slice(0, 1)
            if model.global_pool == "token"
            else slice(0 if everything else prefix, None)
        )
        size = model.patch_embed.patch_size
        return cls(model, prefix, (size, size) if isinstance(size, int) else tuple(size), pooled)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches.

        Raises:
            ValueError: images that do not divide into patches.
        """
        (height, width), (down, across) = images.shape[2:], self.patch
        if height % down or width % across:
            raise ValueError(
                f"images of {height} x {width} px do not divide into patches of {down} x"
                f" {across} px"
            )
        return height // down, width // across

    def spread(self, values: Tensor, images: Tensor, upsampling: Upsampling) -> Tensor:
        """Maps ``(n, h, w)`` of the images' patches ``(n, rows * columns)``."""
        tokens = values.unflatten(1, self.grid(images))[:, None].float()
        options = {"align_corners": False} if upsampling == "bilinear" else {}
        size = images.shape[2:]
        return F.interpolate(tokens, size=size, mode=upsampling, **options)[:, 0]

    def run(
        self, name: str, x: Tensor, edit: Edit | None = None, keep: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits of encoded images, and every block's attention matrix ``(n, heads, N, N)``.

        Args:
            name: of the method that asks.
            x: ``(n, c, h, w)``.
            edit: of the scores.
            keep: whether to return matrices. With gradients on, each leads to the logits.

        Raises:
            UnsupportedMethodError: attention was not seen once in every block.
        """
        with explicit_attention(self.model, edit, keep) as seen:
            logits: Tensor = self.model(x)
        blocks: Any = self.model.blocks
        if seen.calls != len(blocks):
            raise UnsupportedMethodError(
                f"{name}: attention was seen {seen.calls} times in {len(blocks)} blocks; is it"
                " replaced or compiled?"
            )
        return logits, seen.matrices


@contextmanager
def explicit_attention(
    model: nn.Module, edit: Edit | None = None, keep: bool = False
) -> Iterator["_Explicit"]:
    """Write attention out, inside; layers of timm that do so themselves are made to ask for it.

    Args:
        model: whose layers are run inside.
        edit: of the scores.
        keep: whether to keep matrices.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, Attention):
                stack.callback(setattr, module, "fused_attn", module.fused_attn)
                setattr(module, "fused_attn", True)  # noqa: B010 - Final, says timm
        yield stack.enter_context(_Explicit(edit, keep))


class _Explicit(TorchFunctionMode):
    """``softmax(edit(q k^T / sqrt(D))) v``, and how often."""

    def __init__(self, edit: Edit | None, keep: bool) -> None:
        super().__init__()
        self.edit = edit
        self.keep = keep
        self.calls = 0
        self.matrices: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        return self._attend(*args, **kwargs)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **options: Any,
    ) -> Tensor:
        # Plain layers in eval mode ask for nothing else.
        assert attn_mask is None
        assert not dropout_p
        assert not is_causal
        assert not any(options.values())
        self.calls += 1
        scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
        matrix = torch.softmax(self.edit(scores) if self.edit else scores, -1)
        if self.keep:
            if torch.is_grad_enabled() and not matrix.requires_grad:
                matrix = matrix.detach().requires_grad_()  # parameters are frozen
            self.matrices.append(matrix)
        return matrix @ value
