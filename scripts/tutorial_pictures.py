"""Pictures of docs/tutorials, from folders in which these pages were followed.

Each option is a folder where the commands and the Python of one page were run as they stand; give
those whose pictures are to be drawn; the first two may be one. Prints the numbers that stand beside
the pictures. A minute on a core::

    python scripts/tutorial_pictures.py --explain FOLDER --heatmap FOLDER --qupath FOLDER
"""

import argparse
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import tifffile
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bcos_vit.explain import explain as explain_tiles
from bcos_vit.render import PALETTE, diverging, heat
from pathology.api import (
    StoredExplanation,
    TileGrid,
    explain_slide,
    load_explanation,
    load_run,
    open_slide,
    write_comparison,
)
from pathology.explain.results.overlay import heat_layer, round_up
from pathology.explain.stitching.seams import seam_energy
from pathology.geometry import Box
from pathology.maps.slide_map import SlideMap
from pathology.tasks.checkpoint import load_task

OUT = Path(__file__).parents[1] / "docs" / "images" / "tutorials"
MOST_BYTES = 150_000
SIGNED = ListedColormap(PALETTE[:-1] / 255)
GREY, INK = "#bbbbbb", "#1b2430"
GLASS = 240
Pixels = NDArray[np.uint8]
plt.rcParams.update({"font.size": 9, "axes.titlesize": 9, "axes.titlelocation": "left"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--explain", type=Path, help="where explain_a_slide.md was followed")
    parser.add_argument("--heatmap", type=Path, help="where read_a_heatmap.md was")
    parser.add_argument("--qupath", type=Path, help="where qupath_and_back.md was")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.explain:
        quality(given.explain, given.out)
        targets(given.explain, given.out)
    if given.heatmap:
        heatmap(given.heatmap, given.out)
    if given.qupath:
        labels(given.qupath, given.out)
        shares(given.qupath, given.out)


# --- explain_a_slide


def quality(folder: Path, out: Path) -> None:
    """The picture of quality.html."""
    with Image.open(folder / "tiles" / "test_000.png") as picture:
        small = picture.convert("RGB")
    small.thumbnail((700, 700))
    save_image(small, out / "explain_tiles.jpg")


def targets(folder: Path, out: Path) -> None:
    """All targets on one scale, as ``comparison.pdf`` has them."""
    names = ("tumour", "normal", "tumour_minus_normal")
    found = [load_explanation(folder / "explained" / "test_000" / name) for name in names]
    draft = out / "draft.png"
    write_comparison(found, draft, dpi=95)
    with Image.open(draft) as picture:
        save_image(picture.convert("RGB"), out / "explain_targets.jpg", 78)
    draft.unlink()


# --- read_a_heatmap


def heatmap(folder: Path, out: Path) -> None:
    """All pictures of the page."""
    explained = folder / "explained" / "test_000"
    stored, difference = (
        load_explanation(explained / name) for name in ("tumour", "tumour_minus_normal")
    )
    one(stored, difference, folder / "slides" / "test_000_regions.tif", out)
    scales(stored, load_explanation(folder / "more" / "explained" / "normal" / "tumour"), out)
    layers(load_explanation(folder / "more" / "sure" / "test_000" / difference.folder.name), out)
    task, _ = load_task(folder / "runs" / "small")
    grid = TileGrid.load(folder / "tiles" / "test_000.parquet")
    with open_slide(folder / "slides" / "test_000.tif") as slide:
        two_tiles(task, slide, difference, grid, out)
        removal(task, slide, stored, out)
        seams(load_run(folder / "runs" / "small", device="cpu"), slide, grid, stored, out)


def one(stored: StoredExplanation, difference: StoredExplanation, truth: Path, out: Path) -> None:
    """The slide, its truth, and its maps on one scale."""
    regions = tifffile.imread(truth, level=0)[::4, ::4]
    colours = np.array([[255, 255, 255], [120, 160, 215], [225, 130, 60]], np.uint8)
    figure, axes = plt.subplots(1, 4, figsize=(10, 3.3), layout="constrained")
    axes[0].imshow(thumbnail(stored), extent=extent(stored))
    axes[0].set_title("slide, 0.77 mm")
    axes[1].imshow(colours[regions], extent=extent(stored), interpolation="nearest")
    axes[1].set_title("tissue: normal blue, tumour orange")
    limit = overlaid(axes[2], stored, stored.map())
    axes[2].set_title(f"tumour: score {stored.logit:+.2f}")
    overlaid(axes[3], difference, difference.map(), limit)
    axes[3].set_title(f"tumour - normal: {difference.logit:+.2f}")
    colour_bar(figure, list(axes), limit, "logits per mm² of slide")
    save(figure, out / "heatmap_one.jpg", quality=80)


def scales(stored: StoredExplanation, normal: StoredExplanation, out: Path) -> None:
    """Two slides, stretched to their own range, and on one scale."""
    figure, axes = plt.subplots(2, 2, figsize=(6.2, 6.6), layout="constrained")
    maps = [each.map("density") for each in (stored, normal)]
    limit = heat_layer(maps[0]).limit
    for column, (each, density, name) in enumerate(
        zip((stored, normal), maps, ("with tumour", "without"), strict=True)
    ):
        low, high = (float(end(density.values)) for end in (np.nanmin, np.nanmax))
        axes[0, column].imshow(grey(each), extent=extent(each))
        axes[0, column].imshow(
            (density.values - low) / (high - low), cmap="turbo", alpha=0.75,
            extent=covered(density), interpolation="nearest",
        )  # fmt: skip
        axes[0, column].set_title(f"{name}: own range, {low:+.0f} to {high:+.0f}")
        overlaid(axes[1, column], each, density, limit)
        axes[1, column].set_title(f"{name}: one scale; score {each.logit:+.2f}")
        print(
            f"{each.slide_id}: score {each.logit:+.3f}, 99 % of the density below"
            f" {np.nanquantile(density.values, 0.99):.1f} logits per mm2"
        )
    colour_bar(figure, list(axes[1]), limit, "logits of a tile per mm²")
    save(figure, out / "heatmap_scales.jpg", quality=78)


def layers(sure: StoredExplanation, out: Path) -> None:
    """The mean of four grids, where they agree, and where the map is beyond nulls."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.9), layout="constrained")
    limit = overlaid(axes[0], sure, sure.map())
    axes[0].set_title("mean of four grids")
    colour_bar(figure, [axes[0]], limit, "logits per mm²")
    nulls = sure.map("layers/null_p")
    shown: Sequence[tuple[str, SlideMap, str, float]] = (
        ("share of grids with the mean's sign", sure.map("layers/agreement"), "cividis", 0.5),
        ("share of networks as strong (p)", nulls, "cividis_r", 0.0),
    )
    for place, (title, values, colours, low) in zip(axes[1:], shown, strict=True):
        place.imshow(grey(sure), extent=extent(sure))
        picture = place.imshow(
            values.values, cmap=colours, vmin=low, vmax=1, extent=covered(values),
            interpolation="nearest",
        )  # fmt: skip
        place.set_title(title)
        figure.colorbar(picture, ax=place, orientation="horizontal", shrink=0.8, aspect=30)
    save(figure, out / "heatmap_layers.jpg", quality=80)


def two_tiles(task: Any, slide: Any, stored: StoredExplanation, grid: TileGrid, out: Path) -> None:
    """The tile of tumour that is most for it, and the one that is most against, pixel by pixel."""
    own = stored.tiles["contribution"].to_numpy()
    tumour = np.flatnonzero(np.asarray(grid.columns["label"]) == "tumour")
    picked = [int(tumour[own[tumour].argmax()]), int(tumour[own[tumour].argmin()])]
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.9), layout="constrained")
    maps = []
    for index in picked:
        pixels = np.asarray(slide.read(grid[index].box, 0.5))
        maps.append((pixels, contributions(task, pixels) - contributions(task, pixels, 0)))
    limit = float(np.quantile(np.abs(np.stack([each for _, each in maps])), 0.995))
    for (pixels, values), place in zip(maps, (axes[:2], axes[2:]), strict=True):
        place[0].imshow(pixels)
        place[0].set_title("a tile of tumour, 48 µm")
        place[1].imshow(diverging(values, limit), interpolation="nearest")
        up, down = values.clip(min=0).sum(), values.clip(max=0).sum()
        place[1].set_title(f"{up:+.1f} and {down:+.1f}: {up + down:+.1f} logits")
        print(f"tile of tumour: for {up:+.2f}, against {down:+.2f}, together {up + down:+.2f}")
    for each in axes:
        bare(each)
    bar = ScalarMappable(Normalize(-limit, limit), SIGNED)
    figure.colorbar(
        bar, ax=axes, orientation="horizontal", shrink=0.4, aspect=40, ticks=MaxNLocator(4)
    ).set_label("logits per pixel of the tile")
    save(figure, out / "heatmap_tile.jpg", quality=90)


def removal(task: Any, slide: Any, stored: StoredExplanation, out: Path) -> None:
    """Contributions of ninths of tiles, and what the tile's logit loses without them."""
    points = []
    for box in stored.top(8):
        tile = np.array(slide.read(box, 0.5))
        values, whole = contributions(task, tile), logit(task, tile)
        side = tile.shape[0] // 3
        for y in range(0, 3 * side, side):
            for x in range(0, 3 * side, side):
                painted = tile.copy()
                painted[y : y + side, x : x + side] = GLASS
                own = values[y : y + side, x : x + side].sum()
                points.append((own, whole - logit(task, painted)))
    own, lost = np.array(points).T
    ends = [min(own.min(), lost.min()), max(own.max(), lost.max())]
    figure, axes = plt.subplots(figsize=(3.6, 3.3), layout="constrained")
    axes.plot(ends, ends, color=GREY, lw=1, zorder=0)
    axes.scatter(own, lost, s=12, color="#2166ac")
    axes.set(xlabel="contribution, logits", ylabel="lost without it, logits")
    axes.spines[["top", "right"]].set_visible(False)
    print(
        f"ninths of tiles: correlation {np.corrcoef(own, lost)[0, 1]:.2f}, contributions sum to"
        f" {own.sum():.1f}, losses to {lost.sum():.1f} logits"
    )
    save(figure, out / "heatmap_removal.png", dpi=110)


def seams(run: Any, slide: Any, grid: TileGrid, stored: StoredExplanation, out: Path) -> None:
    """A part of the map with its tiles, and how strong a tile is by place."""
    found = explain_slide(slide, grid, run, "tumour", out_mpp=0.5, quiet=True)
    density = found.stitched.density()
    side = int(grid.tile_size.width)
    boxes = grid.boxes().round().astype(int)
    centre = np.array([slide.size.width, slide.size.height]) // 2
    middle = boxes[np.abs(boxes[:, :2] - centre).sum(axis=1).argmin()]
    left, top = (int(v) for v in middle[:2] - 2 * side)
    pixels = np.asarray(slide.read(Box(left, top, 5 * side, 5 * side), 0.5))
    values = np.asarray(density.values)
    stack = np.stack([values[y : y + side, x : x + side] for x, y, *_ in boxes])
    strength = np.nanmean(np.abs(stack), axis=0)
    ratio = seam_energy(stored.map("density"), (side, side)).ratio
    edge = np.ones(strength.shape, bool)
    edge[4:-4, 4:-4] = False
    print(
        f"seam energy of the density map at 8 um: {ratio:.2f}; outermost 4 px of a tile"
        f" {strength[edge].mean() / strength[~edge].mean():.2f} times as strong as the rest"
    )
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
    crop = values[top : top + 5 * side, left : left + 5 * side]
    means = block_means(crop, 4)
    limit = round_up(float(np.nanquantile(np.abs(means), 0.995)))
    axes[0].imshow(pixels)
    axes[0].set_title("part of the slide, 240 µm")
    axes[1].imshow(diverging(means, limit), extent=(0, 5, 5, 0), interpolation="nearest")
    for line in range(1, 5):
        axes[1].axhline(line, 0, 0.06, color=INK, lw=0.8)
        axes[1].axvline(line, 0.94, 1, color=INK, lw=0.8)
    axes[1].set_title("its map at 2 µm; ticks are tile borders")
    picture = axes[2].imshow(strength, cmap="magma", interpolation="nearest")
    axes[2].set_title("mean strength by place within a tile")
    figure.colorbar(picture, ax=axes[2], shrink=0.8).set_label("logits per mm², without signs")
    for each in axes:
        bare(each)
    save(figure, out / "heatmap_seams.jpg", quality=85)


# --- qupath_and_back


def labels(folder: Path, out: Path) -> None:
    """What was drawn, and the tiles that came of it."""
    drawn = features(folder / "annotations" / "train_000.geojson")
    tiles = features(folder / "train_000_tiles.geojson")
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.6), layout="constrained")
    with open_slide(folder / "slides" / "train_000.tif") as slide:
        picture, size = slide.thumbnail(900), slide.size
    for each in axes:
        each.imshow(picture, extent=(0, size.width, size.height, 0))
        bare(each)
    for one in drawn:
        outline(axes[0], one, color(one), 1.6)
    for one in tiles:
        outline(axes[1], one, color(one), 0.4, 0.45)
    axes[0].set_title("annotations")
    axes[1].set_title("tiles and their labels")
    names = [one["properties"].get("classification", {}).get("name", "none") for one in tiles]
    print("tiles of train_000:", {name: names.count(name) for name in sorted(set(names))})
    save(figure, out / "qupath_labels.jpg")


