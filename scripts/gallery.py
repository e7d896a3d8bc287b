r"""Draw the pictures of docs/gallery.md, each from runs that are trained for it or from real data.

::

    python scripts/gallery.py                     # all: two studies, and ten minutes on two cores
    python scripts/gallery.py contrast depths     # some of them
    python scripts/gallery.py --list

What a picture is made of is a list of commands, which the page shows, too. They are run in the
folder of work (``runs/gallery``), in which ``configs`` and ``data`` are links to the project's
configs and to the folder of real data (``--data``, else ``BCOS_PATHOLOGY_DATA``). What is there is
not made again: remove it to have it anew. A picture whose data are not there is skipped, and stays
as it was.
"""

import argparse
import contextlib
import io
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from bcos_vit.render import colour_explanation, diverging, heat, overlay, symmetric_limit
from pathology.explain.results.overlay import STYLE, signed
from pathology.explain.results.shown import write_comparison
from pathology.explain.results.stored import StoredExplanation, load_explanation
from pathology.geometry import Box
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_file
from pathology.slides import MemorySlide, open_slide

ROOT = Path(__file__).parents[1]
LARGEST = 245_000
"""Bytes of a picture at most."""
DPI = 110
INK, GREEN = "#1b2430", "#008c5a"
Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class Step:
    """A command, and a file by which one knows that it was run to its end."""

    command: str
    makes: str


@dataclass(frozen=True)
class Picture:
    """A picture of the gallery.

    Args:
        draw: makes it, in the folder of work.
        steps: what has to be run before, in order.
        needs: files and folders of real data.
    """

    draw: Callable[[], Image.Image]
    steps: tuple[Step, ...] = ()
    needs: tuple[str, ...] = ()


# --- what the pictures are made of --------------------------------------------------------------

RECORD = "explanation.json"
SMALL = Step(
    "pathology benchmark --config configs/benchmark/small.yaml --out small --jobs 2",
    "small/results.parquet",
)
REAL = Step(
    "pathology benchmark --config configs/benchmark/real.yaml --out real --jobs 2",
    "real/results.parquet",
)
CNN = "small/cells/runs/tissue-bcos_resnet18-s0-*"
VIT = "small/cells/runs/tissue-bcos_vitc_tiny_patch16_224-s0-*"
SLIDE = "slides/test_000.tif"
SLIDES = Step(
    "python -c 'from pathology.synthetic import make_cohort;"
    ' make_cohort("slides", train=0, val=0, test=1, size_px=(2048, 2048))\'',
    "slides/slides.csv",
)
TILES = Step(
    f"pathology tile --slides {SLIDE} --out tiles --size-px 64 --tile-mpp 1",
    "tiles/quality.html",
)
ON_SLIDE = f"--slides {SLIDE} --tiles tiles"
BEFORE = (SMALL, SLIDES, TILES)
SHARED = (SMALL, REAL, SLIDES, TILES)
"""What several pictures are made of: at the top of the page, not below each."""
BY_CNN = Step(
    f"pathology explain --run {CNN} {ON_SLIDE} --out cnn"
    ' --target "[tumour, normal, tumour - normal]"',
    f"cnn/test_000/tumour_minus_normal/{RECORD}",
)
BY_VIT = Step(
    f"pathology explain --run {VIT} {ON_SLIDE} --out vit --target tumour",
    f"vit/test_000/tumour/{RECORD}",
)
DEPTHS = ("pixels", "layer2", "head")
AT_DEPTHS = tuple(
    Step(
        f"pathology explain --run {CNN} {ON_SLIDE} --out depths/{depth} --target tumour"
        f" --depth {depth} --out-mpp 1",
        f"depths/{depth}/test_000/tumour/{RECORD}",
    )
    for depth in DEPTHS
)
CMU = Step(
    "pathology tile --slides data/slides/CMU-1-Small-Region.svs --out cmu/tiles",
    "cmu/tiles/CMU-1-Small-Region.png",
)


# --- pictures -----------------------------------------------------------------------------------


def slide_and_ledger() -> Image.Image:
    """The figure that `pathology explain` writes, as it is."""
    return printed([load_explanation("cnn/test_000/tumour")])


def vit_and_cnn() -> Image.Image:
    """Two models on one scale."""
    found = [load_explanation(f"{name}/test_000/tumour") for name in ("cnn", "vit")]
    return printed(found, ["B-cos ResNet-18", "B-cos ViT-Ti"])


def contrast() -> Image.Image:
    """Both classes, and one less the other."""
    targets = ("tumour", "normal", "tumour_minus_normal")
    return printed([load_explanation(f"cnn/test_000/{target}") for target in targets])


