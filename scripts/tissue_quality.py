#!/usr/bin/env python3
"""How well the masks of artefacts find what was painted, and what they take from clean slides.

Prints two tables. On made-up slides with one painted artefact each: recall and precision by pixels
of 8 um (of a line's mask: precision within two pixels), and how much of the tissue of the same
slide without it is taken. On real slides (under BCOS_PATHOLOGY_DATA): the share of the tissue that
each mask takes; they hold next to no artefacts, so this is mostly what is taken by mistake.

    python scripts/tissue_quality.py
"""

import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide, open_slide
from pathology.synthetic import SyntheticSlideSpec, render
from pathology.synthetic.artefacts import (
    Painted,
    paint_black,
    paint_blur,
    paint_edge,
    paint_fold,
    paint_pen,
)
from pathology.tissue import ARTEFACTS, FINDERS, survey
from pathology.tissue.picture import on_grid

MPP = 1.0
TISSUE_PX, MARGIN_PX = 1536, 640
DATA = Path(os.environ.get("BCOS_PATHOLOGY_DATA", Path(__file__).parents[2] / "shared" / "data"))
REAL = {"CMU-1-Small-Region.svs": None, "her2st_C2.tif": 0.69, "her2st_C3.tif": 0.69}


class Clean(NamedTuple):
    """A made-up slide without artefacts, and where its tissue is."""

    rgb: NDArray[np.uint8]
    tissue: NDArray[np.bool_]


class Score(NamedTuple):
    """How well one painted artefact was found."""

    recall: float
    precision: float


@cache
def clean(seed: int) -> Clean:
    """Tissue with a wide margin of glass, at 1 um."""
    spec = SyntheticSlideSpec(seed=seed, size_px=(TISSUE_PX, TISSUE_PX), mpp=MPP)
    made = render(spec, 0, 0, TISSUE_PX, TISSUE_PX)
    glass = np.median(made.rgb[made.regions == 0], axis=0)
    side = TISSUE_PX + 2 * MARGIN_PX
    rgb = np.random.default_rng(seed).normal(glass, 1.5, (side, side, 3)).round().astype(np.uint8)
    tissue = np.zeros((side, side), bool)
    inner = slice(MARGIN_PX, MARGIN_PX + TISSUE_PX)
    rgb[inner, inner], tissue[inner, inner] = made.rgb, made.regions > 0
    return Clean(rgb, tissue)


def cases() -> dict[str, tuple[str, Callable[[Clean, np.random.Generator], Painted]]]:
    """What is painted, by a name to print: which mask is to find it, and how it is painted."""

    def paint(
        painter: Callable[..., Painted], slide: Clean, rng: np.random.Generator, **how: object
    ) -> Painted:
        return painter(slide.rgb, MPP, rng, **how)

    def fold(slide: Clean, rng: np.random.Generator, **how: object) -> Painted:
        return paint_fold(slide.rgb, MPP, rng, slide.tissue, **how)  # type: ignore[arg-type]

    table: dict[str, tuple[str, Callable[[Clean, np.random.Generator], Painted]]] = {}
    for ink in ("green", "blue", "red", "black"):
        table[f"{ink} pen"] = ("pen", partial(paint, paint_pen, ink=ink))
    for ink in ("green", "blue", "red", "black"):
        table[f"{ink} pen, half as strong"] = (
            "pen",
            partial(paint, paint_pen, ink=ink, strength=0.5),
        )
    table["fold of 3 layers, 80 um"] = ("fold", fold)
    table["fold of 2 layers, 80 um"] = ("fold", partial(fold, layers=2))
    table["fold of 3 layers, 40 um"] = ("fold", partial(fold, width_um=40.0))
    for sigma in (1.5, 2.0, 4.0, 8.0):
        table[f"blur of {sigma:g} um"] = ("blur", partial(paint, paint_blur, sigma_um=sigma))
    table["coverslip's edge"] = ("edge", partial(paint, paint_edge))
    table["coverslip's edge, faint"] = ("edge", partial(paint, paint_edge, density=0.15))
    table["rim of a bubble"] = ("edge", partial(paint, paint_edge, bubble=True))
    table["black fill"] = ("black", partial(paint, paint_black))
    return table


def measure(name: str, seed: int) -> Score:
    """Paint one artefact onto the clean slide of that seed, and look for it."""
    artefact, paint = cases()[name]
    painted = paint(clean(seed), np.random.default_rng(seed))
    slide = MemorySlide(painted.rgb, MPP)
    looked = survey(slide, exclude=[artefact])
    box, shape = looked.found.box, looked.found.values.shape
    truth = SlideMap(painted.mask.astype(np.float32), slide.bounds, slide.mpp)
    there = on_grid(truth, box, shape) >= 0.5
    taken = on_grid(looked.artefacts[artefact], box, shape) >= 0.5
    if artefact == "blur":  # glass is never sharp
        there, taken = (mask & (looked.found.values > 0) for mask in (there, taken))
    # A line is hardly wider than a pixel of the mask, so its rim is most of it.
    near = ndimage.binary_dilation(there, iterations=2) if artefact == "edge" else there
    return Score(
        float((there & taken).sum() / there.sum()),
        float((near & taken).sum() / max(1, taken.sum())),
    )


def taken_from_clean(seed: int) -> dict[str, float]:
    """Share of the tissue of a clean slide that each mask takes."""
    shares = survey(MemorySlide(clean(seed).rgb, MPP)).shares()
    return {name: shares[name] for name in ARTEFACTS}


def real_shares() -> Iterator[tuple[str, str, dict[str, float]]]:
    """Real slide, finder, and what each mask takes of its tissue."""
    for name, mpp in REAL.items():
        if (DATA / "slides" / name).exists():
            with open_slide(DATA / "slides" / name, mpp=mpp) as slide:
                for finder in FINDERS:
                    yield name, finder, survey(slide, finder).shares()


def main() -> None:
    """Print the tables."""
    seeds = range(3, 7)
    print("| painted | recall | worst | precision | worst |\n|---|---|---|---|---|")
    for name in cases():
        scores = np.array([measure(name, seed) for seed in seeds])
        (recall, precision), (low, lowest) = scores.mean(axis=0), scores.min(axis=0)
        print(f"| {name} | {recall:.3f} | {low:.3f} | {precision:.3f} | {lowest:.3f} |")
    print(f"\n| taken from | {' | '.join(ARTEFACTS)} |\n|---|{'---|' * len(ARTEFACTS)}")
    for seed in seeds:
        shares = taken_from_clean(seed)
        print(f"| made-up {seed} | {' | '.join(f'{shares[a]:.4f}' for a in ARTEFACTS)} |")
    for name, finder, shares in real_shares():
        row = " | ".join(f"{shares[artefact]:.4f}" for artefact in ARTEFACTS)
        print(f"| {name}, {finder} | {row} |")


if __name__ == "__main__":
    main()