def shares(folder: Path, out: Path) -> None:
    """The measurement that QuPath colours tiles by."""
    made = folder / "explained" / "test_000" / "tumour"
    tiles = features(made / "tiles.geojson.gz")
    values = np.array(
        [one["properties"]["measurements"]["tumour: share [µlogit]"] for one in tiles]
    )
    limit = round_up(float(np.quantile(np.abs(values), 0.98)))
    figure, axes = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
    stored = load_explanation(made)
    axes.imshow(grey(stored), extent=extent(stored))
    boxes = [ring(one)[:4] for one in tiles]
    patches = [
        Rectangle(tuple(box.min(axis=0)), *(box.max(axis=0) - box.min(axis=0))) for box in boxes
    ]
    axes.add_collection(
        PatchCollection(patches, facecolors=heat(values, limit) / 255, edgecolors="none")
    )
    for one in features(folder / "annotations" / "test_000.geojson"):
        if one["properties"]["classification"]["name"] == "Tumor":
            outline(axes, one, INK, 1.4)
    axes.set_title("tumour: share [µlogit]")
    bare(axes)
    bar = ScalarMappable(Normalize(-limit, limit), SIGNED)
    figure.colorbar(bar, ax=axes, shrink=0.8)
    save(figure, out / "qupath_shares.jpg")


