"""BcosConv2d is the B-cos transform of every patch that the filter really meets."""

import numpy as np
import pytest
import torch

from bcos_vit.layers import BcosConv2d, BcosLinear, explanation_mode
from tests.reference import array, bcos_conv_matrix

GEOMETRIES = {
    "plain": {"kernel_size": 3},
    "padded": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "stem": {"kernel_size": 7, "stride": 2, "padding": 3},
    "patchify": {"kernel_size": 2, "stride": 2},
    "tuples": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)},
    "one by one": {"kernel_size": 1},
    "one by one, strided": {"kernel_size": 1, "stride": 2},
    "one by one, padded": {"kernel_size": 1, "padding": 1},
    "wide padding": {"kernel_size": 3, "padding": 2},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "one way dilated": {"kernel_size": 3, "padding": (2, 1), "dilation": (2, 1)},
    "same": {"kernel_size": 3, "padding": "same"},
    "same, even kernel": {"kernel_size": (4, 2), "padding": "same"},
    "same, dilated": {"kernel_size": (3, 2), "padding": "same", "dilation": (1, 3)},
    "valid": {"kernel_size": 3, "padding": "valid"},
}


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def matrix_of(layer, options, image):
    """Reference matrix from the options as written, not from what the layer made of them."""
    return bcos_conv_matrix(
        array(layer.weight),
        array(image),
        stride=pair(options.get("stride", 1)),
        padding=pair(options.get("padding", 0)),
        dilation=pair(options.get("dilation", 1)),
        groups=options.get("groups", 1),
        mode=options.get("padding_mode", "zeros"),
        b=options.get("b", 2),
        max_out=options.get("max_out", 1),
    )


def assert_follows_the_formula(in_chans, out_chans, **options):
    layer = BcosConv2d(in_chans, out_chans, **options).double()
    x = torch.randn(2, in_chans, 7, 6, dtype=torch.float64)
    y = layer(x)
    for image, outputs in zip(x, y, strict=True):
        matrix, shape = matrix_of(layer, options, image)
        reference = (matrix @ array(image).ravel()).reshape(shape)
        assert outputs.shape == shape
        np.testing.assert_allclose(array(outputs), reference, rtol=0, atol=1e-10)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("b", [1.25, 2])
def test_every_geometry_follows_the_formula(geometry, b):
    assert_follows_the_formula(2, 3, **GEOMETRIES[geometry], b=b)


@pytest.mark.parametrize("max_out", [1, 2])
@pytest.mark.parametrize("b", [1, 1.25, 2, 2.5, 3])
def test_every_exponent_follows_the_formula(b, max_out):
    assert_follows_the_formula(2, 3, kernel_size=3, padding=1, b=b, max_out=max_out)


@pytest.mark.parametrize("geometry", ["padded", "strided", "dilated", "wide padding", "one by one"])
@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("max_out", [1, 2])
def test_groups_have_norms_of_their_own(groups, max_out, geometry):
    assert_follows_the_formula(4, 8, **GEOMETRIES[geometry], groups=groups, max_out=max_out)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    "geometry", ["padded", "strided", "tuples", "dilated", "same, even kernel", "same, dilated"]
)
def test_padding_modes_are_right_at_the_border(geometry, mode):
    assert_follows_the_formula(2, 3, **GEOMETRIES[geometry], padding_mode=mode, b=1.5)


def test_depthwise_strided_convolution_follows_the_formula():
    assert_follows_the_formula(3, 6, kernel_size=3, stride=(1, 2), padding=1, groups=3, max_out=2)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_gradient_while_explaining_is_the_matrix(kernel_size):
    options = {
        "kernel_size": kernel_size, "stride": 2, "padding": kernel_size // 2,
        "padding_mode": "reflect", "groups": 2, "max_out": 2, "b": 1.5,
    }  # fmt: skip
    layer = BcosConv2d(4, 2, **options).double()
    image = torch.randn(4, 5, 6, dtype=torch.float64)
    with explanation_mode():
        found = torch.autograd.functional.jacobian(lambda x: layer(x[None]).ravel(), image)
    matrix, _ = matrix_of(layer, options, image)
    np.testing.assert_allclose(array(found).reshape(matrix.shape), matrix, rtol=0, atol=1e-10)


