"""From a bag of tiles to the numbers that an outcome is made of."""

from typing import Any

import torch
from torch import Tensor, nn

from pathology.aggregators.aggregator import Aggregator
from pathology.aggregators.local_logits import BcosGatedSum
from pathology.data.encoders import PooledFeatures
from pathology.tasks.encoding import TileEncoding
from pathology.tasks.outcomes import Outcome

ENCODED = 64  # tiles encoded at once in evaluation


class SlideModel(nn.Module):
    """An aggregator, what its outputs mean, and the encoder of tiles where that is trained, too.

    Args:
        aggregator: makes numbers of bags of features.
        outcome: what they mean.
        encoder: makes features of tiles.
        encoding: makes the encoder's input of tiles.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        outcome: Outcome,
        encoder: PooledFeatures | None = None,
        encoding: TileEncoding | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.encoding = encoder, encoding
        self.aggregator, self.outcome = aggregator, outcome

    # Two layers for ``layer_decay`` and ``freeze``, in timm's words: the encoder, and the rest.

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^encoder\."}

    def get_classifier(self) -> nn.Module:
        return nn.ModuleList([self.aggregator, self.outcome])

    def no_weight_decay(self) -> set[str]:
        spare: Any = getattr(self.encoder and self.encoder.model, "no_weight_decay", set)
        return {f"encoder.model.{name}" for name in spare()}

    def features(self, batch: dict[str, Tensor]) -> Tensor:
        """Features ``(bags, tiles, dims)`` of a batch; 0 where a bag has no tile."""
        if "features" in batch:
            dtype = next((p.dtype for p in self.aggregator.parameters()), torch.float32)
            return batch["features"].to(dtype)
        if self.encoder is None or self.encoding is None:
            raise ValueError("the bags are of pixels, and the model has no encoder")
        present = batch["present"]
        tiles = batch["image"][present]
        # With gradients, and for batch norms, all have to be there at once.
        whole = torch.is_grad_enabled() or self.encoder.training
        parts = [tiles] if whole else tiles.split(ENCODED)
        encoded = torch.cat([self.encoder(self.encoding(part)) for part in parts])
        features = encoded.new_zeros(*present.shape, encoded.shape[1])
        features[present] = encoded
        return features

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features of a batch's tiles, and the aggregator's ``(bags, outputs)`` of them.

        Aggregators that do not normalise over a bag see fewer tiles when some are left out. Their
        evidence is scaled by tiles there are over tiles shown, so that it is on average over draws
        what it is of the whole bag (Horvitz and Thompson, JASA 47, 1952).
        """
        features = self.features(batch)
        present = batch["present"]
        outputs: Tensor = self.aggregator(features, present)
        if isinstance(self.aggregator, BcosGatedSum):
            bias = self.aggregator.logits.bias.to(outputs.dtype)
            share = batch["count"].to(outputs.dtype) / present.sum(1)
            outputs = bias + (outputs - bias) * share[:, None]
        return features, outputs
