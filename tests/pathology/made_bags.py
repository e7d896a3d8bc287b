"""Features of made-up slides: a table of slides, and a few numbers per tile that hold a rule."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pathology.data.features import FeatureKind, FeatureStamp, feature_path, write_features
from pathology.geometry import Mpp, Size
from pathology.tiling import GridSource, TileGrid, TileSpec

DIMS = 6
KIND = FeatureKind(
    "made_up", "ab" * 32, DIMS, "rgb", "fp32", "float32", TileSpec(size_px=32, mpp=2.0)
)


def write_slide_features(folder: Path, slide_id: str, values, kind=KIND) -> None:
    """Features ``(n, DIMS)`` of a slide, its tiles in a row."""
    count = len(values)
    source = GridSource(slide_id, f"stamp {slide_id}", Size(40_000, 3000), Mpp(0.5, 0.5), "file")
    grid = TileGrid(kind.tiles, source, np.arange(count) * 128.0, np.zeros(count), np.ones(count))
    stamp = FeatureStamp.of(replace(kind, dims=values.shape[1]), slide_id, grid)
    folder.mkdir(exist_ok=True, parents=True)
    with write_features(feature_path(folder, slide_id), stamp, grid.boxes()) as writer:
        writer.append(np.asarray(values, np.float32))


def write_manifest(path: Path, rows) -> str:
    """A table of slides; ``path`` is a file that nobody needs."""
    table = pd.DataFrame(rows)
    table.insert(1, "path", [f"{name}.tif" for name in table["slide_id"]])
    table.to_csv(path, index=False)
    return str(path)


def write_cohort(folder: Path, rng, counts=(16, 8, 8), sizes=(5, 12)):
    """Slides of which half have a few tiles of another kind, two to a patient.

    Columns: ``label`` (normal, tumour), ``findings`` (labels), ``grade`` (0 to 2, for none of such
    tiles, two or four), ``time`` and ``event`` (the more of them, the earlier).

    Returns:
        The manifest and the folder of features.
    """
    rows = []
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        for i in range(count):
            name = f"{split}_{i:02d}"
            tiles = int(rng.integers(*sizes))
            grade = (0, 0, 1, 2)[i % 4]
            values = rng.normal(size=(tiles, DIMS)) * 0.3
            values[:, 0] += 1.0
            values[: 2 * grade, 0] -= 2.0
            values[: 2 * grade, 1] += 2.0
            write_slide_features(folder / "features", name, values)
            rows.append(
                {
                    "slide_id": name,
                    "patient_id": f"patient_{split}_{i // 4}_{i % 2}",
                    "split": split,
                    "label": "tumour" if grade else "normal",
                    "findings": ("none", "a", "a;b")[grade],
                    "grade": grade,
                    "time": 10 - 4 * grade + i / 100,
                    "event": 1 if grade or i % 8 else 0,
                }
            )
    return write_manifest(folder / "slides.csv", rows), str(folder / "features")
