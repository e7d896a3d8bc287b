"""Slides and records of explanations made by hand: no model, no maps, done at once."""

import json
from pathlib import Path

import numpy as np
import tifffile

MPP = 0.5


def write_slide(path: Path, seed: int = 0, size: tuple[int, int] = (600, 410)) -> Path:
    """A plain TIFF of smooth colours, which JPEG hardly changes; pixels of 0.5 um."""
    width, height = size
    x, y = np.linspace(0, 255, width), np.linspace(0, 255, height)
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = x[None], y[:, None], 20 * seed
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path,
        pixels,
        tile=(128, 128),
        photometric="rgb",
        compression="zlib",
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit="CENTIMETER",
    )
    return path


def write_record(
    folder: Path, slide: str, /, target: str = "tumour", score: float = 2.5, **settings: object
) -> Path:
    """The record of an explanation in ``folder``, a ``RUN/SLIDE/TARGET``."""
    parts = {"score": score, "bias": 0.5, "map_sum": score - 0.5, "cut_off": 0.0}
    ledger = {**parts, "tolerance": 1e-4, "constants": {}}
    folder.mkdir(parents=True)
    record = {"slide_id": slide, "target": target, "ledger": ledger, "settings": settings}
    (folder / "explanation.json").write_text(json.dumps(record))
    return folder