def depths() -> Image.Image:
    """The same tiles, explained down to pixels and to two layers."""
    found = {depth: load_explanation(f"depths/{depth}/test_000/tumour") for depth in DEPTHS}
    box = mixed_tiles(found["pixels"].tiles, 3)
    with open_slide(SLIDE) as slide:
        pixels = slide.read(box, mpp=0.5)
    figure, axes = panels(1, 4, 2.75, 0.56)
    shown(axes[0], pixels)
    title(axes[0], "nine tiles", "0.19 mm wide")
    for each, (depth, stored) in zip(axes[1:], found.items(), strict=True):
        values = sampled(stored.contributions, box, pixels.shape[:2])
        limit = symmetric_limit(values, 0.99)
        shown(each, on_grey(pixels, values, limit))
        title(each, f"depth: {depth}", f"sum {signed(float(values.sum(dtype=float)), 5)} logits")
    return drawn(figure)


def weights() -> Image.Image:
    """Tiles that argue most for each class: what they give, and what W(x) looks like."""
    import torch

    from bcos_vit.explain import explain
    from pathology.tasks.checkpoint import load_task

    task, _ = load_task(only(CNN))
    boxes = [
        (box, name)
        for name in ("tumour", "normal")
        for box in load_explanation(f"cnn/test_000/{name}").top(3)
    ]
    figure, axes = panels(3, 6, 1.75, 0.42)
    with open_slide(SLIDE) as slide:
        for column, (box, name) in enumerate(boxes):
            target = list(task.classes).index(name)
            pixels = slide.read(box, mpp=1.0)
            batch = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
            found = explain(task.model, task.encoding(batch), target=target)[0]
            given = found.contributions.numpy()
            picture = colour_explanation(found.weights.numpy(), given, smooth=5)
            shown(axes[0, column], pixels)
            shown(axes[1, column], np.asarray(overlay(given, pixels)))
            shown(axes[2, column], on_white(picture))
            title(axes[0, column], name, f"logit {signed(float(found.logit), 2)}")
    for each, words in zip(axes[:, 0], ("tile", "contributions", "W(x)"), strict=True):
        each.set_ylabel(words, fontsize=9)
    return drawn(figure)


def pen() -> Image.Image:
    """Tiles with and without the mark that went with tumour in training."""
    return of_study("small", "pen", (
        ("bcos_resnet18", "bcos", "B-cos ResNet-18"),
        ("bcos_vitc_tiny_patch16_224", "bcos", "B-cos ViT"),
        ("resnet18", "gradcam_layer2", "ResNet-18\nGrad-CAM, layer 2"),
    ))  # fmt: skip


def nuclei() -> Image.Image:
    """Real nuclei, outlined, and where maps of four kinds point."""
    return of_study("real", "nuclei", (
        ("bcos_resnet18", "bcos", "B-cos ResNet-18"),
        ("bcos_vitc_tiny_patch16_224", "bcos", "B-cos ViT"),
        ("resnet18", "ledger_mean", "ResNet-18\nexact ledger"),
        ("resnet18", "gradcam_layer2", "ResNet-18\nGrad-CAM, layer 2"),
    ))  # fmt: skip


def tissue() -> Image.Image:
    """What is taken for tissue on a real slide, and for artefacts on a made-up one."""
    from pathology.tissue import survey
    from pathology.tissue.draw import draw_survey

    with Image.open("cmu/tiles/CMU-1-Small-Region.png") as picture:
        real = np.asarray(picture.convert("RGB"))
    rgb = with_artefacts()
    slide = MemorySlide(rgb, 1.0)
    found = draw_survey(slide, survey(slide), 900)
    figure = Figure(figsize=(10.6, 4.6), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(real.shape[1] / real.shape[0], 1.0, 1.0))
    for each, pixels, words in (
        (axes[0], real, "real: tissue and tiles of 224 px"),
        (axes[1], rgb[::2, ::2], "made up: ink, a fold, a blurred part"),
        (axes[2], found, "what was found of it"),
    ):
        shown(each, pixels)
        title(each, words)
    return drawn(figure)


PICTURES = {
    "slide_and_ledger": Picture(slide_and_ledger, (*BEFORE, BY_CNN)),
    "vit_and_cnn": Picture(vit_and_cnn, (*BEFORE, BY_CNN, BY_VIT)),
    "contrast": Picture(contrast, (*BEFORE, BY_CNN)),
    "depths": Picture(depths, (*BEFORE, *AT_DEPTHS)),
    "weights": Picture(weights, (*BEFORE, BY_CNN)),
    "pen": Picture(pen, (SMALL,)),
    "nuclei": Picture(nuclei, (REAL,), ("dsb2018_brightfield", "crc_nuclei_patches")),
    "tissue": Picture(tissue, (CMU,), ("slides/CMU-1-Small-Region.svs",)),
}


