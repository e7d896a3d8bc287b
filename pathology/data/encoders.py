"""Encoders: what makes a row of features of each tile.

One comes from timm's registry, with weights of your own file, of timm, or random; or from a
function of yours. A trained run's model is one as well, see :mod:`pathology.tasks.encoder`.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import timm
import torch
import torch.nn.functional as F
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
    resolve_model_data_config,
)
from timm.models import load_state_dict
from torch import Tensor, nn

from bcos_vit.encodings import check_encoding
from bcos_vit.errors import BcosError, WeightsError
from bcos_vit.layers.cut import Cut
from bcos_vit.models import create_model
from bcos_vit.models.own_modules import import_own_module
from bcos_vit.transforms import encode, to_unit_range
from pathology.errors import StampMismatchError

Precision = Literal["fp32", "fp16", "bf16"]
Pixels = Literal["imagenet", "half", "clip", "model"]
MEAN_STD = {
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "half": (IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD),
    "clip": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
}
_AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}
HUB = ("hf-hub:", "hf_hub:", "local-dir:")


@dataclass(frozen=True, eq=False)
class Encoder:
    """Tiles in, features out.

    Args:
        name: what it is called.
        module: the transformed tiles to ``(n, dims)``; in eval mode, on its device.
        transform: uint8 ``(n, 3, height, width)`` on the same device to the module's input.
        dims: numbers per tile.
        weights: hash of its weights.
        encoding: what ``transform`` does, in words: part of what decides the features.
        size_px: side that tiles must have; ``None`` for any.
    """

    name: str
    module: nn.Module
    transform: Callable[[Tensor], Tensor]
    dims: int
    weights: str
    encoding: str
    size_px: int | None = None

    def __call__(self, tiles: Tensor, precision: Precision = "fp32") -> Tensor:
        """Features ``(n, dims)``, float32, of uint8 tiles ``(n, 3, height, width)``.

        Args:
            tiles: on the encoder's device.
            precision: fp16 and bf16 compute in autocast: matrix products in half precision.

        Raises:
            ValueError: the encoder cannot take such tiles, makes something else of them than it
                said, or the device has too little memory for so many.
        """
        try:
            with torch.inference_mode(), _autocast(tiles.device, precision):
                features: Tensor = self.module(self.transform(tiles))
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"{len(tiles)} tiles do not fit into the memory of {tiles.device} at once; give a"
                " smaller --batch-size"
            ) from error
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:
            raise ValueError(
                f"encoder {self.name} failed on tiles of shape {tuple(tiles.shape)}:"
                f" {_first_line(error)}"
            ) from error
        wanted = (len(tiles), self.dims)
        if not isinstance(features, Tensor) or features.shape != wanted:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"encoder {self.name} returns {got}, wanted a tensor {wanted}")
        return features.float()

    def check_size(self, size_px: int, where: object) -> None:
        """Refuse tiles of another size than the encoder takes.

        Raises:
            StampMismatchError: naming both.
        """
        if self.size_px not in (None, size_px):
            raise StampMismatchError(
                f"{where}: tiles of {size_px} px, {self.name} takes {self.size_px} px; tile the"
                " slides again, or resize tiles: --resize"
            )


class PooledFeatures(nn.Module):
    """What a model of timm's contract pools, before its classifier.

    Args:
        model: has ``forward_features`` and ``forward_head``.
    """

    dynamic_linear = True  # where the model is

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def cuts(self) -> dict[str, Cut]:
        """Where explanations of features can stop: where the model's own can."""
        cuts: dict[str, Cut] = getattr(self.model, "cuts", dict)()
        return {
            depth: replace(cut, module=f"model.{cut.module}")
            for depth, cut in cuts.items()
            if cut.layout != "local logits"  # behind what is pooled
        }

    @property
    def dims(self) -> int:
        """Numbers per image, as the model says."""
        size = getattr(self.model, "head_hidden_size", None) or self.model.num_features
        return int(size)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Encoded images to ``(n, dims)``."""
        model: Any = self.model
        features: Tensor = model.forward_head(model.forward_features(images), pre_logits=True)
        return features


class Normalisation(nn.Module):
    """uint8 tiles to normalised RGB: ``(tiles / 255 - mean) / std``.

    Args:
        mean: of each channel, for values in [0, 1].
        std: likewise.
        size_px: side to resize tiles to before, antialiased; they keep theirs when omitted.
        interpolation: of resizing, bicubic or bilinear.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        size_px: int | None = None,
        interpolation: str = "bicubic",
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.size_px, self.interpolation = size_px, interpolation

    def forward(self, tiles: Tensor) -> Tensor:
        """``(n, 3, height, width)``, uint8 or in [0, 1], to float32."""
        light = resized(to_unit_range(tiles), self.size_px, self.interpolation)
        return (light - self.mean) / self.std

    def __str__(self) -> str:
        mean, std = (" ".join(f"{x:g}" for x in v.flatten()) for v in (self.mean, self.std))
        return f"rgb, mean {mean}, std {std}{_resizing(self.size_px, self.interpolation)}"


