"""What B-cos backbones share of timm's model contract."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.encodings import check_encoding
from bcos_vit.errors import BcosError, WeightsError
from bcos_vit.layers import (
    BcosConv2d,
    BcosLinear,
    ConstantTokens,
    LayerKit,
    LearnedPosition,
    Logits,
    is_explaining,
)
from bcos_vit.layers.bias import set_bias_share
from bcos_vit.layers.cut import Cut
from bcos_vit.layers.head import check_num_classes
from bcos_vit.layers.norm import norm_parameters
from bcos_vit.layers.scale import check_exponent


class BcosModel(nn.Module):
    """A backbone with a B-cos classifier, a logit bias and a temperature.

    A family sets ``classifier_name``, and writes ``forward_features`` and ``forward_head``.

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
    pretrained_cfg: dict[str, Any]
    """timm's data config; set where a model is made by name."""
    stage: tuple[float, float]
    """Exponent and share of biases of a conventional network, see :meth:`set_homotopy`."""
    homotopy: Tensor
    """The same, as it is stored with the weights."""
    classifier_name: ClassVar[str]
    """Attribute of the classifier, its name as in the conventional twin."""
    global_pools: tuple[str, ...] = ("avg", "")
    """Ways to pool that the model knows."""
    global_pool: str
    feature_info: Sequence[Mapping[str, Any]] = ()
    """timm's list of layers through whose output everything flows, from the finest map on."""
    output_fmt: Literal["NCHW", "NHWC"] = "NCHW"
    """How those maps lie."""

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
        if kit.conventional:
            self.stage = (float(kit.b), 1.0)
            self.register_buffer("homotopy", torch.tensor(self.stage))
            self.register_state_dict_pre_hook(_store_homotopy)
            self.register_load_state_dict_post_hook(_restore_homotopy)

    def set_homotopy(self, b: float, bias_share: float) -> None:
        """Set where a conventional network stands on its way to a B-cos network.

        It is stored with the weights. An average of weights is a network of its own, which has to
        be set, too.

        Args:
            b: exponent of every B-cos layer, at least 1.
            bias_share: share of every bias that is added, in [0, 1].

        Raises:
            ValueError: a value out of range, or a network without biases to begin with.
        """
        if not self.kit.conventional:
            raise ValueError("only a network made with conventional=True has a way to go")
        if not (0 <= bias_share <= 1 and math.isfinite(b)):
            raise ValueError(f"bias_share must be in [0, 1] and b finite, got {bias_share} and {b}")
        # As they will be read back: float32 is what is stored.
        values = torch.tensor([check_exponent(b), bias_share], dtype=torch.float32, device="cpu")
        self.homotopy.copy_(values)
        b, bias_share = values.tolist()
        self.stage = (b, bias_share)
        module: Any
        for module in self.modules():
            if isinstance(module, BcosLinear | BcosConv2d):
                module.b = b
            if hasattr(module, "bias_share"):
                set_bias_share(module, bias_share)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """A new B-cos layer from pooled features to evidence."""
        return self.kit.linear(self.head_hidden_size, num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head; its logit bias follows the class count unless one was given.

        Raises:
            ValueError: a way to pool that the model does not know, or that goes with no classes;
                nothing is changed then.
        """
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in self.global_pools:
            raise ValueError(f"global_pool must be in {self.global_pools}, got {pool!r}")
        if check_num_classes(num_classes) and not pool:
            raise ValueError('global_pool="" leaves features unpooled; it goes with num_classes=0')
        self.num_classes, self.global_pool = num_classes, pool
        classifier = self.make_classifier(num_classes) if num_classes else nn.Identity()
        setattr(self, self.classifier_name, classifier)
        self.logits: nn.Module = nn.Identity()
        if num_classes:
            self.logits = Logits(num_classes, self.logit_bias, self.temperature)
        if self.kit.conventional:
            self.set_homotopy(*self.stage)

    def get_classifier(self) -> nn.Module:
        return self.get_submodule(self.classifier_name)

    @torch.jit.ignore
    def layer_cuts(self) -> list[Cut]:
        """Layers through whose output everything flows, from the finest map to what is pooled."""
        return [Cut(info["module"], self.output_fmt) for info in self.feature_info]

    @torch.jit.ignore
    def cuts(self) -> dict[str, Cut]:
        """Where the network can be cut in two, by depth."""
        cuts = {cut.module: cut for cut in self.layer_cuts()}
        if cuts:  # what is pooled has the same name in every network
            cuts["head"] = cuts.popitem()[1]
        return cuts

    @torch.jit.ignore
    def depths(self) -> tuple[str, ...]:
        """Where an explanation can stop, see :func:`bcos_vit.explain.explain`.

        ``"pixels"`` first, then names of layers, each with a coarser map or nearer the head than
        the one before, then ``"head"``: the last map before pooling.
        """
        return ("pixels", *self.cuts())

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Norm scales, position codes and learnt tokens, as timm; not the weights of layers."""
        codes = {
            f"{name}.code"
            for name, module in self.named_modules()
            if isinstance(module, LearnedPosition | ConstantTokens)
        }
        return norm_parameters(self) | codes

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass rather than keep them.

        Batch norms then meet each batch twice, as torch's own do: gradients are the same, running
        averages move on by two steps.
        """
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


def _store_homotopy(model: BcosModel, *_: object) -> None:
    """Before weights are stored: what is computed, whatever an average made of the buffer."""
    model.homotopy.copy_(torch.tensor(model.stage))


def _restore_homotopy(model: BcosModel, _: object) -> None:
    """After loading weights, give every layer the exponent and share of bias that came along."""
    model.set_homotopy(*model.homotopy.tolist())


class BcosConvNet(BcosModel):
    """A backbone whose logits are means of local logits: 1 x 1 classifier, then average pooling.

    A family writes ``forward_features``, sets ``min_size_px`` where pooling without padding needs
    it, and makes ``head_drop`` after its last layer with a feature map.
    """

    head_drop: nn.Module
    """Dropout of what the classifier sees."""
    min_size_px: int = 1
    """Least height and width of an image."""
    local_logits: bool = True
    """Whether the classifier comes before pooling."""

    def make_classifier(self, num_classes: int) -> nn.Module:
        """A new B-cos layer from a feature map to local evidence."""
        return self.kit.conv(self.head_hidden_size, num_classes, 1)

    @torch.jit.ignore
    def cuts(self) -> dict[str, Cut]:
        """Where the network can be cut in two, by depth; the head is what gives local logits."""
        if not (self.num_classes and self.local_logits):
            return super().cuts()
        cuts = {cut.module: cut for cut in self.layer_cuts()}
        return cuts | {"head": Cut(self.classifier_name, "local logits")}

    def neck(self, x: Tensor) -> Tensor:
        """Feature map to what the classifier sees; a family with layers between says which."""
        return x

    def local_evidence(self, x: Tensor) -> Tensor:
        """Feature map to ``(batch, num_classes, rows, columns)``, whose mean is the evidence."""
        y: Tensor = self.get_classifier()(self.head_drop(self.neck(x)))
        return y

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature map to logits ``(batch, num_classes)``, or to pooled features."""
        if pre_logits or not self.num_classes:
            x = self.neck(x)
            return F.adaptive_avg_pool2d(x, 1).flatten(1) if self.global_pool else x
        y: Tensor = self.logits(self.local_evidence(x).mean((2, 3)))
        return y

    def check_size(self, x: Tensor) -> None:
        """Refuse images of which no feature map would be left.

        Raises:
            ValueError: a side is shorter than ``min_size_px``.
        """
        height, width = x.shape[-2:]
        if height < self.min_size_px or width < self.min_size_px:
            raise ValueError(
                f"images must be at least {self.min_size_px} px high and wide for this network,"
                f" got {height} x {width}"
            )


def fit(
    model: BcosModel,
    tensors: Mapping[str, Tensor],
    what: str,
    error: type[BcosError] = WeightsError,
) -> None:
    """Load ``tensors`` into ``model``: all of them, and all that it has but what only ours store.

    Args:
        model: changed in place.
        tensors: by our names, in our shapes.
        what: they are, for the message.
        error: to raise.

    Raises:
        WeightsError: or ``error``, naming the first tensor that does not fit.
    """
    own = ("logits.", "homotopy")
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith(own)}
    for problem, keys in (
        ("lacks {}", [k for k in wanted if k not in tensors]),
        ("holds {}, for which the model has no place", [k for k in tensors if k not in wanted]),
        (
            "holds {} in another shape than the model's",
            [k for k, v in wanted.items() if k in tensors and tensors[k].shape != v.shape],
        ),
    ):
        if keys:
            others = f" and {len(keys) - 1} more tensors" if len(keys) > 1 else ""
            raise error(f"{what} {problem.format(repr(keys[0]) + others)}")
    model.load_state_dict(dict(tensors), strict=False)