# --- drawing ------------------------------------------------------------------------------------


def printed(found: Sequence[StoredExplanation], names: Sequence[str] | None = None) -> Image.Image:
    """The figure for papers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        write_comparison(found, path, names, dpi=150)
        with Image.open(path) as picture:
            return picture.convert("RGB")


def panels(rows: int, columns: int, side: float, head: float) -> tuple[Figure, Any]:
    """Square places in rows, with room for titles above each row; sides in inches."""
    figure = Figure(
        figsize=(columns * side, rows * side + head),
        dpi=DPI, layout="constrained",
    )  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.01, hspace=0.01)
    axes = figure.subplots(rows, columns)
    return figure, axes


def title(axes: Axes, first: str, second: str = "") -> None:
    """One or two lines above a picture."""
    axes.set_title("\n".join(filter(None, (first, second))), fontsize=9, loc="left", color=INK)


def shown(axes: Axes, pixels: Rgb) -> None:
    """Pixels, without ticks."""
    axes.imshow(pixels, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])


def sampled(part: SlideMap, box: Box, shape: tuple[int, ...]) -> NDArray[Any]:
    """A map's values under the centres of a raster's pixels over ``box``; NaN beside it."""
    rows, columns = part.values.shape
    x = box.x + (np.arange(shape[1]) + 0.5) * box.width / shape[1]
    y = box.y + (np.arange(shape[0]) + 0.5) * box.height / shape[0]
    column = np.floor((x - part.box.x) / part.box.width * columns).astype(int)
    row = np.floor((y - part.box.y) / part.box.height * rows).astype(int)
    inside = ((row >= 0) & (row < rows))[:, None] & ((column >= 0) & (column < columns))
    at = np.clip(row, 0, rows - 1)[:, None], np.clip(column, 0, columns - 1)
    return np.where(inside, part.values[at], np.nan)


def on_grey(pixels: Rgb, values: NDArray[Any], limit: float) -> Rgb:
    """Colours over the same pixels in grey."""
    grey = np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))
    return mixed(heat(values, limit), grey)


def on_white(rgba: Rgb) -> Rgb:
    """Colours over white."""
    return mixed(rgba, np.full((*rgba.shape[:2], 3), 255, np.uint8))


def mixed(rgba: Rgb, below: Rgb) -> Rgb:
    """One picture over another."""
    share = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * share + below * (1 - share)).astype(np.uint8)


def drawn(figure: Figure) -> Image.Image:
    """A figure as pixels."""
    FigureCanvasAgg(figure)
    with io.BytesIO() as file:
        figure.savefig(file, format="png", facecolor="white")
        return Image.open(file).convert("RGB")


def mixed_tiles(tiles: pd.DataFrame, side: int) -> Box:
    """The square of so many neighbouring tiles whose contributions differ most."""
    share = (tiles["weight"] * tiles["contribution"]).to_numpy()
    known = {
        (float(x), float(y)): value
        for x, y, value in zip(tiles["x"], tiles["y"], share, strict=True)
    }
    width = float(tiles["width"].iloc[0])
    best: tuple[float, Box] | None = None
    for x, y in known:
        corners = [(x + i * width, y + j * width) for i in range(side) for j in range(side)]
        if all(corner in known for corner in corners):
            values = np.array([known[corner] for corner in corners])
            if best is None or values.std() > best[0]:
                best = values.std(), Box(x, y, side * width, side * width)
    if best is None:
        raise SystemExit(f"no {side} x {side} tiles lie side by side")
    return best[1]


def of_study(out: str, data: str, rows: Iterable[tuple[str, str, str]]) -> Image.Image:
    """The tiles that a study's page shows, and maps of several methods on several networks."""
    maps = [(words, kept(out, f"{data}-{network}-s0-{method}")) for network, method, words in rows]
    first = maps[0][1]
    count = len(first["names"])
    figure, axes = panels(len(maps) + 1, count, 1.6, 0.4)
    for column in range(count):
        shown(axes[0, column], first["images"][column])
        title(axes[0, column], str(first["targets"][column]))
    axes[0, 0].set_ylabel("tile", fontsize=9)
    for row, (words, found) in enumerate(maps, start=1):
        limit = symmetric_limit(found["maps"], 0.99)
        for column in range(count):
            values = found["maps"][column]
            each = axes[row, column]
            each.imshow(diverging(values, limit), interpolation="nearest")
            each.set(xticks=[], yticks=[])
            if str(found["unit"]) == "logits":
                title(each, f"sum {signed(float(values.sum(dtype=float)), 2)}")
        axes[row, 0].set_ylabel(words, fontsize=9)
    for row in range(len(maps) + 1):
        for column in range(count):
            if first["masks"][column].any():
                axes[row, column].contour(
                    first["masks"][column], levels=[0.5], colors=[GREEN], linewidths=0.9
                )
    return drawn(figure)


