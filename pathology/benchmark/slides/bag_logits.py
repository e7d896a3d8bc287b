"""All logits of any of a bag's tiles: by closed form where there is one, else by running them."""

import torch
from torch import Tensor

from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.explain import checked_bag
from pathology.aggregators.removal import EveryForward
from pathology.aggregators.subsets import Subsets

_FEATURES_AT_ONCE = 2**24
_CELLS_AT_ONCE = 2**24  # of masks in float64


class BagLogits:
    """Logits of subsets of one bag.

    Args:
        aggregator: in eval mode.
        features: ``(N, D)``; tiles that there are, no padding.

    Raises:
        ValueError: features of the wrong shape or with NaN, the aggregator is in training mode.
        TypeError: features are not floating point, or wider than the aggregator's weights.
    """

    def __init__(self, aggregator: Aggregator, features: Tensor) -> None:
        if aggregator.training:
            raise ValueError("the aggregator is in training mode; call eval() first")
        self.aggregator, self.features = aggregator, checked_bag(aggregator, features)
        self.forward_passes = 0
        self._subsets: list[Subsets] | None = None
        with torch.no_grad():
            found = [aggregator.subsets(self.features, i) for i in range(aggregator.outputs)]
        known = [each for each in found if each is not None]
        if len(known) == len(found):
            self._subsets = known

    def __len__(self) -> int:
        return len(self.features)

    @property
    def closed_form(self) -> bool:
        """Whether subsets are arithmetic on sums; else each is a forward pass, which is counted."""
        return self._subsets is not None and all(each.closed_form for each in self._subsets)

    @torch.no_grad()
    def __call__(self, kept: Tensor) -> Tensor:
        """``(S, outputs)`` float64 of subsets ``(S, N)`` bool.

        Raises:
            ValueError: ``kept`` of another shape.
            TypeError: ``kept`` is not bool.
        """
        if kept.dtype != torch.bool:
            raise TypeError(f"kept must be bool, got {kept.dtype}")
        if kept.ndim != 2 or kept.shape[1] != len(self):
            raise ValueError(f"kept must be (subsets, {len(self)}), got {tuple(kept.shape)}")
        kept = kept.to(self.features.device)
        if not self.closed_form:
            self.forward_passes += len(kept)
        if self._subsets is not None:
            parts = kept.split(max(1, _CELLS_AT_ONCE // max(1, len(self))))
            columns = [torch.cat([each.logits(p) for p in parts]) for each in self._subsets]
            return torch.stack(columns, dim=1)
        size = max(1, _FEATURES_AT_ONCE // max(1, self.features.numel()))
        with torch.autocast(self.features.device.type, enabled=False):
            found = [
                self.aggregator(self.features.expand(len(part), -1, -1), part).double()
                for part in kept.split(size)
            ]
        return torch.cat(found)

    def whole(self) -> Tensor:
        """``(outputs,)`` of all tiles."""
        return self(torch.ones(1, len(self), dtype=torch.bool))[0]

    def of(self, target: int) -> Subsets:
        """Subsets for one output, for searches."""
        if self._subsets is not None:
            return self._subsets[target]
        return EveryForward(self.aggregator, self.features, target)


def probability(logits: Tensor, target: int) -> Tensor:
    """``(S,)`` of logits ``(S, outputs)``: by sigmoid of a single output, by softmax of several."""
    if logits.shape[1] == 1:
        return logits[:, target].sigmoid()
    return logits.softmax(1)[:, target]
