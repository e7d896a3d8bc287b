"""Attention as explanation: what is read from, or done to, a vision transformer's tokens.

All give a value per patch. Between the middles of patches it is interpolated, as the methods'
authors do, or left as it is (``upsampling="nearest"``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from bcos_vit.attribution.attention_matrices import Edit, Transformer, Upsampling
from bcos_vit.attribution.attribution import Attribution, Unit
from bcos_vit.attribution.checks import check_batch, check_logits, target_logit, undisturbed
from bcos_vit.attribution.classifier import Classifier
from bcos_vit.attribution.masking import check_counts
from bcos_vit.attribution.registry import register
from bcos_vit.attribution.settings import one_of
from bcos_vit.layers.mode import outside_explanations

Heads = Literal["mean", "max", "min"]
Suppressed = Literal["scores", "weights"]


@register
@dataclass(frozen=True)
class Rollout:
    """Attention rollout: where the tokens that the head reads look, through all blocks.

    ``A = A_L ... A_1`` of each block's ``residual I + (1 - residual) mean over heads``, rows made
    to sum to one. It is the same for every class.

    Args:
        residual: share of a token that goes past attention.
        heads: how heads become one.
        upsampling: of patches to pixels.

    Raises:
        ValueError: a residual outside [0, 1), an unknown choice.

    Source:
        Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020
        (arXiv:2005.00928), section 3.
    """

    residual: float = 0.5
    heads: Heads = "mean"
    upsampling: Upsampling = "bilinear"
    name: ClassVar[str] = "rollout"
    is_signed: ClassVar[bool] = False
    unit: ClassVar[Unit] = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.residual < 1:
            raise ValueError(f"residual must be in [0, 1), got {self.residual}")
        one_of("heads", self.heads, get_args(Heads))
        one_of("upsampling", self.upsampling, get_args(Upsampling))

    def check(self, classifier: Classifier) -> None:
        """Refuse all but plain vision transformers in eval mode."""
        Transformer.of(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        """See :class:`bcos_vit.attribution.Method`."""
        transformer = Transformer.of(self.name, classifier)
        check_batch(images, target)
        transformer.grid(images)
        with undisturbed(images), outside_explanations(), torch.no_grad():
            x = classifier.encode(images)
            logits, matrices = transformer.run(self.name, x, keep=True)
            check_logits(logits, target)
            looks = self._product(matrices)[:, transformer.pooled].mean(1)
        return Attribution(
            transformer.spread(looks[:, transformer.prefix :], images, self.upsampling),
            target,
            logits,
            forward_passes=1,
        )

    def _product(self, matrices: Sequence[Tensor]) -> Tensor:
        """``(n, N, N)``: from which token of the input each of the output is."""
        flow = torch.eye(matrices[0].shape[-1]).to(matrices[0])
        for matrix in matrices:
            one = matrix.mean(1) if self.heads == "mean" else getattr(matrix, f"a{self.heads}")(1)
            step = (1 - self.residual) * one
            step.diagonal(dim1=1, dim2=2).add_(self.residual)
            flow = step / step.sum(-1, keepdim=True) @ flow
        return flow


@register
@dataclass(frozen=True)
class Chefer:
    """Transformer attribution: attention that the class's logit rises with, through all blocks.

    ``R = I`` at the input, ``R <- R + mean over heads of (A * dlogit/dA)+ R`` in each block, and
    the rows of the tokens that the head reads. What a token keeps of itself, ``I``, says nothing of
    the image and is taken off.

    This is the rule for self-attention of the authors' second paper. Their first has relevances of
    LRP in place of ``A``, which are not defined for most networks here.

    Args:
        upsampling: of patches to pixels.

    Raises:
        ValueError: an unknown choice.

    Source:
        Chefer, Gur and Wolf, "Generic Attention-model Explainability", ICCV 2021
        (arXiv:2103.15679), eq. 5 and 6; after "Transformer Interpretability Beyond Attention
        Visualization", CVPR 2021 (arXiv:2012.09838).
    """

    upsampling: Upsampling = "bilinear"
    name: ClassVar[str] = "chefer"
    is_signed: ClassVar[bool] = False
    unit: ClassVar[Unit] = "none"

    def __post_init__(self) -> None:
        one_of("upsampling", self.upsampling, get_args(Upsampling))

    def check(self, classifier: Classifier) -> None:
        """Refuse all but plain vision transformers in eval mode."""
        Transformer.of(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        """See :class:`bcos_vit.attribution.Method`."""
        transformer = Transformer.of(self.name, classifier)
        check_batch(images, target)
        transformer.grid(images)
        with undisturbed(images), outside_explanations():
            with torch.no_grad():
                x = classifier.encode(images)
            logits, matrices = transformer.run(self.name, x, keep=True)
            slopes = torch.autograd.grad(target_logit(logits, target).sum(), matrices)
        with torch.no_grad():
            identity = torch.eye(matrices[0].shape[-1]).to(matrices[0])
            relevance = identity.expand(len(images), -1, -1)
            for matrix, slope in zip(matrices, slopes, strict=True):
                relevance = relevance + (matrix * slope).clamp_min(0).mean(1) @ relevance
            rows = (relevance - identity)[:, transformer.pooled].mean(1)
        return Attribution(
            transformer.spread(rows[:, transformer.prefix :], images, self.upsampling),
            target,
            logits.detach(),
            forward_passes=1,
            backward_passes=1,
        )


@register
@dataclass(frozen=True)
class Atman:
    """AtMan: how much the logit drops when attention to a token is suppressed in all blocks.

    Args:
        factor: how much is suppressed: 0 nothing, 1 all.
        suppressed: what is multiplied by ``1 - factor``. ``"scores"`` are those before the softmax,
            counted from the least of their query as the authors' code does: of negative scores the
            formula as printed would raise attention. ``"weights"`` are what the softmax makes of
            them, and share their loss among the others; at a factor of 1 the token is masked.
        similarity: also suppress tokens whose embedding has at least this cosine with the token's,
            by ``factor`` times the cosine; none when omitted.
        upsampling: of patches to pixels.
        batch_size: images through the network at once.

    Raises:
        TypeError, ValueError: a factor or similarity out of range, an unknown choice.

    Source:
        Deiseroth et al., "AtMan: Understanding Transformer Predictions Through Memory Efficient
        Attention Manipulation", NeurIPS 2023 (arXiv:2301.08110), with the drop in logits.
    """

    factor: float = 0.9
    suppressed: Suppressed = "scores"
    similarity: float | None = None
    upsampling: Upsampling = "bilinear"
    batch_size: int = 64
    name: ClassVar[str] = "atman"
    version: ClassVar[int] = 2  # 1 multiplied negative scores, too
    is_signed: ClassVar[bool] = True
    unit: ClassVar[Unit] = "none"

    def __post_init__(self) -> None:
        check_counts(batch_size=self.batch_size)
        if not 0 < self.factor <= 1:
            raise ValueError(f"factor must be in (0, 1], got {self.factor}")
        if self.similarity is not None and not 0 < self.similarity <= 1:
            raise ValueError(f"similarity must be in (0, 1], got {self.similarity}")
        one_of("suppressed", self.suppressed, get_args(Suppressed))
        one_of("upsampling", self.upsampling, get_args(Upsampling))

    def check(self, classifier: Classifier) -> None:
        """Refuse all but plain vision transformers in eval mode."""
        Transformer.of(self.name, classifier)

    def __call__(self, classifier: Classifier, images: Tensor, target: Tensor) -> Attribution:
        """See :class:`bcos_vit.attribution.Method`."""
        transformer = Transformer.of(self.name, classifier)
        check_batch(images, target)
        patches = math.prod(transformer.grid(images))
        with undisturbed(images), outside_explanations(), torch.no_grad():
            x = classifier.encode(images)
            logits, embedded = self._as_they_are(transformer, x)
            before = target_logit(logits, target).double()
            drops = before[:, None].repeat(1, patches)
            for i, label in enumerate(target.tolist()):
                rates = self._rates(embedded[i])
                for start in range(0, patches, self.batch_size):
                    some = rates[start : start + self.batch_size]
                    same = x[i : i + 1].expand(len(some), -1, -1, -1)
                    after, _ = transformer.run(
                        self.name, same, self._edit(some, transformer.prefix)
                    )
                    drops[i, start : start + len(some)] -= after[:, label].double()
        return Attribution(
            transformer.spread(drops, images, self.upsampling),
            target,
            logits,
            forward_passes=patches + 1,
        )

    def _as_they_are(self, transformer: Transformer, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and patches ``(n, patches, dim)`` as the first block gets them."""
        embedded = []
        first = transformer.model.get_submodule("blocks.0")
        hook = first.register_forward_pre_hook(lambda _, args: embedded.append(args[0]))
        try:
            logits = [transformer.run(self.name, some)[0] for some in x.split(self.batch_size)]
        finally:
            hook.remove()
        return torch.cat(logits), torch.cat(embedded)[:, transformer.prefix :]

    def _rates(self, embedded: Tensor) -> Tensor:
        """By how much each patch is suppressed when one is meant, ``(patches, patches)``."""
        alone = torch.eye(len(embedded)).to(embedded)
        if self.similarity is None:
            return self.factor * alone
        unit = torch.nn.functional.normalize(embedded, dim=1)
        alike = (unit @ unit.T).clamp(max=1)
        # Of itself a token's cosine is 1, which rounding must not cut off.
        return self.factor * torch.where(alike >= self.similarity, alike, 0).maximum(alone)

    def _edit(self, rates: Tensor, prefix: int) -> Edit:
        """What suppresses patches by ``rates`` ``(k, patches)``, one row per image."""
        left = torch.nn.functional.pad(1 - rates, (prefix, 0), value=1.0)[:, None, None]
        if self.suppressed == "scores":
            return lambda scores: (scores - scores.amin(-1, keepdim=True)) * left
        return lambda scores: scores + left.log()