def kept(out: str, unit: str) -> dict[str, NDArray[Any]]:
    """Maps that a study has kept for its page."""
    found = sorted(Path(out, "cells", "pictures").glob(f"{unit}-*/maps.npz"), key=os.path.getmtime)
    if not found:
        raise SystemExit(f"{out}: the study has no maps of {unit}")
    with np.load(found[-1]) as stored:
        return {name: stored[name] for name in stored.files}


def with_artefacts() -> Rgb:
    """Made-up tissue on glass at 1 µm, with ink, a fold and a part out of focus."""
    from pathology.synthetic import SyntheticSlideSpec, render
    from pathology.synthetic.artefacts import paint_blur, paint_fold, paint_pen

    side, margin = 1536, 160
    made = render(SyntheticSlideSpec(seed=4, size_px=(side, side), mpp=1.0), 0, 0, side, side)
    glass = np.median(made.rgb[made.regions == 0], axis=0)
    whole = side + 2 * margin
    rng = np.random.default_rng(1)
    rgb = rng.normal(glass, 1.5, (whole, whole, 3)).round().astype(np.uint8)
    where = np.zeros((whole, whole), bool)
    inner = slice(margin, margin + side)
    rgb[inner, inner], where[inner, inner] = made.rgb, made.regions > 0
    rgb = paint_fold(rgb, 1.0, rng, where).rgb
    rgb = paint_blur(rgb, 1.0, rng, sigma_um=4.0, share=0.15).rgb
    return paint_pen(rgb, 1.0, rng, "green", width_um=150.0).rgb


# --- running ------------------------------------------------------------------------------------


def run(step: Step) -> None:
    """Run a command in the folder of work, unless what it makes is there."""
    if Path(step.makes).exists():
        return
    print(f"$ {step.command}", flush=True)
    program, *words = shlex.split(step.command)
    words = [only(word) if word.endswith("-*") else word for word in words]
    if program == "python":
        subprocess.run([sys.executable, *words], check=True)
        return
    from pathology.cli import main as pathology

    if code := pathology(words):
        raise SystemExit(code)


def only(pattern: str) -> str:
    """The one folder of a pattern, as a shell puts it in."""
    found = sorted(map(str, Path().glob(pattern)))
    if len(found) != 1:
        raise SystemExit(f"{pattern}: {len(found)} folders, wanted one")
    return found[0]


def link(name: str, target: Path) -> None:
    """A link in the folder of work."""
    path = Path(name)
    if path.is_symlink() and path.resolve() != target.resolve():
        path.unlink()
    if not path.exists():
        path.symlink_to(target, target_is_directory=True)


def save(picture: Image.Image, path: Path) -> None:
    """As JPEG, as good as its size allows."""
    for quality in (90, 85, 80, 75, 70, 60):
        with io.BytesIO() as file:
            picture.save(file, "jpeg", quality=quality, optimize=True)
            content = file.getvalue()
        if len(content) <= LARGEST:
            break
    with complete_file(path) as draft:
        draft.write_bytes(content)
    print(f"{path}  {len(content) / 1000:.0f} kB", flush=True)


def make(name: str, data: Path | None, out: Path) -> bool:
    """Draw one picture; tells whether it could be."""
    picture, path = PICTURES[name], out / f"{name}.jpg"
    for needed in picture.needs:
        if data is None or not (data / needed).exists():
            there = "stays as it is" if path.exists() else "is not there"
            print(
                f"{name}: skipped, {needed} is not under the folder of data (--data or"
                f" BCOS_PATHOLOGY_DATA); {path} {there}",
                flush=True,
            )
            return False
    for step in picture.steps:
        run(step)
    with style.context(STYLE):
        save(picture.draw(), path)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="pictures; all when omitted")
    parser.add_argument(
        "--list", action="store_true", help="print names and commands, draw nothing"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "gallery", help="folder of runs"
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("BCOS_PATHOLOGY_DATA"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "gallery")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(PICTURES)):
        parser.error(f"no picture is called {', '.join(unknown)}; there are {', '.join(PICTURES)}")
    if given.list:
        for name, picture in PICTURES.items():
            print(f"{name}\n" + "".join(f"  $ {step.command}\n" for step in picture.steps))
        return
    data = Path(given.data).resolve() if given.data else None
    out = given.out.resolve()
    for folder in (given.work, out):
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(given.work):
        link("configs", ROOT / "configs")
        if data is not None and data.is_dir():
            link("data", data)
        done = [make(name, data, out) for name in given.names or PICTURES]
    print(f"{sum(done)} of {len(done)} pictures drawn")


if __name__ == "__main__":
    main()
