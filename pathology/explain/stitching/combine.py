"""Several maps of a slide made one: their mean, and how far they are apart; band by band.

**Members** are maps of one score by several models, or on several grids. Of ``n`` of them::

    mean       sum of the members / n      0 from a member that has nothing there
    spread     standard deviation (k - 1) of the k members that cover a pixel
    agreement  share of those k whose sign is the mean's
    members    k

The mean is what one stitch of all members' tiles would be, each at 1/n of its weight, so its sum is
the mean of their sums and its ledger the mean of theirs, entry by entry. Members on shifted grids
end in different places. To a sum what a member has not looked at adds nothing; how far members are
apart is asked only of those that looked, or the rim of every tissue would look uncertain.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pathology.explain.ledger import Ledger, Undivided
from pathology.explain.stitching.stitch import Stitched
from pathology.maps.slide_map import SlideMap
from pathology.outputs import complete_file

Floats = NDArray[np.float64]

HELD_VALUES = 1 << 21
"""Pixels of all maps together that are in memory at once: 16 MiB of float64."""


def mean_map(parts: Sequence[Stitched], folder: str | Path) -> Stitched:
    """The mean of several maps, and of their coverage.

    Args:
        parts: of one slide, in pixels of one size.
        folder: where its rasters are written; made if missing.

    Returns:
        The map, with the means of what was given and cut off. ``rounding`` is what it and its parts
        lost in storage: ``given = map_sum + rounding + cut_off`` holds.

    Raises:
        OutputError: the folder cannot be written.
        ValueError: no maps, or of different shapes.
    """
    check_alike(parts)
    folder, count = Path(folder), len(parts)
    (folder / "density.f32").unlink(missing_ok=True)  # of an earlier map
    stored: list[float] = []
    with rasters(folder, parts[0].shape[1], ("sum.f32", "weight.f32")) as write:
        for values, weights in zip(bands(parts), bands(parts, "weight.f32"), strict=True):
            seen = np.isfinite(values)
            total = np.where(seen, values, 0.0).sum(axis=0) / count
            band = np.where(seen.any(axis=0), total, np.nan).astype(np.float32)
            stored.append(float(np.nansum(band, dtype=np.float64)))
            write({"sum.f32": band, "weight.f32": weights.sum(axis=0) / count})
    given, cut_off = (
        math.fsum(getattr(part, name) for part in parts) / count for name in ("given", "cut_off")
    )
    map_sum = math.fsum(stored)
    return replace(
        parts[0],
        folder=folder,
        given=given,
        map_sum=map_sum,
        rounding=given - cut_off - map_sum,
        cut_off=cut_off,
        absolute_sum=math.fsum(part.absolute_sum for part in parts) / count,
        tiles=sum(part.tiles for part in parts),
    )


def mean_ledger(ledgers: Sequence[Ledger], mean: Stitched) -> Ledger:
    """The ledger of a mean map: the mean of its members' ledgers, entry by entry.

    The map's entry is the sum of ``mean`` as stored. A member without a constant has 0 of it. The
    gap is at most the mean of the members' tolerances, which is its own. Undivided tiles are
    those of all members.

    Args:
        ledgers: of the members.
        mean: their mean map.

    Raises:
        LedgerError: it does not close.
        ValueError: there are none.
    """
    if not ledgers:
        raise ValueError("a mean needs at least one ledger")

    def of(numbers: Iterator[float]) -> float:
        return math.fsum(numbers) / len(ledgers)

    names = dict.fromkeys(name for ledger in ledgers for name in ledger.constants)
    whole = [each.undivided for each in ledgers if each.undivided is not None]
    ledger = replace(
        ledgers[0],
        score=of(each.score for each in ledgers),
        bias=of(each.bias for each in ledgers),
        map_sum=mean.map_sum,
        cut_off=mean.cut_off,
        tolerance=of(each.tolerance for each in ledgers),
        constants={name: of(each.constants.get(name, 0.0) for each in ledgers) for name in names},
        undivided=Undivided(
            tiles=sum(each.tiles for each in whole),
            net=of(each.net for each in whole),
            absolute=of(each.absolute for each in whole),
        )
        if whole
        else None,
    )
    ledger.check()
    return ledger


def disagreement(
    parts: Sequence[Stitched], folder: str | Path
) -> tuple[dict[str, SlideMap], float | None]:
    """How far members are apart.

    Args:
        parts: their maps.
        folder: where rasters are written; made if missing.

    Returns:
        ``spread``: in the maps' unit per pixel; NaN where fewer than two members look.
        ``agreement``: in [0, 1]; where the mean is 0, members agree that say 0; NaN where none
        look. ``members``: how many look, 0 and up. And the share of the mean's absolute sum that
        lies in pixels where all agree; None for a mean of zeros.

    Raises:
        OutputError: the folder cannot be written.
        ValueError: fewer than two maps, or of different shapes.
    """
    check_alike(parts, least=2)
    folder, names = Path(folder), ("spread", "agreement", "members")
    agreed = of_all = 0.0
    with rasters(folder, parts[0].shape[1], tuple(f"{name}.f32" for name in names)) as write:
        for values in bands(parts):
            seen = np.isfinite(values)
            looking = seen.sum(axis=0).astype(np.float64)
            values = np.where(seen, values, 0.0)
            total = values.sum(axis=0)
            apart = np.where(seen, values - ratio(total, looking), 0.0)
            spread = np.sqrt(ratio((apart**2).sum(axis=0), looking - 1))
            alike = ((np.sign(values) == np.sign(total)) & seen).sum(axis=0)
            made = {"spread": spread, "agreement": ratio(alike, looking), "members": looking}
            of_all += float(np.abs(total).sum())
            agreed += float(np.abs(total)[alike == looking].sum())
            write({f"{name}.f32": band for name, band in made.items()})
    units = (parts[0].unit, "share of members", "members")
    layers = {
        name: raster(parts[0], folder / f"{name}.f32", unit)
        for name, unit in zip(names, units, strict=True)
    }
    return layers, agreed / of_all if of_all else None


# --- rasters, a band at a time ------------------------------------------------------------------


def check_alike(parts: Sequence[Stitched], least: int = 1) -> None:
    """Refuse maps that do not lie pixel upon pixel.

    Raises:
        ValueError: saying what differs, or that there are too few.
    """
    if len(parts) < least:
        raise ValueError(f"at least {least} maps are needed, got {len(parts)}")
    for part in parts[1:]:
        for name in ("shape", "box", "slide_mpp", "unit"):
            ours, theirs = getattr(parts[0], name), getattr(part, name)
            if ours != theirs:
                raise ValueError(f"maps must have one {name}, got {ours} and {theirs}")


def bands(parts: Sequence[Stitched], name: str = "sum.f32") -> Iterator[Floats]:
    """``(maps, rows, width)`` from top to bottom; so many rows that memory does not grow."""
    height, width = parts[0].shape
    rows = max(1, HELD_VALUES // (len(parts) * width))
    with ExitStack() as files:
        # Plain reads: pages of a memory map would count as ours.
        opened = [files.enter_context((part.folder / name).open("rb")) for part in parts]
        for top in range(0, height, rows):
            count = min(rows, height - top) * width
            stack = [np.frombuffer(file.read(count * 4), np.float32) for file in opened]
            yield np.stack(stack).astype(np.float64).reshape(len(parts), -1, width)


@contextmanager
def rasters(folder: Path, width: int, names: Sequence[str]) -> "Iterator[Write]":
    """Files of raw float32 rows, written a band at a time; there when the block succeeds.

    Yields:
        A function that takes the next band of each file, by name.

    Raises:
        OutputError: they cannot be written.
    """
    with ExitStack() as stack:
        drafts = {name: stack.enter_context(complete_file(folder / name)) for name in names}
        files = {name: stack.enter_context(draft.open("wb")) for name, draft in drafts.items()}
        yield Write(files, width)


@dataclass(frozen=True)
class Write:
    """Appends bands to files.

    Args:
        files: by name.
        width: of every band.
    """

    files: Mapping[str, BinaryIO]
    width: int

    def __call__(self, bands: Mapping[str, NDArray[np.floating]]) -> None:
        for name, band in bands.items():
            self.files[name].write(np.ascontiguousarray(band, np.float32).data)


def raster(like: Stitched, path: Path, unit: str) -> SlideMap:
    """What :func:`rasters` wrote, placed as another map."""
    values = np.memmap(path, np.float32, mode="r", shape=like.shape)
    return SlideMap(values, like.box, like.slide_mpp, unit)


def ratio(above: NDArray[np.number], below: NDArray[np.number]) -> Floats:
    """A quotient, NaN where the divisor is not positive."""
    shape = np.broadcast_shapes(above.shape, below.shape)
    quotient: Floats = np.full(shape, np.nan)
    np.divide(above, below, out=quotient, where=np.broadcast_to(below > 0, shape))
    return quotient
