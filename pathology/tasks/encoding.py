"""From uint8 tiles to what a model takes, on the model's own device.

The model's ``encoding`` decides (see :mod:`bcos_vit.encodings`); a model that names none, as those
of timm, gets the one that goes with its channels. RGB is normalised by the model's data config.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from bcos_vit.encodings import check_encoding
from bcos_vit.stain_space import StainSpace
from bcos_vit.transforms import encode


class TileEncoding(nn.Module):
    """Encodes ``(batch, 3, height, width)`` tiles for one model.

    Args:
        model: a timm model; its ``encoding``, ``in_chans`` and data config decide.
        stain_space: stains and glass for a model in stain space, or the arguments of a
            :class:`StainSpace`; its defaults when omitted. They travel with the weights: loading a
            state dict brings back those it was saved with.

    Raises:
        ValueError: the model takes neither three nor six channels; a stain space that is not one,
            or for a model of another encoding.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, stain_space: StainSpace | Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        chans = getattr(model, "in_chans", None) or 3
        name = check_encoding(getattr(model, "encoding", None), chans)
        if name is None:
            raise ValueError(f"tiles fit models of 3 or 6 channels; got {chans}")
        if stain_space is not None and name != "stain":
            raise ValueError(f"a stain space is for models in stain space, this one's is {name!r}")
        self.name = name
        self.stains = _Stains(_stain_space(stain_space)) if name == "stain" else None
        config = getattr(model, "pretrained_cfg", None) or {}
        # B-cos models list six channels, whatever they take.
        mean, std = config.get("mean", (0.0,) * 3)[:3], config.get("std", (1.0,) * 3)[:3]
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    @property
    def stain_space(self) -> StainSpace | None:
        """What tiles are taken apart by; None for a model that is not in stain space."""
        return self.stains.space if self.stains else None

    def forward(self, tiles: Tensor) -> Tensor:
        """uint8, or floating point in [0, 1], to the model's input."""
        images = encode(tiles, self.name, self.stain_space)
        return (images - self.mean) / self.std if self.name == "rgb" else images


class _Stains(nn.Module):
    """Keeps a stain space with the weights, in full precision whatever theirs."""

    def __init__(self, space: StainSpace) -> None:
        super().__init__()
        self.space = space

    def get_extra_state(self) -> dict[str, Any]:
        return asdict(self.space)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.space = StainSpace(**state)


def _stain_space(given: StainSpace | Mapping[str, Any] | None) -> StainSpace:
    """A stain space from itself or its arguments.

    Raises:
        ValueError: an argument that it does not have.
    """
    if isinstance(given, StainSpace):
        return given
    try:
        return StainSpace(**(given or {}))
    except TypeError as error:
        names = ", ".join(StainSpace.__dataclass_fields__)
        raise ValueError(f"stain_space takes {names}; got {', '.join(given or {})}") from error
