"""Reading the tiles of a grid in batches, one batch ahead of whoever uses them."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathology.slides import Slide
from pathology.tiling import TileGrid


def read_batches(
    slide: Slide,
    grid: TileGrid,
    indices: NDArray[np.integer],
    batch_size: int,
    threads: int = 2,
    device: torch.device | str = "cpu",
    normalise: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[list[int], Tensor]]:
    """Tiles of ``grid`` at its own mpp, in the order given.

    Args:
        slide: the slide the grid belongs to.
        grid: its tiles.
        indices: which tiles.
        batch_size: tiles at once.
        threads: readers; decoding releases the interpreter's lock.
        device: where the tiles go.
        normalise: what they go through there, uint8 to uint8.

    Yields:
        Indices and uint8 tiles ``(batch, 3, height, width)``.
    """

    def read(index: int) -> np.ndarray:
        return slide.read(grid[index].box, mpp=grid.spec.mpp)

    def start(first: int) -> tuple[list[int], list[Future[np.ndarray]]]:
        chosen = [int(i) for i in indices[first : first + batch_size]]
        return chosen, [pool.submit(read, i) for i in chosen]

    with ThreadPoolExecutor(threads) as pool:
        ahead = start(0)
        for first in range(batch_size, len(indices) + batch_size, batch_size):
            (chosen, tiles), ahead = ahead, start(first)
            stacked = np.stack([tile.result() for tile in tiles])
            batch = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(device)
            yield chosen, normalise(batch) if normalise else batch
