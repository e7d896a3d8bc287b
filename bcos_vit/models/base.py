"""What B-cos backbones share of timm's model contract."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bcos_vit.encodings import check_encoding
from bcos_vit.layers import LayerKit, Logits, is_explaining
from bcos_vit.layers.head import check_num_classes
from bcos_vit.layers.norm import norm_parameters


class BcosModel(nn.Module):
    """A backbone with a B-cos classifier, a logit bias and a temperature.

    A family sets ``classifier_name``, and writes ``make_classifier``, ``forward_features`` and
    ``forward_head``.

    Args:
        in_chans: channels of the input.
        num_features: size of what the classifier sees.
        kit: what layers are made of.
        logit_bias, temperature: see :class:`bcos_vit.layers.Logits`; a conventional network has no
            logit bias unless one is given.
        encoding: how pixels become the input's channels, see :mod:`bcos_vit.encodings`; the
            complement for six channels, plain RGB for three, when omitted.

    Raises:
        ValueError: an encoding that is unknown or of another number of channels.
    """

    dynamic_linear = True
    classifier_name: ClassVar[str]
    """Attribute of the classifier, its name as in the conventional twin."""
    global_pools: ClassVar[tuple[str, ...]] = ("avg", "")
    """Ways to pool that the family knows."""

    def __init__(
        self,
        in_chans: int,
        num_features: int,
        kit: LayerKit,
        logit_bias: float | None,
        temperature: float,
        encoding: str | None = None,
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.encoding = check_encoding(encoding, in_chans)
        self.num_features = self.head_hidden_size = num_features
        self.kit = kit
        if logit_bias is None and kit.conventional:
            logit_bias = 0.0
        self.logit_bias, self.temperature = logit_bias, temperature
        self.grad_checkpointing = False

    def make_classifier(self, num_classes: int) -> nn.Module:
        """A new B-cos layer from features to evidence."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head; its logit bias follows the class count unless one was given."""
        if global_pool is not None:
            if global_pool not in self.global_pools:
                raise ValueError(f"global_pool must be in {self.global_pools}, got {global_pool!r}")
            self.global_pool = global_pool
        if num_classes and not self.global_pool:
            raise ValueError('global_pool="" leaves features unpooled; it goes with num_classes=0')
        self.num_classes = check_num_classes(num_classes)
        classifier = self.make_classifier(num_classes) if num_classes else nn.Identity()
        setattr(self, self.classifier_name, classifier)
        self.logits: nn.Module = nn.Identity()
        if num_classes:
            self.logits = Logits(num_classes, self.logit_bias, self.temperature)

    def get_classifier(self) -> nn.Module:
        return self.get_submodule(self.classifier_name)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Norm scales; directions of B-cos weights are unaffected by decay."""
        return norm_parameters(self)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    @property
    def recomputes(self) -> bool:
        """Whether activations are recomputed in the backward pass; never while explaining."""
        return self.grad_checkpointing and self.training and not is_explaining()

    def forward_features(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to unpooled features."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Unpooled features to logits ``(batch, num_classes)``, or to pooled features."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_chans, height, width)`` to logits ``(batch, num_classes)``."""
        return self.forward_head(self.forward_features(x))
