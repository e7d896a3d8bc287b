"""Published weights as data, and loading them: download, check, convert, fit to the model.

The files are those of B-cos v2 (Boehle et al., TPAMI 2024, arXiv:2306.10898); accuracies and the
resizing of images are the authors' own (README and transforms of B-cos/B-cos-v2, version 0.1.3).
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import PretrainedCfg, get_pretrained_cfg_value
from torch import Tensor

from bcos_vit.errors import WeightsError
from bcos_vit.models.base import BcosModel, fit

_RELEASE = "https://github.com/B-cos/B-cos-v2/releases/download/v0.0.1-weights"
_HASH_LENGTH = 10
_NUM_CLASSES = 1000
TERMS = (
    "Trained on ImageNet, whose terms allow non-commercial use only; whether the weights may serve"
    " your purpose is yours to find out."
)
"""What the licence of the files does not say."""


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """One published checkpoint.

    Args:
        model: our name of the architecture.
        tag: what tells it from other weights of the same architecture: the data, and ``_long`` for
            the recipe of 600 epochs.
        entry: the reference's name of it, as in :func:`bcos_vit.models.from_bcos_v2`.
        url: where the file is.
        sha256: how the SHA-256 of the file begins, in hexadecimal.
        top1: published accuracy on ImageNet's validation images, in %.
        resize: shorter side to which images are resized before the centre is cropped, in pixels.
        input_size: channels, height and width of the input.
        mean, std: of the normalisation of each channel, after values are in [0, 1].
        model_args: arguments of the architecture that differ from its defaults here.
        interpolation: of the resizing.
        license: of the files; :data:`TERMS` go with it.
        paper: where the network is described.
    """

    model: str
    tag: str
    entry: str
    url: str
    sha256: str
    top1: float
    resize: int = 256
    input_size: tuple[int, int, int] = (6, 224, 224)
    mean: tuple[float, ...] = (0.0,) * 6
    std: tuple[float, ...] = (1.0,) * 6
    model_args: dict[str, Any] = field(default_factory=dict)
    interpolation: str = "bilinear"
    license: str = "apache-2.0"
    paper: str = "arXiv:2306.10898"

    @property
    def name(self) -> str:
        """The model's name with the tag, as timm writes it."""
        return f"{self.model}.{self.tag}"

    @property
    def crop_pct(self) -> float:
        """Side of the crop over the side that images are resized to."""
        return self.input_size[1] / self.resize

    def data_config(self) -> dict[str, Any]:
        """Entries of timm's data config."""
        return {
            "url": self.url,
            "num_classes": _NUM_CLASSES,
            "input_size": self.input_size,
            "crop_pct": self.crop_pct,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
            "license": self.license,
            "notes": (TERMS,),
            "origin_url": "https://github.com/B-cos/B-cos-v2",
            "paper_ids": self.paper,
        }


def _cnn(entry: str, file: str, top1: float, long: bool = False) -> PublishedWeights:
    """A row for a convolutional network; ``long``: trained by the recipe of 600 epochs."""
    return PublishedWeights(
        model=f"bcos_{entry.removesuffix('_long')}",
        tag="in1k_long" if long else "in1k",
        entry=entry,
        url=f"{_RELEASE}/{file}.pth",
        sha256=file[-_HASH_LENGTH:],
        top1=top1,
        resize=232 if long else 256,
    )


def _vits(
    model: str, entry: str, *files: tuple[str, float], conventional: bool = False
) -> Iterator[PublishedWeights]:
    """Rows for the tiny, small, base and large ViT of a kind, from hash and accuracy of each."""
    facts: dict[str, Any] = {"model_args": {"pos_embed": "sincos", "init_values": 0.0}}
    if conventional:
        mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        facts = {"input_size": (3, 224, 224), "mean": mean, "std": std}
    sizes = (("tiny", "ti"), ("small", "s"), ("base", "b"), ("large_depth14", "l"))
    for (ours, theirs), (sha256, top1) in zip(sizes, files, strict=True):
        file = f"{'' if conventional else 'bcos_'}{entry.format(theirs)}-{sha256}"
        yield PublishedWeights(
            model=model.format(ours),
            tag="in1k",
            entry=entry.format(theirs),
            url=f"{_RELEASE}/{file}.pth",
            sha256=sha256,
            top1=top1,
            **facts,
        )


