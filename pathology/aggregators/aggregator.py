"""What every aggregator is: logits of bags of tile features, padded to one length.

Shapes: B bags, N tiles, D features, C outputs.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from bcos_vit.layers import Logits
from pathology.aggregators.subsets import Finish, Subsets


class Aggregator(nn.Module):
    """Logits of bags of tile features.

    The order of tiles does not matter, and absent ones (padding) change nothing. A bag without any
    tile holds no evidence.

    A sub-class gives :meth:`evidence`. One whose logits are ``constants + sum_i g_i . h_i`` sets
    ``exact = True`` and ``dynamic_linear = True``, and marks by :func:`bcos_vit.layers.held` what
    in ``g_i`` depends on the features.

    Args:
        in_features: D, size of a tile's features.
        outputs: C, logits of a bag.

    Raises:
        ValueError: sizes below 1.
    """

    exact: ClassVar[bool] = False
    """Whether an explanation takes logits apart into the features of tiles without remainder."""

    logits: Logits | None
    """The end, which makes logits of evidence; a baseline has one where it is calibrated."""

    def __init__(self, in_features: int, outputs: int) -> None:
        super().__init__()
        if in_features < 1 or outputs < 1:
            raise ValueError(
                f"in_features and outputs must be at least 1, got {in_features} and {outputs}"
            )
        self.in_features = in_features
        self.outputs = outputs
        self.logits = None

    def forward(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """``(B, N, D)`` to ``(B, C)``, float32 or wider.

        Args:
            features: of the tiles; what absent ones hold does not matter.
            present: ``(B, N)`` bool, which tiles there are; all when omitted.

        Raises:
            ValueError: shapes that do not fit.
            TypeError: ``present`` is not bool.
        """
        y = self.evidence(self.checked(features, present), present)
        # A logit of -3 in bfloat16 would not see evidence below 0.01.
        y = y.to(torch.promote_types(y.dtype, torch.float32))
        return y if self.logits is None else self.logits(y)

    def evidence(self, features: Tensor, present: Tensor | None) -> Tensor:
        """What :attr:`logits` makes logits of; of checked arguments, 0 for absent tiles."""
        raise NotImplementedError

    def rescale(self, temperatures: Sequence[float], shifts: Sequence[float] | None = None) -> None:
        """Make every logit ``logit / temperature + shift``, as calibration does; in place.

        Explanations and removal effects are of the new logits; a shift is part of their bias.

        Args:
            temperatures: one per output.
            shifts: likewise; none when omitted.

        Raises:
            ValueError: not one per output, or temperatures that are not positive and finite.
        """
        if self.logits is None:
            weights = next(self.parameters())
            self.logits = Logits(self.outputs, bias=0.0).to(weights.device, weights.dtype)
        self.logits.rescale(temperatures, shifts)

    def finish(self, target: int) -> Finish:
        """What makes an output's logits, float64, of its evidence ``(S, 1)``."""
        if self.logits is None:
            return lambda evidence: evidence[:, 0]
        bias = self.logits.bias.double()[target]
        temperature = self.logits.temperature.double().expand(self.outputs)[target]
        return lambda evidence: evidence[:, 0] / temperature + bias

    def attention(self, features: Tensor, present: Tensor | None = None) -> Tensor | None:
        """What is usually drawn of a slide: a weight per tile, at least 0.

        Args:
            features: ``(B, N, D)``.
            present: ``(B, N)`` bool; all when omitted.

        Returns:
            ``(B, N)``, 0 for absent tiles; None where all tiles weigh the same.
        """
        return None

    def tile_contributions(
        self, features: Tensor, present: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Logits as a sum over tiles, where an aggregator that is not exact has such a form.

        Args:
            features: ``(B, N, D)``.
            present: ``(B, N)`` bool; all when omitted.

        Returns:
            Contributions ``(B, N, C)`` and constants ``(C,)``, which together make the logits; None
            where there is no such form.
        """
        return None

    def subsets(self, features: Tensor, target: int) -> Subsets | None:
        """Logits of any of a bag's tiles by closed form; None where there is none.

        Args:
            features: ``(N, D)`` of the bag's tiles.
            target: the output.
        """
        return None

    def checked(self, features: Tensor, present: Tensor | None = None) -> Tensor:
        """``features``, with 0 for absent tiles.

        Raises:
            ValueError, TypeError: as :meth:`forward`.
        """
        if features.ndim != 3 or features.shape[-1] != self.in_features:
            raise ValueError(
                f"features must be (bags, tiles, {self.in_features}), got {tuple(features.shape)}"
            )
        shape = features.shape[:2]
        if present is None:
            return features
        if present.dtype != torch.bool:
            raise TypeError(f"present must be bool, got {present.dtype}")
        if present.shape != shape:
            raise ValueError(
                f"present must be {tuple(shape)} for these features, got {tuple(present.shape)}"
            )
        return features.masked_fill(~present[..., None], 0)
