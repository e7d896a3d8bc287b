"""Bags of synthetic slides with small lesions, of which it is known what every tile holds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pathology.data.encoders import Encoder
from pathology.metrics.froc import LESION_MPP
from pathology.outputs import complete_file
from pathology.synthetic import SyntheticSlideSpec
from pathology.synthetic.layout import TUMOUR
from pathology.synthetic.slide import render

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Wraps an iterable, given its length and what is being done."""

VERSION = 1
"""Goes up when the same settings give other bags."""
MIN_TISSUE = 0.5
"""Share of a tile that has to be tissue."""
_AT_ONCE = 64
_DRAWS = 20  # of a slide, until it has a lesion tile


@dataclass(frozen=True, slots=True, eq=False)
class SlideBag:
    """A slide as a bag.

    Args:
        name: of the slide, which is its patient's only one.
        features: ``(N, D)`` float32, of tiles row by row.
        tumour: ``(N,)`` share of each tile that is tumour.
        corners: ``(N, 2)`` left and top of each tile in level-0 pixels.
        tile_px: side of a tile, without gaps between them.
        mpp: micrometres per level-0 pixel.
        lesion_raster: ``(h, w)`` bool, whether the middle of each square of :attr:`raster_um`
            micrometres is tumour.
        lesion_share: of a tile, from which on it is a lesion tile.
    """

    name: str
    features: torch.Tensor
    tumour: NDArray[np.float64]
    corners: NDArray[np.int64]
    tile_px: int
    mpp: float
    lesion_raster: NDArray[np.bool_]
    lesion_share: float

    raster_um = LESION_MPP

    @property
    def lesion(self) -> NDArray[np.bool_]:
        """``(N,)``: which tiles are lesion."""
        return self.tumour >= self.lesion_share

    @property
    def label(self) -> int:
        """1 where there is a lesion tile."""
        return int(self.lesion.any())


@dataclass(frozen=True, slots=True)
class BagSpec:
    """What slides are like.

    Args:
        size_px: side of a slide.
        tile_px: side of a tile.
        mpp: micrometres per pixel of both.
        tumour: lowest and highest share of a lesion in the tissue; drawn evenly on a logarithm.
        lesion_share: of a tile, from which on it is a lesion tile.

    Raises:
        ValueError: a slide smaller than a tile, or shares out of order.
    """

    size_px: int = 1536
    tile_px: int = 64
    mpp: float = 1.0
    tumour: tuple[float, float] = (0.01, 0.08)
    lesion_share: float = 0.1

    def __post_init__(self) -> None:
        sides = (self.tile_px, self.size_px)
        if not all(isinstance(side, int) for side in sides) or not 1 <= sides[0] <= sides[1]:
            raise ValueError(
                f"tile_px must be from 1 to size_px, whole pixels; got {sides[0]} and {sides[1]}"
            )
        if not isinstance(self.tumour, tuple) or len(self.tumour) != 2:
            raise ValueError(f"tumour must be two rising shares in (0, 1], got {self.tumour}")
        if not 0 < self.tumour[0] <= self.tumour[1] <= 1:
            raise ValueError(f"tumour must be two rising shares in (0, 1], got {self.tumour}")
        if not 0 < self.lesion_share <= 1:
            raise ValueError(f"lesion_share must be in (0, 1], got {self.lesion_share}")
        SyntheticSlideSpec(0, (self.size_px, self.size_px), self.mpp)  # its own checks


def make_bags(
    spec: BagSpec,
    encoder: Encoder,
    names: dict[str, bool],
    out: Path,
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> dict[str, SlideBag]:
    """Bags of slides, each kept as a file as soon as it is made.

    Args:
        spec: what slides are like.
        encoder: makes features of tiles.
        names: of slides, and whether each has a lesion; a name is a slide of its own.
        out: folder for nothing but the bags of this very spec, encoder and seed.
        seed: of the slides.
        device: that the encoder is on.
        progress: wraps slides.

    Raises:
        ValueError: the encoder takes no tiles of that size, or no slide of this spec gets a lesion.
        OutputError: a file cannot be written.
    """
    encoder.check_size(spec.tile_px, "slides")
    bags = {}
    for name in progress(list(names), len(names), "slides"):
        path = out / f"{name}.npz"
        if not path.is_file():
            arrays = _render(spec, encoder, name, names[name], seed, device)
            with complete_file(path) as draft, draft.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        with np.load(path) as found:
            bags[name] = SlideBag(
                name, torch.from_numpy(found["features"]), found["tumour"], found["corners"],
                spec.tile_px, spec.mpp, found["lesion_raster"], spec.lesion_share,
            )  # fmt: skip
    return bags


def _render(
    spec: BagSpec, encoder: Encoder, name: str, has_lesion: bool, seed: int, device: torch.device
) -> dict[str, NDArray[Any]]:
    """A slide's arrays; drawn again where a lesion was too small to fill any tile."""
    rng = np.random.default_rng([seed, *name.encode()])
    for _ in range(_DRAWS):
        low, high = np.log(spec.tumour)
        share = float(np.exp(rng.uniform(low, high))) if has_lesion else 0.0
        slide = SyntheticSlideSpec(
            int(rng.integers(2**31)), (spec.size_px, spec.size_px), spec.mpp, share
        )
        part = render(slide, 0, 0, spec.size_px, spec.size_px)
        regions = _tiles(part.regions, spec.tile_px)
        kept = np.flatnonzero((regions > 0).mean((1, 2)) >= MIN_TISSUE)
        tumour = (regions[kept] == TUMOUR).mean((1, 2))
        if len(kept) and bool((tumour >= spec.lesion_share).any()) == has_lesion:
            break
    else:
        raise ValueError(
            f"{_DRAWS} slides of {spec.size_px} px gave none with a lesion that fills"
            f" {spec.lesion_share:.0%} of a tile of tissue; take larger slides or a higher tumour"
        )
    side = spec.size_px // spec.tile_px
    corners = np.stack([kept % side, kept // side], axis=1) * spec.tile_px
    pixels = torch.from_numpy(_tiles(part.rgb, spec.tile_px)[kept]).permute(0, 3, 1, 2)
    features = [encoder(each.contiguous().to(device)).cpu() for each in pixels.split(_AT_ONCE)]
    step = LESION_MPP / spec.mpp
    middles = ((np.arange(int(spec.size_px / step)) + 0.5) * step).astype(np.int64)
    return {
        "features": torch.cat(features).numpy(),
        "tumour": tumour,
        "corners": corners.astype(np.int64),
        "lesion_raster": part.regions[np.ix_(middles, middles)] == TUMOUR,
    }


def _tiles(raster: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """``(h, w, ...)`` to ``(tiles, side, side, ...)``, row by row, whole ones only."""
    rows, columns = raster.shape[0] // side, raster.shape[1] // side
    whole = raster[: rows * side, : columns * side]
    cut = whole.reshape(rows, side, columns, side, *raster.shape[2:]).swapaxes(1, 2)
    return cut.reshape(rows * columns, side, side, *raster.shape[2:])