def resized(light: Tensor, size_px: int | None, interpolation: str = "bicubic") -> Tensor:
    """Images in [0, 1] of another side; bicubic overshoots are cut."""
    if size_px is None or light.shape[-1] == size_px:
        return light
    size = (size_px, size_px)
    return F.interpolate(light, size, mode=interpolation, antialias=True).clamp(0, 1)


class _BcosInput(nn.Module):
    """The channels of a B-cos model by its encoding."""

    def __init__(self, encoding: str, size_px: int | None, interpolation: str) -> None:
        super().__init__()
        self.encoding, self.size_px, self.interpolation = encoding, size_px, interpolation

    def forward(self, tiles: Tensor) -> Tensor:
        return encode(
            resized(to_unit_range(tiles), self.size_px, self.interpolation), self.encoding
        )

    def __str__(self) -> str:
        return self.encoding + _resizing(self.size_px, self.interpolation)


def _resizing(size_px: int | None, interpolation: str) -> str:
    return "" if size_px is None else f", resized to {size_px} px ({interpolation})"


def timm_encoder(
    name: str,
    weights: str | Path | None = None,
    pretrained: bool = False,
    seed: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    resize: bool = False,
    pixels: Pixels | None = None,
    device: torch.device | str = "cpu",
) -> Encoder:
    """A model of timm's registry (ours are in it) or of the Hugging Face hub, without classifier.

    Args:
        name: e.g. ``resnet50.a1_in1k`` or ``hf-hub:owner/name``.
        weights: file to load, ``.safetensors``, ``.pth`` or ``.bin``: all that the model has,
            and nothing else but a classifier.
        pretrained: download timm's own weights of that name.
        seed: make random weights instead; exactly one of these three is given.
        arguments: further ones of ``timm.create_model``.
        resize: resize tiles to the model's size, rather than refuse those of another.
        pixels: which mean and deviation RGB is normalised by: ``imagenet``, ``half`` (0.5 both),
            ``clip``, or ``model``, those that go with the name. A file does not say what its
            weights were trained with, and often it is not what goes with the name: for an RGB
            model with ``weights`` it has to be said.
        device: where it computes.

    Raises:
        ValueError: not exactly one kind of weights, an argument that the model does not take, or
            a device that there is not.
        UnknownModelError: no such model.
        WeightsError: the weights do not fit, cannot be read or not be downloaded.
    """
    given = [weights is not None, pretrained, seed is not None]
    if sum(given) != 1:
        raise ValueError(
            f"encoder {name}: say where its weights are from, one of --weights FILE, --pretrained,"
            f" or --encoder-seed N (random: a control); got {sum(given)} of them"
        )
    if seed is not None and not 0 <= seed < 2**63:
        raise ValueError(f"--encoder-seed must be from 0 to 2^63 - 1, got {seed}")
    model = _model(name, pretrained, seed or 0, dict(arguments or {}))
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        raise ValueError(
            f"encoder {name} has no forward_features and forward_head to take features from: it is"
            f" a {type(model).__name__}"
        )
    digest = tensors_digest(model) if weights is None else load_weights(model, weights)
    config = resolve_model_data_config(model)
    side = _side(name, (arguments or {}).get("img_size", config["input_size"][-2:]))
    pooled = _fixed(PooledFeatures(model), device)
    if pixels is None:
        pixels = None if weights is not None else "model"
    made = _transform(name, model, config, side if resize else None, pixels)
    transform = _fixed(made, device)
    details = "".join(f", {key}={value}" for key, value in sorted((arguments or {}).items()))
    if seed is not None:
        details += f", random weights of seed {seed}"
    return Encoder(
        name + details, pooled, transform, pooled.dims, digest, str(transform),
        None if resize else side,
    )  # fmt: skip


