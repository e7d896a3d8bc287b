"""Reading windows of a slide in batches, some ahead of whoever uses them."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pathology.geometry import Box
from pathology.slides import Slide

T = TypeVar("T")
AHEAD = 2
"""Batches that are read beyond the one in use."""


def read_batches(
    slide: Slide,
    items: Sequence[T],
    box: Callable[[T], Box],
    mpp: float,
    batch_size: int,
    threads: int | None = None,
    device: torch.device | str = "cpu",
    normalise: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[list[T], Tensor]]:
    """What lies under boxes, in the order given.

    Args:
        slide: the slide.
        items: what to read, one after another.
        box: where an item lies, in level-0 pixels; all of one size.
        mpp: micrometres per pixel to read at.
        batch_size: items at once.
        threads: readers, which decode without the interpreter's lock; as many as there are
            processors, at most 8, when omitted.
        device: where the pixels go.
        normalise: what they go through there, uint8 to uint8.

    Yields:
        Items and uint8 pixels ``(batch, 3, height, width)``.
    """
    threads = threads or min(8, os.cpu_count() or 1)

    def read(item: T) -> np.ndarray:
        return slide.read(box(item), mpp=mpp)

    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[list[T], list[Future[np.ndarray]]]] = deque()
        try:
            for first in range(0, len(items), batch_size):
                chosen = list(items[first : first + batch_size])
                ahead.append((chosen, [pool.submit(read, item) for item in chosen]))
                if len(ahead) > AHEAD:
                    yield _batch(*ahead.popleft(), device, normalise)
            while ahead:
                yield _batch(*ahead.popleft(), device, normalise)
        finally:  # of a caller that gives up
            for _, futures in ahead:
                for future in futures:
                    future.cancel()


def _batch(
    chosen: list[T],
    pixels: list[Future[np.ndarray]],
    device: torch.device | str,
    normalise: Callable[[Tensor], Tensor] | None,
) -> tuple[list[T], Tensor]:
    stacked = np.stack([each.result() for each in pixels])
    batch = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(device)
    return chosen, normalise(batch) if normalise else batch