def test_gradient_when_training_is_the_derivative_of_the_formula():
    layer = BcosConv2d(2, 2, 3, padding=1, groups=2, b=1.5, max_out=2).double()
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_b_two_equals_the_limit_of_the_general_branch():
    fast, general = BcosConv2d(2, 3, 3).double(), BcosConv2d(2, 3, 3, b=2 + 1e-13).double()
    general.load_state_dict(fast.state_dict())
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(fast(x), general(x), rtol=0, atol=1e-10)


def test_max_out_takes_neighbouring_filters():
    layer = BcosConv2d(1, 2, 1, b=1, max_out=2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -1, -1, -1]).reshape(4, 1, 1, 1))
    assert layer(torch.full((1, 1, 1, 1), 5.0, dtype=torch.float64)).ravel().tolist() == [5, -5]


def test_one_by_one_convolution_is_a_linear_layer_up_to_eps():
    conv, linear = BcosConv2d(5, 3, 1).double(), BcosLinear(5, 3).double()
    with torch.no_grad():
        linear.weight.copy_(conv.weight[..., 0, 0])
    x = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    tokens = linear(x.movedim(1, -1)).movedim(-1, 1)
    assert not torch.equal(conv(x), tokens)
    # The convolution's 1e-6 sits inside the root: relative error 1e-6 / (2 |x|^2) per position.
    bound = 1e-6 / (2 * x.square().sum(1, keepdim=True)) * tokens.abs() + 1e-12
    assert ((conv(x) - tokens).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("b", [1.25, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_black_images_give_zero_and_finite_gradients(kernel_size, b, dtype):
    layer = BcosConv2d(4, 2, kernel_size, padding=kernel_size // 2, b=b, groups=2).to(dtype)
    x = torch.zeros(1, 4, 4, 4, dtype=dtype, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.dtype == dtype
    assert (y == 0).all()
    assert x.grad.isfinite().all()
    assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("b", [1.1, 1.5])
def test_gradient_is_finite_where_the_cosine_is_zero(b):
    layer = BcosConv2d(2, 1, 1, b=b).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1))
    x = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(1, 2, 1, 1).requires_grad_()
    layer(x).sum().backward()
    assert x.grad.isfinite().all()
    assert layer.weight.grad.isfinite().all()


def test_half_precision_patch_norms_do_not_overflow():
    layer = BcosConv2d(4, 2, 3, padding=1)
    x = torch.full((1, 4, 5, 5), 300.0)
    half = layer.half()(x.half()).float()
    # Half precision keeps 11 bits; 36 products are summed.
    torch.testing.assert_close(half, layer.float()(x), rtol=2e-2, atol=2.0)


def test_channels_last_gives_the_same():
    layer = BcosConv2d(4, 6, 3, 2, 1, groups=2, max_out=2).double()
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    other = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(other), layer(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"b": 0.5}, r"b must be at least 1, got 0\.5"),
        ({"max_out": 0}, "max_out must be at least 1, got 0"),
        ({"groups": 3}, r"groups must divide in_chans and out_chans, got 3 for 4\D+6"),
        ({"groups": 4}, r"groups must divide in_chans and out_chans, got 4 for 4\D+6"),
        ({"groups": 0}, r"groups must divide in_chans and out_chans, got 0 for 4\D+6"),
        ({"padding_mode": "mirror"}, r"padding_mode must be one of .*zeros.*got 'mirror'"),
        ({"padding": "full"}, r"padding must be a number, \"same\" or \"valid\", got 'full'"),
        ({"padding": "same", "stride": 2}, r"padding=\"same\" needs stride 1, got \(2, 2\)"),
        ({"padding": (1, 2, 3)}, r"padding must be .*got \(1, 2, 3\)"),
        ({"stride": (1, 2, 3)}, r"stride must be .*got \(1, 2, 3\)"),
    ],
)
def test_wrong_arguments_are_named_when_the_layer_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        BcosConv2d(4, 6, 3, **options)


def test_repr_names_what_is_not_the_default():
    assert repr(BcosConv2d(4, 6, 3)) == "BcosConv2d(4, 6, (3, 3), stride=(1, 1), b=2, max_out=1)"
    text = repr(BcosConv2d(4, 6, 3, padding=(1, 0), dilation=2, groups=2, padding_mode="reflect"))
    assert "pads=(0, 0, 1, 1), padding_mode=reflect, dilation=(2, 2), groups=2" in text