PUBLISHED: tuple[PublishedWeights, ...] = (
    _cnn("resnet18", "resnet_18-68b4160fff", 68.736),
    _cnn("resnet34", "resnet_34-a63425a03e", 72.284),
    _cnn("resnet50", "resnet_50-ead259efe4", 75.882),
    _cnn("resnet50_long", "resnet_50_long-ef38a88533", 79.468, long=True),
    _cnn("resnet101", "resnet_101-84c3658278", 76.532),
    _cnn("resnet152", "resnet_152-42051a77c1", 76.484),
    _cnn("resnet152_long", "resnet_152_long-0b4b434939", 80.144, long=True),
    _cnn("resnext50_32x4d", "resnext_50_32x4d-57af241ab9", 75.820),
    _cnn("densenet121", "densenet_121-b8daf96afb", 73.612),
    _cnn("densenet121_long", "densenet_121_long-5175461597", 77.302, long=True),
    _cnn("densenet161", "densenet_161-9e9ea51353", 76.622),
    _cnn("densenet169", "densenet_169-7037ee0604", 75.186),
    _cnn("densenet201", "densenet_201-00ac87066f", 75.480),
    _cnn("vgg11_bnu", "vgg_11_bnu-34036029f0", 69.310),
    _cnn("convnext_tiny", "convnext_tiny_pn-539b1bfb37", 77.488, long=True),
    _cnn("convnext_base", "convnext_base_pn-b0495852c6", 79.650, long=True),
    _cnn("convnext_tiny_bnu", "convnext_tiny_bnu-dbd7f5ef9d", 76.826, long=True),
    _cnn("convnext_base_bnu", "convnext_base_bnu-7c32a704b3", 80.142, long=True),
    *_vits(
        "bcos_vit_{}_patch16_224", "simple_vit_{}_patch16_224",
        ("4b0824b1c1", 59.960), ("75e99d1f73", 69.246), ("1fc4750806", 74.408),
        ("9613b2ad0a", 75.060),
    ),
    *_vits(
        "bcos_vitc_{}_patch16_224", "vitc_{}_patch1_14",
        ("ddd6193a77", 67.260), ("cf55c88f0c", 74.504), ("a13c46397b", 77.152),
        ("8739e18b8d", 77.782),
    ),
    *_vits(
        "simple_vit_{}_patch16_224", "standard_simple_vit_{}_patch16_224",
        ("2ae8c65a39", 70.230), ("f2934fcdcf", 74.470), ("87074200ed", 75.300),
        ("62dc536e03", 75.710), conventional=True,
    ),
    *_vits(
        "vitc_{}_patch16_224", "standard_vitc_{}_patch1_14",
        ("a5d6bded37", 72.590), ("34ecd7288e", 75.756), ("4d374b0220", 76.790),
        ("560e48f246", 77.866), conventional=True,
    ),
)  # fmt: skip
"""Every published checkpoint; the first of an architecture is its default."""


def published(
    model: str,
    config: str | Mapping[str, Any] | PretrainedCfg | None = None,
    overlay: Mapping[str, Any] | None = None,
) -> PublishedWeights:
    """The published weights of ``model``.

    Args:
        model: our name of the architecture.
        config: timm's ``pretrained_cfg``: a tag, or a whole config with one; the default when
            omitted.
        overlay: timm's ``pretrained_cfg_overlay``; its ``url`` may name a mirror of the file.

    Raises:
        WeightsError: there are none, none of that tag, or they should come from elsewhere.
        ValueError: a mirror that is no web address.
    """
    if config is None or isinstance(config, str):
        given: dict[str, Any] = {"tag": config}
    else:
        given = config.to_dict() if isinstance(config, PretrainedCfg) else dict(config)
    given |= overlay or {}
    for source in ("file", "state_dict", "hf_hub_id"):
        if given.get(source):
            raise WeightsError(
                f"pretrained weights of {model} cannot come from {source!r}; for other weights use"
                " pretrained=False and checkpoint_path="
            )
    rows = [weights for weights in PUBLISHED if weights.model == model]
    if not rows:
        raise WeightsError(f"{model} has no published weights; use pretrained=False and no tag")
    tag, url = given.get("tag"), given.get("url")
    if url and not url.startswith(("https://", "http://")):
        raise ValueError(f"url must begin with https:// or http://, got {url!r}")
    for weights in rows:
        if not tag or weights.tag == tag:
            return dataclasses.replace(weights, url=url or weights.url)
    known = ", ".join(weights.name for weights in rows)
    raise WeightsError(f"{model} has no weights with the tag {tag!r}; there are {known}")


