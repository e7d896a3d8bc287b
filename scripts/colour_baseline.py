"""How well colour alone tells the synthetic classes apart; it should be barely better than chance.

Makes a small cohort in a temporary folder, describes each tile by histograms of its colours, fits a
logistic regression on some slides and prints the AUROC on others.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import rankdata
from skimage.color import rgb2hsv

from pathology.synthetic import make_cohort

Floats = NDArray[np.float64]

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)


def features(tile: NDArray[np.uint8]) -> Floats:
    """Colour statistics of one RGB tile: marginal and joint histograms, means and deviations."""
    rgb = tile.reshape(-1, 3).astype(np.float64)
    hsv = rgb2hsv(tile).reshape(-1, 3)
    density = -np.log((rgb + 1) / 256)
    parts: list[Floats] = []
    for values, top in ((rgb, 256.0), (hsv, 1.0), (density, 3.0)):
        for channel in range(3):
            clipped = np.clip(values[:, channel], 0, top * 0.9999)
            parts.append(np.histogram(clipped, 32, (0, top))[0] / len(rgb))
        parts += [values.mean(0), values.std(0)]
    joint = (tile.reshape(-1, 3) // 32).astype(np.int64) @ np.array([64, 8, 1])
    parts.append(np.bincount(joint, minlength=512) / len(rgb))
    return np.concatenate(parts)


def tiles_of(
    folder: Path, row: dict[str, str], side: int, purity: float
) -> tuple[Floats, NDArray[np.int64]]:
    """Features and classes (0 normal, 1 tumour) of the tiles of one slide that hold one class."""
    slide = tifffile.imread(folder / row["path"])
    regions = tifffile.imread(folder / row["regions"])
    found, classes = [], []
    for y in range(0, slide.shape[0] - side + 1, side):
        for x in range(0, slide.shape[1] - side + 1, side):
            share = np.bincount(regions[y : y + side, x : x + side].ravel(), minlength=3)[1:3]
            if share.max() >= purity * side * side:
                found.append(features(slide[y : y + side, x : x + side]))
                classes.append(int(share.argmax()))
    return np.asarray(found), np.asarray(classes)


def fit(x: Floats, y: NDArray[np.int64], strength: float) -> Floats:
    """Weights of a logistic regression with a ridge penalty; the last one is the offset."""
    sign = 2.0 * y - 1.0

    def loss(w: Floats) -> tuple[float, Floats]:
        margin = sign * (x @ w[:-1] + w[-1])
        slope = -sign / (1 + np.exp(np.clip(margin, -500, 500))) / len(y)
        value = np.logaddexp(0, -margin).mean() + strength * (w[:-1] @ w[:-1]) / 2
        return float(value), np.append(x.T @ slope + strength * w[:-1], slope.sum())

    return np.asarray(minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x)


def auroc(score: Floats, y: NDArray[np.int64]) -> float:
    """Chance that a tumour tile scores above a normal one."""
    positive = int(y.sum())
    ranks = rankdata(score)
    total = float(ranks[y == 1].sum()) - positive * (positive + 1) / 2
    return total / (positive * (len(y) - positive))


def main() -> None:
    """Prints the AUROC of colour for several ridge penalties."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=10, help="slides to fit on")
    parser.add_argument("--test", type=int, default=8, help="slides to score")
    parser.add_argument("--size", type=int, default=2048, help="side of a slide in pixels")
    parser.add_argument("--mpp", type=float, default=0.5, help="micrometres per pixel")
    parser.add_argument("--tile", type=int, default=128, help="side of a tile in pixels")
    parser.add_argument("--purity", type=float, default=0.9, help="least share of one class")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        manifest = make_cohort(
            name, args.train, 0, args.test, (args.size, args.size), args.mpp, args.seed
        )
        with manifest.open(newline="") as file:
            rows = list(csv.DictReader(file))
        data = [(row["split"], *tiles_of(Path(name), row, args.tile, args.purity)) for row in rows]
    x = np.concatenate([x for split, x, _ in data if split == "train"])
    y = np.concatenate([y for split, _, y in data if split == "train"])
    test = [(x, y) for split, x, y in data if split == "test" and len(y)]
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    print(
        f"{len(y)} tiles to fit on ({y.mean():.2f} tumour), {sum(len(t[1]) for t in test)} to score"
    )
    rng = np.random.default_rng(args.seed)
    draws = rng.integers(len(test), size=(1000, len(test)))
    for strength in STRENGTHS:
        w = fit((x - mean) / deviation, y, strength)
        scored = [((tx - mean) / deviation @ w[:-1], ty) for tx, ty in test]
        value = auroc(
            np.concatenate([s for s, _ in scored]), np.concatenate([t for _, t in scored])
        )
        # Tiles of a slide share its stain, so whole slides are drawn, not tiles.
        again = [
            auroc(
                np.concatenate([scored[i][0] for i in draw]),
                np.concatenate([scored[i][1] for i in draw]),
            )
            for draw in draws
        ]
        low, high = np.quantile(again, (0.025, 0.975))
        print(
            f"ridge {strength:g}: AUROC {value:.3f} (95% interval over slides {low:.3f}-{high:.3f})"
        )


if __name__ == "__main__":
    main()
