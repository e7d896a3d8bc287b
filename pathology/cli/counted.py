"""Batches of tiles on their way to a model, and what the engine is told of them."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from pathology.cohort.counting import count


def counted(batches: Iterable[tuple[list[Any], Any]]) -> Iterator[tuple[list[Any], Any]]:
    """The same batches; their tiles are counted, and how long each was waited for.

    Args:
        batches: tiles, or windows of several (``tiles``), with their pixels.
    """
    batches = iter(batches)
    pixels: Any = None
    while True:
        _finish(pixels)
        began = time.perf_counter()
        try:
            chosen, pixels = next(batches)
        except StopIteration:
            return
        waited_s = time.perf_counter() - began
        yield chosen, pixels
        count(sum(len(getattr(each, "tiles", (each,))) for each in chosen), waited_s)


def _finish(pixels: Any) -> None:
    """Wait for what a graphics card still does with the batch before.

    Pixels are copied there in turn with that: it would count as waiting for them. Nothing is lost,
    since the next ones are read meanwhile.
    """
    if pixels is not None and pixels.device.type == "cuda":
        import torch

        torch.cuda.synchronize(pixels.device)