def download(weights: PublishedWeights, cache_dir: str | Path | None = None) -> Path:
    """The file of published weights, from the cache or from the network into the cache.

    A download shows its progress on stderr, and gets its name only when it is complete.

    Args:
        weights: which.
        cache_dir: folder to look and store in; torch.hub's when omitted.

    Raises:
        WeightsError: it cannot be had, or is not the file that was published.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints" if cache_dir is None else Path(cache_dir)
    path = folder / weights.url.rpartition("/")[2]
    try:
        if path.exists():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if not digest.startswith(weights.sha256):
                raise WeightsError(
                    f"{path} is not the published file of {weights.name}: SHA-256 should begin"
                    f" {weights.sha256}, is {digest[:_HASH_LENGTH]}; delete it to download it anew"
                )
            return path
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(path), weights.sha256)
    # What torch.hub lets through: network and disk, answers that are not HTTP, another hash.
    except (OSError, HTTPException, RuntimeError) as error:
        if isinstance(error, HTTPError):
            error.close()  # It holds the connection.
        reason = error.reason if type(error) is URLError else error
        raise WeightsError(
            f"weights of {weights.name} cannot be had from {weights.url}: {reason}; they can be put"
            f" at {path} by hand"
        ) from error
    return path


def load_published(
    model: BcosModel, weights: PublishedWeights, cache_dir: str | Path | None = None
) -> None:
    """Give a model its published weights, fitted to its head and its input.

    * Of another number of classes than 1000, the model keeps its own new head and logit bias.
    * Six channels become three by taking each complement's weight from its colour's. With
      ``1 - x`` for the complement of ``x``, that is the part of the first layer that is linear in
      the colours; lengths of patches and a constant change. Three become six by giving a colour
      and its complement half the weight each, with opposite signs. Both are starts for
      fine-tuning, not the same function; so are six channels of another encoding (stains), for
      which the first layer is taken as it is.
    * Everything else has to be there, of the right shape, and nothing more.

    Args:
        model: of the weights' architecture, built with their ``model_args``.
        weights: which.
        cache_dir: see :func:`download`.

    Raises:
        WeightsError: the weights cannot be had, or do not fit.
    """
    # Not at the top: converted weights go into models of the registry, which needs this table.
    from bcos_vit.models.bcos_v2 import convert_state_dict

    tensors = convert_state_dict(weights.entry, download(weights, cache_dir))
    if model.num_classes != _NUM_CLASSES:
        head = f"{model.classifier_name}."
        tensors = {k: v for k, v in tensors.items() if not k.startswith(head)}
        tensors |= {k: v for k, v in model.state_dict().items() if k.startswith(head)}
    chans = weights.input_size[0]
    if model.in_chans != chans:
        if {model.in_chans, chans} != {3, 6}:
            raise WeightsError(
                f"weights of {weights.name} are for in_chans 3 or 6, got {model.in_chans}"
            )
        first = f"{get_pretrained_cfg_value(weights.model, 'first_conv')}.weight"
        tensors[first] = _other_channels(tensors[first], chans)
    fit(model, tensors, f"the published file of {weights.name}")


def _other_channels(weight: Tensor, chans: int) -> Tensor:
    """A first layer's weight for three channels from that for six, or the other way round."""
    if weight.ndim == 2:
        # A linear layer over the pixels of a patch, in each of which channels come last.
        pixels = weight.unflatten(1, (-1, chans)).movedim(2, 1)
        return _other_channels(pixels, chans).movedim(1, 2).flatten(1)
    if chans == 6:
        return weight[:, :3] - weight[:, 3:]
    return torch.cat([weight, -weight], 1) / 2