def _side(name: str, size: Any) -> int:
    """The side of the images that a model takes."""
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise ValueError(f"encoder {name} takes images of {size} px, tiles are square")
    return int(sides.pop())


def _model(name: str, pretrained: bool, seed: int, arguments: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if name.startswith(HUB):
                # The hub is asked for a model's configuration even where its weights are at hand.
                return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
            return create_model(name, pretrained=pretrained, num_classes=0, **arguments)
        except (BcosError, ImportError):
            raise
        except TypeError as error:
            raise ValueError(f"--encoder-args of {name}: {_first_line(error)}") from error
        # Whatever a hub's client and its many layers raise: no network, no access, no such name.
        except Exception as error:
            if not (pretrained or name.startswith(HUB)):  # nobody was asked
                raise ValueError(
                    f"--encoder-args of {name}: {type(error).__name__}: {_first_line(error)}"
                ) from error
            raise WeightsError(
                f"encoder {name} cannot be had: {type(error).__name__}: {_first_line(error)};"
                " without a network give a timm name with --weights FILE"
            ) from error


def _transform(
    name: str,
    model: nn.Module,
    config: Mapping[str, Any],
    size_px: int | None,
    pixels: Pixels | None,
) -> "Normalisation | _BcosInput":
    chans = int(config["input_size"][0])
    interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
    encoding = check_encoding(getattr(model, "encoding", None), chans)
    if encoding is None:
        raise ValueError(f"tiles fit models of 3 or 6 channels; got {chans}")
    if encoding != "rgb":
        if pixels not in (None, "model"):
            raise ValueError(f"--pixels is for RGB; encoder {name} takes {encoding}")
        return _BcosInput(encoding, size_px, interpolation)
    if pixels is None:
        raise ValueError(
            f"encoder {name}: a file does not say how pixels were normalised for its weights; give"
            " --pixels imagenet, half, clip, or model for what goes with the name"
        )
    mean, std = MEAN_STD.get(pixels, (config["mean"][:3], config["std"][:3]))
    return Normalisation(tuple(mean), tuple(std), size_px, interpolation)


def load_weights(model: nn.Module, path: str | Path) -> str:
    """Load a file into ``model``, strictly; returns the file's SHA-256.

    A classifier's weights are passed over where the model has none. Of a checkpoint of timm's
    training that holds averaged weights, these are taken, as timm does.

    Raises:
        WeightsError: the file cannot be read, lacks a tensor, or holds one that does not fit.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        tensors: dict[str, Tensor] = dict(load_state_dict(str(path)))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    # What unpickling may raise, of bytes that are anything.
    except Exception as error:
        raise WeightsError(f"{path}: not a file of weights: {_first_line(error)}") from error
    classifier = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    own = model.state_dict()
    spare = {
        key for key in tensors if key not in own and key.rpartition(".")[0] in (*names, "logits")
    }
    tensors = {key: value for key, value in tensors.items() if key not in spare}
    misfits = [
        *(f"lacks {key!r}" for key in own if key not in tensors),
        *(f"holds {key!r}, which the model has not" for key in tensors if key not in own),
        *(
            f"holds {key!r} of shape {tuple(tensors[key].shape)}, wanted {tuple(own[key].shape)}"
            for key in own
            if key in tensors and tensors[key].shape != own[key].shape
        ),
    ]
    if misfits:
        more = f", and {len(misfits) - 1} more tensors do not fit" if len(misfits) > 1 else ""
        raise WeightsError(
            f"{path}: {misfits[0]}{more}; give the name, and --encoder-args, of its own model"
        )
    model.load_state_dict(tensors)
    return digest


def callable_encoder(name: str, device: torch.device | str = "cpu") -> Encoder:
    """What a function of the user's returns: ``package.module:function``, without arguments.

    The object has these attributes:

    * ``module``: ``nn.Module``, what ``transform`` returns to ``(n, dims)``;
    * ``transform``: uint8 ``(n, 3, height, width)`` on the module's device to its input; an
      ``nn.Module``, such as :class:`Normalisation`, is moved to that device;
    * ``name``: what the encoder is called;
    * ``dims``: numbers per tile;
    * ``size_px``: side that tiles must have; may be left out where any will do.

    Its weights are hashed, and so is the file that the function is in, since nobody else can say
    what the transform does: features of another version of either are refused.

    Raises:
        ValueError: it cannot be imported, or returns something else.
    """
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(import_own_module(module_name), function_name)
        source = Path(inspect.getfile(inspect.unwrap(function))).read_bytes()
        made = function()
    except BcosError:
        raise
    # The function's own errors, too: it is the user's.
    except Exception as error:
        raise ValueError(
            f"encoder {name}: {type(error).__name__}: {_first_line(error)}; wanted"
            " package.module:function (pathology --traceback ... shows where)"
        ) from error
    for attribute in ("module", "transform", "name", "dims"):
        if not hasattr(made, attribute):
            raise ValueError(f"encoder {name}: what it returns has no attribute {attribute!r}")
    module, transform = made.module, made.transform
    if not isinstance(module, nn.Module) or not callable(transform):
        raise ValueError(f"encoder {name}: module must be an nn.Module, transform callable")
    if isinstance(transform, nn.Module):
        transform = _fixed(transform, device)
    encoding = f"{name}, source {hashlib.sha256(source).hexdigest()[:16]}"
    if isinstance(transform, Normalisation):  # it may have its numbers from elsewhere
        encoding += f", {transform}"
    elif isinstance(transform, nn.Module):
        encoding += f", transform {tensors_digest(transform)[:16]}"
    digest = tensors_digest(module)
    size_px = getattr(made, "size_px", None)
    return Encoder(
        str(made.name), _fixed(module, device), transform, int(made.dims), digest, encoding, size_px
    )


def encoder_named(
    name: str,
    weights: str | Path | None = None,
    pretrained: bool = False,
    seed: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    resize: bool = False,
    pixels: Pixels | None = None,
    device: torch.device | str = "cpu",
) -> Encoder:
    """An encoder by name: ``package.module:function``, or as :func:`timm_encoder` has it.

    Raises:
        ValueError, UnknownModelError, WeightsError: see :func:`timm_encoder` and
            :func:`callable_encoder`.
    """
    if ":" not in name or name.startswith(HUB):
        return timm_encoder(name, weights, pretrained, seed, arguments, resize, pixels, device)
    if weights or pretrained or seed is not None or arguments or resize or pixels:
        raise ValueError(
            f"encoder {name} is made by a function, which has its weights and size itself; leave"
            " out --weights, --pretrained, --encoder-seed, --encoder-args, --resize and --pixels"
        )
    return callable_encoder(name, device)


def tensors_digest(module: nn.Module) -> str:
    """SHA-256 of a module's weights: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor):  # extra state
            digest.update(f"{key} {value!r}".encode())
            continue
        array = value.detach().cpu().contiguous()
        digest.update(f"{key} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pick_device(name: str) -> torch.device:
    """The device of this name; ``auto`` is the GPU where there is one.

    Its float32 is float32: TF32, which rounds to three digits, is turned off.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used: {_first_line(error)}") from error
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    return device


def check_precision(precision: str) -> None:
    """Refuse what is no precision.

    Raises:
        ValueError: naming those there are.
    """
    if precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise ValueError(f"precision must be one of {known}; got {precision!r}")


M = TypeVar("M", bound=nn.Module)


def _fixed(module: M, device: torch.device | str) -> M:
    """In eval mode, on its device, without gradients."""
    return module.eval().requires_grad_(False).to(device)


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, _AUTOCAST[precision])


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
