"""How fast paths are switched off, and how far they may be from the plain formulas.

A fast path may be wrong in float32 by 1.5 times what the plain formula is, both against the plain
formula in float64; and by the rounding of the true result to float32, without which nothing can be
written down.
"""

import os
import shutil
from contextlib import contextmanager

import pytest
import torch

from bcos_vit.kernels.build import SWITCH, library, status

COMPILERS = ("cc", "gcc", "clang")
_SET = os.environ.get(SWITCH)  # for all tests


@contextmanager
def environment(**variables):
    """Environment variables, None to remove one, as a process would find them at its start."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)
        library.cache_clear()
        yield
    library.cache_clear()


@contextmanager
def kernels(wanted):
    """With the C kernels, or with PyTorch's operations only.

    Skips where kernels are wanted and there is no compiler; where there is one they must be had.
    """
    with environment(**{SWITCH: _SET if wanted else "off"}):
        if wanted and (_SET or not any(map(shutil.which, COMPILERS))):
            pytest.skip(f"kernels: {status()}")
        assert (library("float") is not None) == (library("double") is not None) == wanted, status()
        yield


def distance(found, truth):
    """Euclidean distance over all tensors of two lists, in float64."""
    pairs = zip(found, truth, strict=True)
    return torch.stack([(a.double() - b.double()).norm() for a, b in pairs]).norm()


def size(truth):
    """Euclidean length of all tensors of a list together."""
    return torch.stack([each.double().norm() for each in truth]).norm()


def assert_same_in_float64(found, truth, tolerance=1e-12):
    """Equal up to float64's rounding in another order of summation."""
    assert size(truth) > 0
    assert distance(found, truth) <= tolerance * size(truth)


def assert_no_worse_than_plain(fast, plain, truth):
    """The error of a fast path in float32 is at most 1.5 times the plain formula's own."""
    rounding = distance([each.float() for each in truth], truth)
    assert distance(fast, truth) <= 1.5 * distance(plain, truth) + rounding
