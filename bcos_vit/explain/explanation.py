"""Explanation: a logit taken apart into places and constants, with the gap it leaves."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Why one logit of each image is what it is: ``logit = bias + constants + sum(contributions)``.

    Tensors are fresh copies on the model's device. For a single image (no batch dimension given)
    every field lacks the leading ``batch``.

    Args:
        logits: ``(batch, classes)`` the model's output.
        target: ``(batch,)`` class explained.
        bias: ``(batch,)`` the constant logit bias of that class.
        constants: further terms that no pixel owns, by name, ``(batch,)`` each: ``"position"`` for
            an additive position code, ``"tokens"`` for a class token and registers, ``"biases"``
            for those inside a conventional network. Empty for exactly complete models. At a depth:
            those added behind it, and all that such tokens carry there.
        weights: ``(batch, channels, height, width)`` W(x), the effective linear map of the pixels;
            at a depth, of that layer's output in ``(batch, channels, rows, columns)``. Of local
            logits it has one channel, the class's own; of what is averaged it may be a view with
            the same memory for every place.
        contributions: ``(batch, height, width)`` W(x) * x summed over channels, in logits; at a
            depth ``(batch, rows, columns)``.
        depth: where it stops, ``"pixels"`` or one of the model's ``depths()``.
    """

    logits: Tensor
    target: Tensor
    bias: Tensor
    weights: Tensor
    contributions: Tensor
    constants: dict[str, Tensor] = field(default_factory=dict)
    depth: str = "pixels"

    @property
    def logit(self) -> Tensor:
        """The explained logit, ``(batch,)``."""
        return self.logits.gather(-1, self.target[..., None])[..., 0]

    @property
    def completeness_gap(self) -> Tensor:
        """``|bias + constants + sum of contributions - logit|``, in float64, ``(batch,)``."""
        total = self.bias.double() + self.contributions.double().sum((-2, -1))
        for term in self.constants.values():
            total = total + term.double()
        return (total - self.logit.double()).abs()

    def __len__(self) -> int:
        if self.target.ndim == 0:
            raise TypeError("this explanation is of a single image, it has no length")
        return len(self.target)

    def __getitem__(self, index: int) -> "Explanation":
        """The explanation of one image of the batch."""
        if self.target.ndim == 0:
            raise TypeError("this explanation is of a single image already")
        return Explanation(
            logits=self.logits[index],
            target=self.target[index],
            bias=self.bias[index],
            weights=self.weights[index],
            contributions=self.contributions[index],
            constants={name: term[index] for name, term in self.constants.items()},
            depth=self.depth,
        )

    def _repr_html_(self) -> str:
        from bcos_vit.explain.notebook import explanation_html

        return explanation_html(self)

    def save(self, path: str | Path) -> None:
        """Write all numbers to a compressed ``.npz``; complete or not at all."""
        path = Path(path)
        names = ("logits", "target", "bias", "weights", "contributions")
        tensors = {name: getattr(self, name) for name in names}
        tensors |= {f"constant:{name}": term for name, term in self.constants.items()}
        arrays = {
            # NumPy has no bfloat16; float32 holds each of its values.
            name: (t.float() if t.dtype == torch.bfloat16 else t).cpu().numpy()
            for name, t in tensors.items()
        }
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                np.savez_compressed(file, depth=np.array(self.depth), **arrays)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
