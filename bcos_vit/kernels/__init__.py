"""Passes over feature maps made in one go, in C where a compiler is at hand, else by PyTorch.

:mod:`bcos_vit.kernels.passes` is what layers call; ``kernels.c`` is compiled when it is first
needed (a second; :mod:`bcos_vit.kernels.build`) and kept in the user's cache. Nothing but speed
depends on it: tests compare the two on every pass. ``BCOS_VIT_KERNELS=off`` keeps to PyTorch.
"""

from bcos_vit.kernels.build import status

__all__ = ["status"]
