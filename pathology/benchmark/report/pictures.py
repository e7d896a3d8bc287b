"""Example maps side by side: the same examples for every method, one scale for each method."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bcos_vit.render import diverging, symmetric_limit

SIDE = 112
"""Pixels of a shown example's side."""
GAP = 6
OUTLINE = (0, 140, 90)


@dataclass(frozen=True, eq=False)
class Picture:
    """One example, and what one method said about it.

    Args:
        study: that it is of.
        data: name of the tile set.
        backbone: name of the network.
        seed: of its training.
        method: of explanation.
        name: of the example.
        image: ``(h, w, 3)`` uint8 RGB.
        map: ``(h, w)`` as the method made it, signed where it has signs.
        target: class explained.
        mask: ``(h, w)`` bool, where the evidence is; ``None`` where that is unknown.
        unit: of the map, ``"logits"`` or ``"none"``.
    """

    study: str
    data: str
    backbone: str
    seed: int
    method: str
    name: str
    image: NDArray[np.uint8]
    map: NDArray[np.float32]
    target: str
    mask: NDArray[np.bool_] | None = None
    unit: str = "none"


@dataclass(frozen=True)
class Row:
    """One method's maps in a strip.

    Args:
        method: empty for the examples themselves.
        image: the examples side by side.
        scale: what the deepest colour means, in words.
    """

    method: str
    image: Image.Image
    scale: str


@dataclass(frozen=True)
class Strip:
    """All methods on one network, for the same examples.

    Args:
        data: name of the tile set.
        backbone: name of the network.
        seed: of its training.
        examples: names, in the order shown, with the class explained.
        rows: examples first, then methods.
    """

    data: str
    backbone: str
    seed: int
    examples: list[str]
    rows: list[Row] = field(default_factory=list)


def strips(pictures: Sequence[Picture], most: int = 6) -> Iterator[Strip]:
    """Strips of each data set and network, in the order they come, of the first seed.

    Colours are symmetric about zero: orange speaks for the class, blue against it, white is zero.
    The deepest colour is the 99.5 % quantile of ``|value|`` over all of a method's examples here,
    so within a row colours can be compared; rows have scales of their own, for methods have.

    Args:
        pictures: of one study; an example that a method lacks is left grey.
        most: examples shown.
    """
    groups: dict[tuple[str, str], list[Picture]] = {}
    for picture in pictures:
        groups.setdefault((picture.data, picture.backbone), []).append(picture)
    for (data, backbone), found in groups.items():
        seed = min(one.seed for one in found)
        found = [one for one in found if one.seed == seed]
        by_name = {one.name: one for one in reversed(found)}
        names = list(dict.fromkeys(one.name for one in found))[:most]
        strip = Strip(data, backbone, seed, [f"{n} ({by_name[n].target})" for n in names])
        shown = [_outlined(by_name[n].image, by_name[n].mask) for n in names]
        strip.rows.append(Row("", _side_by_side(shown), "the examples; evidence outlined"))
        for method in dict.fromkeys(one.method for one in found):
            maps = {one.name: one for one in found if one.method == method}
            strip.rows.append(_row(method, [maps.get(n) for n in names]))
        yield strip


def _row(method: str, pictures: Sequence[Picture | None]) -> Row:
    there = [one for one in pictures if one is not None]
    values = np.concatenate([one.map.ravel() for one in there]) if there else np.empty(0)
    limit = symmetric_limit(values)
    unit = "logits per pixel" if any(one.unit == "logits" for one in there) else "of no unit"
    shown = [
        np.full((SIDE, SIDE, 3), 222, np.uint8)
        if one is None
        else _outlined(diverging(one.map, limit), one.mask)
        for one in pictures
    ]
    least = float(np.nanmin(values)) if values.size and not np.isnan(values).all() else 0.0
    sign = "±" if least < 0 else "0 to "
    return Row(method, _side_by_side(shown), f"{sign}{limit:.2g} {unit}")


def _outlined(pixels: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Pixels at the size shown, with the mask's edge drawn over them."""
    shown = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    if mask is None or not mask.any():
        return shown
    inside = np.asarray(
        Image.fromarray(mask.astype(np.uint8) * 255).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    ).astype(bool)
    padded = np.pad(inside, 1, mode="edge")
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    shown = shown.copy()
    shown[inside & ~core] = OUTLINE
    return shown


def _side_by_side(images: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """RGBA, so that gaps show the page."""
    width = len(images) * (SIDE + GAP) - GAP
    row = np.zeros((SIDE, max(width, 1), 4), np.uint8)
    for i, image in enumerate(images):
        left = i * (SIDE + GAP)
        row[:, left : left + SIDE, :3] = image
        row[:, left : left + SIDE, 3] = 255
    return Image.fromarray(row)
