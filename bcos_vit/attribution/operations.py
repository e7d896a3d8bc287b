"""PyTorch's operations by what they do to something that is linear in the pixels.

An operation that is in none of these sets is taken to be none of them. Names are without the
underscores of methods and in-place forms: ``__iadd__`` is ``iadd``, ``relu_`` is ``relu``.
"""

from collections.abc import Mapping
from typing import Any


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


LINEAR = _names(
    """
    view view_as reshape reshape_as flatten unflatten ravel squeeze unsqueeze permute transpose
    swapaxes swapdims movedim moveaxis t T mT contiguous clone expand expand_as broadcast_to repeat
    repeat_interleave tile roll flip rot90 narrow select index_select getitem unbind chunk split
    tensor_split split_with_sizes take_along_dim gather unfold im2col pixel_shuffle pixel_unshuffle
    channel_shuffle mean sum cumsum neg negative positive to type type_as float double
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    interpolate upsample upsample_bilinear upsample_nearest
    """
)
"""Linear in their first argument, whatever the others; nothing is added."""

CHOICES = _names(
    """
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    amax
    """
)
"""Linear once the choice that they make is held, as their gradient does."""

ACTIVATIONS = _names(
    """
    relu relu6 gelu silu mish hardswish leaky_relu prelu elu selu celu tanh hardtanh softsign
    """
)
"""Element by element and 0 at 0: their input times a gate."""

PRODUCTS = _names(
    """
    mul multiply rmul imul div divide true_divide truediv itruediv idiv matmul rmatmul mm bmm mv
    einsum
    """
)
"""Linear in one factor where the others are held."""

LAYERS = _names(
    """
    linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d batch_norm
    layer_norm group_norm rms_norm pad dropout dropout2d feature_dropout alpha_dropout
    """
)
"""Affine in their first argument, once a norm's deviation is held; all others are constants."""

SUMS = {
    "add": (1, 1),
    "radd": (1, 1),
    "iadd": (1, 1),
    "sub": (1, -1),
    "subtract": (1, -1),
    "isub": (1, -1),
    "rsub": (-1, 1),
}
"""Signs of the two terms."""

QUESTIONS = _names(
    """
    shape ndim dtype device layout requires_grad is_leaf grad_fn is_cuda is_sparse is_quantized
    size dim ndimension numel nelement stride len is_contiguous is_floating_point is_complex
    is_tensor get_device element_size storage_offset data_ptr version
    """
)
"""Do not ask for values."""

MAKERS = _names(
    """
    zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full
    new_empty new_tensor
    """
)
"""Look at shape and type only."""


def name_of(func: Any) -> str:
    """Name of a function, method or property of PyTorch."""
    if func.__name__ == "__get__":
        return str(func.__self__.__name__)
    return str(func.__name__).strip("_")


def changes(func: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether it writes into a tensor that was there before."""
    name = str(func.__name__)
    in_place = name.endswith("_") and not name.startswith("_")
    return in_place or name in _WRITES or kwargs.get("out") is not None


_WRITES = _names("__setitem__ __iadd__ __isub__ __imul__ __itruediv__ __idiv__ __ifloordiv__")
