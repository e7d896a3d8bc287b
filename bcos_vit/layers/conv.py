"""B-cos convolution."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.kernels.passes import Window
from bcos_vit.layers.bias import add_bias, make_bias
from bcos_vit.layers.fast import fast
from bcos_vit.layers.fused_bcos import ConvShape, Form, bcos
from bcos_vit.layers.mode import held
from bcos_vit.layers.operators import bcos_operator, traceable
from bcos_vit.layers.scale import (
    apply_scale,
    check_exponent,
    check_units,
    max_out_units,
    unit_norm,
    weight_length,
)

# Inside the root, as in the published networks.
_EPS = 1e-6
Run = Callable[..., Tensor]
_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def two_numbers(name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    """``(rows, columns)`` from one number or two.

    Raises:
        ValueError: not one or two whole numbers of at least ``least``.
    """
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(n, int) and n >= least for n in pair):
        raise ValueError(f"{name} must be one or two whole numbers >= {least}, got {value!r}")
    return pair


class BcosConv2d(nn.Module):
    """B-cos transform of every patch a convolution sees; filters have unit length.

    ``y_o(p) = max_m |cos(patch(p), w_om)|^(b-1) * <w_om, patch(p)>``. The length of a patch is that
    of the values the filter really meets: group by group, at the layer's own stride, dilation and
    padding, so borders are right in every padding mode.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        kernel_size, stride, dilation: as in ``torch.nn.Conv2d``.
        padding: pixels on each side, or ``"same"`` (stride 1) or ``"valid"``.
        groups: divides ``in_chans`` and ``out_chans``.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        b: exponent, at least 1.
        max_out: linear filters behind each output channel.
        unit_norm, bias: see :class:`bcos_vit.layers.BcosLinear`.

    Source:
        Boehle et al., CVPR 2022 (arXiv:2205.10268); TPAMI 2024 (arXiv:2306.10898).
    """

    dynamic_linear = True
    bias: nn.Parameter | None
    bias_share: float

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        *,
        padding_mode: str = "zeros",
        b: float = 2.0,
        max_out: int = 1,
        unit_norm: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_units(max_out, unit_norm)
        if groups < 1 or in_chans % groups or out_chans % groups:
            raise ValueError(
                f"groups must divide in_chans and out_chans, got {groups} for"
                f" {in_chans} and {out_chans}"
            )
        if padding_mode not in _PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {_PADDING_MODES}, got {padding_mode!r}")
        self.in_chans = in_chans
        self.out_chans = out_chans
        self.kernel_size = two_numbers("kernel_size", kernel_size, least=1)
        self.stride = two_numbers("stride", stride, least=1)
        self.dilation = two_numbers("dilation", dilation, least=1)
        self.groups = groups
        self.padding_mode = padding_mode
        self.b = check_exponent(b)
        self.max_out = max_out
        self.unit_norm = unit_norm
        self.pads = self._pads(padding)
        self.weight = nn.Parameter(
            torch.empty(out_chans * max_out, in_chans // groups, *self.kernel_size)
        )
        make_bias(self, out_chans if bias else None)
        self.reset_parameters()

    def _pads(self, padding: int | tuple[int, int] | str) -> tuple[int, int, int, int]:
        """Pixels to add (left, right, top, bottom)."""
        if padding == "same":
            if self.stride != (1, 1):
                raise ValueError(f'padding="same" needs stride 1, got {self.stride}')
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            top, left = (t // 2 for t in total)
            return left, total[1] - left, top, total[0] - top
        if isinstance(padding, str):
            if padding != "valid":
                raise ValueError(f'padding must be a number, "same" or "valid", got {padding!r}')
            return 0, 0, 0, 0
        rows, columns = two_numbers("padding", padding, least=0)
        return columns, columns, rows, rows

    def reset_parameters(self) -> None:
        """Isotropic directions: the length of a filter does not matter, only where it points."""
        nn.init.normal_(self.weight, std=self.weight[0].numel() ** -0.5)

    def forward(self, x: Tensor, gain: Tensor | None = None, inlet: Tensor | None = None) -> Tensor:
        """``(batch, in_chans, height, width)`` to ``(batch, out_chans, height', width')``.

        ``gain`` and ``inlet`` take norms beside this layer into its own pass, see
        :mod:`bcos_vit.layers.conv_norm`; they are constants, and nothing here learns with them.

        Args:
            x: feature map.
            gain: ``(out_chans,)``, multiplies the transform.
            inlet: ``(in_chans,)``, multiplies the input; for one group.
        """
        left, right, top, bottom = self.pads
        padding = (top, left)
        if self.padding_mode != "zeros" or left != right or top != bottom:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self.pads, mode=mode)
            padding = (0, 0)
        if self.has_fast_form(x):
            run = bcos_operator if torch.compiler.is_compiling() else bcos
            if self.pointwise and x.is_contiguous(memory_format=torch.channels_last):
                y = self._by_rows(x, run, gain, inlet)
            else:
                y = run(x, self.weight, self._form(padding), gain, inlet)
        else:
            x = x if inlet is None else x * inlet[:, None, None].to(x.dtype)
            y = self._scaled(x, self.weight, padding)
            y = y if gain is None else y * gain[:, None, None].to(y.dtype)
        return add_bias(y, self.bias, self.bias_share, dim=1)

    def has_fast_form(self, x: Tensor) -> bool:
        """Whether ``x`` is transformed in few passes, which takes an exponent of 2."""
        if self.b != 2 or self.max_out != 1 or x.ndim != 4:
            return False
        # The compiler does well with other convolutions, but not with the norms of these patches.
        depthwise = self.groups == self.in_chans > 1
        return fast(x, self.weight) or (depthwise and traceable(x, self.weight))

    @property
    def pointwise(self) -> bool:
        """Whether it is a linear layer at every place."""
        return self.kernel_size == self.stride == (1, 1) and not any(self.pads) and self.groups == 1

    def _by_rows(self, x: Tensor, run: Run, gain: Tensor | None, inlet: Tensor | None) -> Tensor:
        """A linear layer at every place; with channels last, places are rows of one matrix."""
        places = x.permute(0, 2, 3, 1)
        rows = places.reshape(-1, self.in_chans)
        y = run(rows, self.weight.flatten(1), self.row_form, gain, inlet)
        return y.view(*places.shape[:3], self.out_chans).permute(0, 3, 1, 2)

    @property
    def row_form(self) -> Form:
        """What a layer of 1 x 1 filters is, as a linear layer."""

        def plain(rows: Tensor, weight: Tensor) -> Tensor:
            return self._scaled(rows[..., None, None], weight[..., None, None], (0, 0)).flatten(1)

        return Form(plain, _EPS, eps_inside=True, unit_norm=self.unit_norm)

    def _form(self, padding: tuple[int, int]) -> Form:
        """What this layer is, for its fast form."""
        rows, columns = (
            Window(*each)
            for each in zip(self.kernel_size, self.stride, self.dilation, padding, strict=True)
        )
        shape = ConvShape(rows, columns, self.groups)
        plain = partial(self._scaled, padding=padding)
        return Form(plain, _EPS, eps_inside=True, unit_norm=self.unit_norm, conv=shape)

    def _scaled(self, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        """The plain formula, without bias."""
        weight = held(weight)
        weight = unit_norm(weight) if self.unit_norm else weight
        linear = F.conv2d(x, weight, None, self.stride, padding, self.dilation, self.groups)
        linear = max_out_units(linear, self.max_out, 1)
        if self.b != 1:
            norm = self._patch_norm(x, padding)
            if not self.unit_norm:
                norm = norm * weight_length(weight)[:, None, None]
            linear = apply_scale(linear, norm, self.b)
        return linear

    def _patch_norm(self, x: Tensor, padding: tuple[int, int]) -> Tensor:
        """Length of the patch under each output pixel, ``(batch, 1 or out_chans, h', w')``."""
        # float32 at least: squares of half-precision values over- and underflow.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # One read of the input, then a small box sum over `groups` channels only.
        squares = wide.square().unflatten(1, (self.groups, -1)).sum(2)
        if self.kernel_size == (1, 1) and padding == (0, 0):
            box = squares[..., :: self.stride[0], :: self.stride[1]]
        elif self.dilation == (1, 1) and all(
            2 * p <= k for p, k in zip(padding, self.kernel_size, strict=True)
        ):
            # Mean times area: ONNX has no divisor of one's own, and its exporter drops it unsaid.
            area = self.kernel_size[0] * self.kernel_size[1]
            box = F.avg_pool2d(squares, self.kernel_size, self.stride, padding) * area
        else:
            ones = squares.new_ones(self.groups, 1, *self.kernel_size)
            box = F.conv2d(squares, ones, None, self.stride, padding, self.dilation, self.groups)
        norm = (box + _EPS).sqrt()
        if self.groups == 1:
            return norm
        return norm.repeat_interleave(self.out_chans // self.groups, dim=1)

    def extra_repr(self) -> str:
        text = f"{self.in_chans}, {self.out_chans}, {self.kernel_size}, stride={self.stride}"
        if any(self.pads):
            text += f", pads={self.pads}, padding_mode={self.padding_mode}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        text += f", b={self.b:g}, max_out={self.max_out}"
        return text if self.unit_norm else f"{text}, unit_norm=False, bias={self.bias is not None}"
