"""Which encoder makes features of tiles, as the command line says it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoder, as the command line says it; may be sent to another process.

    Args:
        name: folder or checkpoint of a run, timm's or the hub's name, or
            ``package.module:function``.
        weights, pretrained, seed, arguments, resize, pixels: see
            :func:`pathology.data.encoders.timm_encoder`.
    """

    name: str
    weights: Path | None = None
    pretrained: bool = False
    seed: int | None = None
    arguments: dict[str, Any] | None = None
    resize: bool = False
    pixels: Literal["imagenet", "half", "clip", "model"] | None = None
