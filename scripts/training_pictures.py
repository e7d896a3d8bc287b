r"""Pictures of the tutorials on training, from the folders in which they were followed.

Follow a page from its first line to its last in a folder of its own, then::

    python scripts/training_pictures.py train FOLDER     # docs/tutorials/train_on_your_tiles.md
    python scripts/training_pictures.py encoder FOLDER   # docs/tutorials/your_own_encoder.md

and for docs/tutorials/compare_vit_with_cnn.md, which shows the larger study::

    pathology benchmark --config configs/benchmark/small.yaml --out FOLDER/report
    python scripts/training_pictures.py compare FOLDER

Writes ``docs/images/tutorials/NAME_*.png``.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from bcos_vit.explain import explain
from bcos_vit.render import overlay, symmetric_limit
from bcos_vit.transforms import to_bcos
from pathology.benchmark.report import write_figures
from pathology.benchmark.report.results import find_study
from pathology.benchmark.study.config import load_study
from pathology.benchmark.study.gathering import RESULTS, pictures
from pathology.benchmark.study.place import Place
from pathology.tasks.checkpoint import load_task

ROOT = Path(__file__).parents[1]
SIDE, GAP = 160, 8


def train(out: Path) -> None:
    """The first tile of each class of three patients of test; below, what each pixel added."""
    task, _ = load_task("runs/first")
    table = pd.read_parquet("runs/first/evaluation/test.parquet")
    chosen = table.groupby(["label", "patient_id"], sort=True).first().groupby("label").head(3)
    tiles = [Image.open(name).convert("RGB") for name in chosen["name"]]
    target = task.classes.index("tumour")
    found = [explain(task.model, to_bcos(tile), target=target) for tile in tiles]
    maps = [each.contributions.numpy() for each in found]
    limit = symmetric_limit(np.stack(maps))  # one scale for all
    heat = [overlay(each, tile, limit) for each, tile in zip(maps, tiles, strict=True)]
    _save(_grid([tiles, heat]), out / "train_tiles.png", colours=96)
    for name, each in zip(chosen["name"], found, strict=True):
        print(f"{name}: {float(each.logit):+.2f}")


def compare(out: Path) -> None:
    """The strip of maps of the B-cos ViT, as in the report."""
    config = load_study(ROOT / "configs" / "benchmark" / "small.yaml")
    place = Place(config, Path("report"), "cpu")
    study = find_study(pd.read_parquet(place.out / RESULTS), config.name)
    with tempfile.TemporaryDirectory() as scratch:
        for path in write_figures(study, pictures(place), Path(scratch), 80):
            if path.name.endswith("maps_tissue_bcos_vitc_tiny_patch16_224.png"):
                with Image.open(path) as image:
                    _save(image.convert("RGB"), out / "compare_methods.png", colours=128)


def encoder(out: Path) -> None:
    """The slide beside its tiles', and its pixels' contributions."""
    for name, folder in (("tiles", "explained"), ("pixels", "explained_converted")):
        found = Path(folder) / "test_000" / "tumour"
        shown = [Image.open(found / file).convert("RGB") for file in ("slide.jpg", "overlay.png")]
        _save(_grid([shown], side=360), out / f"encoder_{name}.png", colours=128)


def _grid(rows: list[list[Image.Image]], side: int = SIDE) -> Image.Image:
    width, height = len(rows[0]) * (side + GAP) - GAP, len(rows) * (side + GAP) - GAP
    grid = Image.new("RGB", (width, height), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            resized = image.resize((side, side), Image.Resampling.LANCZOS)
            grid.paste(resized, (x * (side + GAP), y * (side + GAP)))
    return grid


def _save(image: Image.Image, path: Path, colours: int) -> None:
    image.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}  {path.stat().st_size / 1024:.0f} KB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", choices=["train", "compare", "encoder"])
    parser.add_argument("folder", type=Path, help="in which the page was followed")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "tutorials")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(options.folder)
    {"train": train, "compare": compare, "encoder": encoder}[options.page](out)


if __name__ == "__main__":
    main()
