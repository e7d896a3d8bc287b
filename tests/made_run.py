"""A run on tiles without a training, for tests that explain: a checkpoint of random weights."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pathology.tasks.checkpoint import Run
from pathology.tasks.tile_classification import TileClassification
from tests.conftest import settle_statistics

CLASSES = ["normal", "tumour"]


def write_run(
    folder: Path,
    size_px: int = 32,
    mpp: float = 0.5,
    classes: Sequence[str] = CLASSES,
    seed: int = 0,
    model: str = "bcos_resnet18",
    model_args: dict[str, Any] | None = None,
) -> Path:
    """A folder that ``--run`` takes: a B-cos model that knows what tiles it is for."""
    torch.manual_seed(seed)
    task = TileClassification(model, list(classes), model_args)
    # Of random weights signals die out, unless norms know their size.
    side = (model_args or {}).get("img_size", 64)
    settle_statistics(task.model, task.encoding(torch.randint(0, 256, (8, 3, side, side)).byte()))
    run = Run(folder)
    run.checkpoints.mkdir(parents=True)
    origin = {"size_px": size_px, "mpp": mpp, "colour": "stored", "stain": None, "digest": ""}
    run.origin.write_text(json.dumps(origin))
    torch.save(
        {
            "state_dict": task.state_dict(),
            "hyper_parameters": dict(task.hparams),
            "task": "tiles",
            "made_from": origin,
            "pytorch-lightning_version": "2.5.0",
        },
        run.best,
    )
    return folder