def features(path: Path) -> list[dict[str, Any]]:
    """What a GeoJSON file holds."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        found: list[dict[str, Any]] = json.load(file)["features"]
    return found


def ring(feature: dict[str, Any]) -> NDArray[np.float64]:
    """The outline of a polygon."""
    return np.array(feature["geometry"]["coordinates"][0], np.float64)


def color(feature: dict[str, Any]) -> Any:
    """Of its class; grey without one."""
    told = feature["properties"].get("classification")
    return np.array(told["color"]) / 255 if told else GREY


def outline(
    axes: Axes, feature: dict[str, Any], colour: Any, width: float, fill: float = 0
) -> None:
    """A polygon with its holes."""
    rings = [np.array(each, np.float64) for each in feature["geometry"]["coordinates"]]
    codes = [
        [Outline.MOVETO, *[Outline.LINETO] * (len(each) - 2), Outline.CLOSEPOLY] for each in rings
    ]
    path = Outline(np.concatenate(rings), np.concatenate(codes))
    if fill:
        axes.add_patch(PathPatch(path, fc=colour, ec="none", alpha=fill))
    axes.add_patch(PathPatch(path, fill=False, ec=colour, lw=width))


# --- shared


def encoded(task: Any, pixels: Pixels) -> Tensor:
    """``(1, channels, height, width)`` as the model takes it."""
    images: Tensor = task.encoding(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    return images


def contributions(task: Any, pixels: Pixels, target: int = 1) -> NDArray[np.float64]:
    """Of a tile's pixels to its logit of tumour, or of another class."""
    found = explain_tiles(task.model, encoded(task, pixels)[0], target=target)
    return found.contributions.double().numpy()


