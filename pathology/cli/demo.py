"""``pathology demo``: the main job on made-up slides, from nothing to a heatmap to look at."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from pathology.cli.run_function import run_function

# Small enough for two cores in a few minutes; a nucleus is 6 to 14 px across.
TILE_PX = 96
TILE_MPP = 0.5
SLIDE_PX = 3072
MODELS = {
    "bcos_resnet18": ["--model.lr", "1e-3", "--trainer.max_epochs", "4"],
    "bcos_vitc_tiny_patch16_224": [
        "--model.lr", "5e-4", "--trainer.max_epochs", "6", "--model.model_args", "{img_size: 96}",
    ],
}  # fmt: skip


def demo(out: Path = Path("demo"), seed: int = 0) -> int:
    """Make synthetic slides, train a B-cos ViT and CNN, explain a test slide with both.

    Run again, it goes on where it was stopped and skips what is done.

    Args:
        out: folder for everything.
        seed: of the slides.
    """
    started = time.monotonic()
    slides = _make_slides(out / "slides", seed)
    _step(f"Tiling the slides, {TILE_PX} px at {TILE_MPP} um/px")
    _run(
        "tile", "--slides", str(slides), "--out", str(out / "tiles"),
        "--size-px", str(TILE_PX), "--tile-mpp", str(TILE_MPP),
    )  # fmt: skip
    for model, settings in MODELS.items():
        run = out / "runs" / model
        _step(f"Training {model} on labelled tiles")
        _run(
            "train", "--out", str(run), "--model.model", model,
            "--data.manifest", str(slides), "--data.tiles", str(out / "tiles"),
            "--data.classes", "[normal, tumour]", "--data.batch_size", "32", *settings,
        )  # fmt: skip
        _run("evaluate", "--run", str(run), "--split", "test")
    explained = []
    for model in MODELS:
        _step(f"Explaining the test slide with {model}")
        folder = out / "explained" / model
        _run(
            "explain", "--run", str(out / "runs" / model), "--tiles", str(out / "tiles"),
            "--slides", str(slides.parent / "test_000.tif"), "--out", str(folder),
            "--target", "tumour",
        )  # fmt: skip
        explained.append(folder / "test_000" / "tumour")
        print(_agreement(explained[-1] / "tiles.parquet", out / "tiles" / "test_000.parquet"))
    minutes = (time.monotonic() - started) / 60
    _step(f"Done in {minutes:.1f} minutes. Open in a browser:")
    for folder in explained:
        print(f"  {(folder / 'report.html').resolve()}")
    print('side by side, on the slide (pip install "bcos-pathology[viewer]"):')
    runs = ", ".join(str(out / "runs" / model) for model in MODELS)
    options = ("--slides", str(slides), "--results", str(out / "explained"), "--run", f"[{runs}]")
    print(f"  pathology view {shlex.join(options)}")
    print("and, to see where the tumour really is:")
    print(f"  {(slides.parent / 'test_000_regions.png').resolve()}")
    return 0


class DemoStepError(Exception):
    """A verb stopped; it has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _run(*arguments: str) -> None:
    from pathology.cli import main as pathology

    print(f"$ pathology {' '.join(arguments)}", flush=True)
    code = pathology(arguments)
    if code:
        raise DemoStepError(code)


def _step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _make_slides(folder: Path, seed: int) -> Path:
    """The cohort, and a picture of the test slide's truth."""
    from tqdm import tqdm

    from pathology.synthetic import make_cohort

    _step(f"Making six synthetic H&E slides of {SLIDE_PX} x {SLIDE_PX} px")
    with tqdm(total=1, unit="slide", bar_format="{desc} {bar} {percentage:.0f} %") as bar:

        def progress(name: str, done: int, total: int) -> None:
            bar.set_description(name)
            bar.total, bar.n = total, done
            bar.refresh()

        slides = make_cohort(
            folder, train=4, val=1, test=1, size_px=(SLIDE_PX, SLIDE_PX), mpp=TILE_MPP, seed=seed,
            progress=progress,
        )  # fmt: skip
    _draw_regions(folder / "test_000_regions.tif", folder / "test_000_regions.png")
    return slides


def _draw_regions(regions: Path, picture: Path) -> None:
    """The annotation in colours: normal tissue blue, tumour orange."""
    import numpy as np
    import tifffile
    from PIL import Image

    if picture.exists():
        return
    with tifffile.TiffFile(regions) as tiff:
        index = tiff.series[0].levels[-1].asarray()
    colours = np.array([[255, 255, 255], [120, 160, 215], [225, 130, 60]], dtype=np.uint8)
    Image.fromarray(colours[index]).resize((768, 768), Image.Resampling.NEAREST).save(picture)


def _agreement(explained: Path, tiles: Path) -> str:
    """How well tile contributions tell annotated classes apart on a slide new to the model."""
    import pandas as pd
    import torch
    from torchmetrics.functional.classification import binary_auroc

    label = pd.read_parquet(tiles)["label"]
    contribution = pd.read_parquet(explained)["contribution"]
    known = label.isin(["normal", "tumour"])
    scores = torch.tensor(contribution[known].tolist())
    truth = torch.tensor((label[known] == "tumour").tolist()).long()
    # Rank-based, so no squashing of the scores beforehand.
    value = float(binary_auroc(scores.argsort().argsort().double() / len(scores), truth))
    return (
        f"Contributions of the test slide's {int(known.sum())} annotated tiles tell tumour from"
        f" normal with AUROC {value:.3f}"
    )


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    try:
        return run_function(demo, arguments)
    except DemoStepError as error:
        return error.code
