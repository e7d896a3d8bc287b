"""A network trained on tiles of other slides, to make features of a study's slides."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pathology.benchmark.backbones.backbone import Backbone, make_backbones
from pathology.benchmark.backbones.training import train
from pathology.benchmark.slides.bags import BagSpec, Progress
from pathology.benchmark.tile_sets import make_maker, make_tile_set


def check_encoder(settings: Mapping[str, Any]) -> tuple[Backbone, dict[str, Any]]:
    """The network that settings name, and those of its tiles.

    Args:
        settings: of a backbone, as studies list them (``model``, ``model_args``, ``training``),
            and ``tiles``: of a synthetic tile set, but for their size, which is that of slides'.

    Raises:
        ValueError: an unknown key or value.
        UnknownModelError: no such model.
    """
    own = dict(settings)
    tiles = dict(own.pop("tiles", None) or {})
    if fixed := {"kind", "size_px", "mpp"} & set(tiles):
        raise ValueError(f"encoder.tiles.{min(fixed)}: is that of slides and cannot be set")
    (backbone,) = make_backbones([own])
    make_maker({"kind": "synthetic", **tiles})
    return backbone, tiles


def train_encoder(
    settings: Mapping[str, Any], bag: BagSpec, out: Path, *, seed: int, progress: Progress
) -> Path:
    """The run of a network trained by ``pathology train``; made, gone on with, or found finished.

    Args:
        settings: see :func:`check_encoder`.
        bag: size of tiles and of their pixels.
        out: folder of the study; the tiles and the run go into it.
        seed: of tiles and training.
        progress: wraps what is done.

    Raises:
        ValueError, UnknownModelError: as :func:`check_encoder`.
        TrainingError: the verb failed.
        OutputError: ``out`` cannot be written.
    """
    backbone, tiles = check_encoder(settings)
    made = {"kind": "synthetic", "size_px": bag.tile_px, "mpp": bag.mpp, "seed": seed, **tiles}
    folder = out / f"tiles-{_digest(made)}"
    for _ in progress(range(1), 1, "tiles of the encoder"):
        tile_set = make_tile_set(made, folder)
    run = out / f"encoder-{_digest([made, dict(settings), seed])}"
    for _ in progress(range(1), 1, f"training {backbone.name}"):
        train(backbone, tile_set, seed, run)
    return run


def _digest(what: object) -> str:
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