def logit(task: Any, pixels: Pixels) -> float:
    """A tile's logit of tumour."""
    with torch.no_grad():
        return float(task.model(encoded(task, pixels))[0, 1])


def block_means(values: NDArray[Any], side: int) -> NDArray[np.float64]:
    """Means of squares of pixels."""
    height, width = (length // side * side for length in values.shape)
    blocks = values[:height, :width].reshape(height // side, side, width // side, side)
    return blocks.mean(axis=(1, 3), dtype=np.float64)


def thumbnail(stored: StoredExplanation) -> Pixels:
    """The slide as the explanation keeps it."""
    assert stored.view is not None
    return stored.view.thumbnail


def grey(stored: StoredExplanation) -> Pixels:
    """The same in grey."""
    return np.asarray(Image.fromarray(thumbnail(stored)).convert("L").convert("RGB"))


def extent(stored: StoredExplanation) -> tuple[float, float, float, float]:
    """The slide in its own pixels."""
    assert stored.view is not None
    return 0, stored.view.size.width, stored.view.size.height, 0


def covered(values: SlideMap) -> tuple[float, float, float, float]:
    """Where a map lies."""
    box = values.box
    return box.x, box.right, box.bottom, box.y


def overlaid(
    axes: Axes, stored: StoredExplanation, values: SlideMap, limit: float | None = None
) -> float:
    """The slide in grey with its heat; hatched where no tile was looked at."""
    layer = heat_layer(values, limit=limit)
    width, height = stored.view.size if stored.view else (0, 0)
    placed: dict[str, Any] = {"extent": covered(values), "interpolation": "nearest"}
    axes.imshow(grey(stored), extent=extent(stored), zorder=1)
    hatch = Rectangle((0, 0), width, height, fill=False, hatch="////", ec=GREY, lw=0, zorder=2)
    axes.add_patch(hatch)
    seen = np.isfinite(layer.density)
    fine = np.kron(seen, np.ones((8, 8), bool))
    below = np.asarray(Image.fromarray(grey(stored)).resize(fine.shape[::-1])) / 255
    axes.imshow(np.dstack([below, fine]), zorder=3, **placed)
    axes.imshow(heat(layer.density, layer.limit), zorder=4, **placed)
    axes.set(xlim=(0, width), ylim=(height, 0))
    return layer.limit


def bare(axes: Axes) -> None:
    """No ticks."""
    axes.set(xticks=[], yticks=[])


def colour_bar(figure: Figure, axes: Sequence[Axes], limit: float, unit: str) -> None:
    """The signed scale below pictures, which lose their ticks."""
    for each in axes:
        bare(each)
    bar = ScalarMappable(Normalize(-limit, limit), SIGNED)
    figure.colorbar(
        bar, ax=list(axes), orientation="horizontal", shrink=0.8 if len(axes) == 1 else 0.4,
        aspect=30,
    ).set_label(unit)  # fmt: skip


def save(figure: Figure, path: Path, dpi: int = 120, quality: int = 85) -> None:
    """As PNG or JPEG."""
    for axes in figure.axes:
        if axes.images:
            bare(axes) if axes.get_label() != "<colorbar>" else None
    if path.suffix == ".png":
        figure.savefig(path, dpi=dpi, bbox_inches="tight", metadata={"Software": None})
        told(path)
    else:
        draft = io.BytesIO()
        figure.savefig(draft, dpi=dpi, bbox_inches="tight", format="png")
        save_image(Image.open(draft).convert("RGB"), path, quality)
    plt.close(figure)


def save_image(image: Image.Image, path: Path, quality: int = 85) -> None:
    """As JPEG."""
    image.save(path, quality=quality, optimize=True)
    told(path)


def told(path: Path) -> None:
    """Say how large it became, and refuse what is too large."""
    size = path.stat().st_size
    print(f"{path}  {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"{path}: more than {MOST_BYTES / 1000:.0f} kB")


if __name__ == "__main__":
    main()
