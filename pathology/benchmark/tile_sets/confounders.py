"""What is planted beside the evidence: a mark that goes with one class in training.

What a good explanation must show depends on the mark.

* ``pen``: a stroke of green marker over a part of the tile. A network that learnt it is right to
  point at the stroke and nowhere else.
* ``blur``: a round part out of focus. Likewise, though nuclei within it are hard to see.
* ``tint``: another scanner's colours over the whole tile, glass too. The mask is all of it, so
  energy within it says nothing; there the evidence must *not* be pointed at: a network that reads
  the tint owes its score to everything alike, and the concentration on nuclei should be 1 or less.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pathology.synthetic.artefacts import Painted, paint_blur, paint_pen, paint_tint

Confounder = Literal["pen", "tint", "blur"]
CONFOUNDERS: tuple[str, ...] = get_args(Confounder)

SHARES = {"pen": (0.06, 0.22), "blur": (0.12, 0.35)}
"""Least and largest share of a tile that a mark takes."""
TRIES = 500
"""Places of a mark that are tried; of ordinary tiles one of the first few will do."""


def plant(kind: Confounder, rgb: NDArray[np.uint8], rng: np.random.Generator) -> Painted:
    """A tile with a mark; outside its mask no pixel is changed.

    Marks lie anywhere, not in the middle only, where a map of the middle would find them.

    Args:
        kind: of the mark.
        rgb: ``(side, side, 3)`` uint8; not changed.
        rng: where the mark lies.

    Raises:
        ValueError: nowhere does a mark of the wanted size show, as a pen's on a black tile.
    """
    if kind == "tint":
        return paint_tint(rgb, 1.0, rng)
    side = len(rgb)
    least, most = SHARES[kind]
    for _ in range(TRIES):
        # The mark goes through the middle of a canvas, of which the tile is some part.
        top, left = rng.integers(0, side + 1, 2)
        canvas = np.pad(rgb, ((top, side - top), (left, side - left), (0, 0)), mode="symmetric")
        if kind == "pen":
            # In units in which the soft rim of a stroke is less than a pixel wide.
            painted = paint_pen(canvas, 4.0, rng, "green", width_um=0.12 * side * 4.0)
        else:
            painted = paint_blur(canvas, 1.0, rng, sigma_um=side / 20, share=0.15)
        rgb_there = painted.rgb[top : top + side, left : left + side]
        # Of a stroke its rim, too.
        taken = (rgb_there != rgb).any(-1) if kind == "pen" else painted.mask[top:, left:]
        mask = taken[:side, :side].copy()
        if least <= mask.mean() <= most:
            return Painted(rgb_there.copy(), mask)
    raise ValueError(
        f"{kind}: of {TRIES} marks none shows on {100 * least:g} to {100 * most:g} % of a tile of"
        f" {side} x {side} px whose mean colour is {rgb.mean((0, 1)).round().astype(int).tolist()};"
        " ink darkens, so leave out tiles that are black"
    )
