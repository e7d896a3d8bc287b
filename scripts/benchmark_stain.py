"""Tiles per second and core: stain normalisation and augmentation, beside MONAI and torchstain.

Contenders take turns, so that a machine that slows down slows all of them; the best of the rounds
counts, in CPU time. Usage::

    OMP_NUM_THREADS=1 python scripts/benchmark_stain.py [--side 256] [--rounds 5]
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from pathology.data.augment import AUGMENTATIONS, BatchAugmentation
from pathology.stain import StainNormaliser, StainSettings, fit_image
from pathology.synthetic import SyntheticSlideSpec, render

METHODS = ("macenko", "vahadane", "reinhard")
TILES = 16


def cut(seed: int, side: int) -> np.ndarray:
    """Tiles of made-up tissue, ``(TILES, side, side, 3)``."""
    across = side * round(TILES**0.5)
    pixels = render(SyntheticSlideSpec(seed, (across, across)), 0, 0, across, across).rgb
    rows = pixels.reshape(-1, side, across // side, side, 3).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(-1, side, side, 3))


def contenders(side: int) -> dict[str, Callable[[], object]]:
    """What each does to all tiles."""
    source, target = cut(1, side), cut(2, side)
    batch = torch.from_numpy(source).permute(0, 3, 1, 2).contiguous()
    work: dict[str, Callable[[], object]] = {}
    for method in METHODS:
        settings = StainSettings(method)
        own, other = (fit_image(t.reshape(-1, side, 3), settings) for t in (source, target))
        normalise = StainNormaliser(other)
        work[f"ours, {method}"] = lambda normalise=normalise, own=own: normalise(batch, own)
    for name, strengths in AUGMENTATIONS.items():
        if name != "none":
            augment = BatchAugmentation(strengths)
            work[f"augment, {name}"] = lambda augment=augment: augment(batch)
    return work | peers(source, target, batch)


def peers(
    source: np.ndarray, target: np.ndarray, batch: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """MONAI and torchstain, which fit each tile as they go."""
    from monai.apps.pathology.transforms.stain.array import NormalizeHEStains
    from torchstain.numpy.normalizers.macenko import NumpyMacenkoNormalizer
    from torchstain.torch.normalizers.macenko import TorchMacenkoNormalizer
    from torchstain.torch.normalizers.reinhard import TorchReinhardNormalizer

    monai = NormalizeHEStains()
    in_numpy, in_torch = NumpyMacenkoNormalizer(), TorchMacenkoNormalizer()
    reinhard = TorchReinhardNormalizer()
    first = torch.from_numpy(target[0]).permute(2, 0, 1)
    in_numpy.fit(target[0])
    in_torch.fit(first)
    reinhard.fit(first)
    return {
        "MONAI, macenko": lambda: [monai(tile) for tile in source],
        "torchstain numpy, macenko": lambda: [in_numpy.normalize(t, stains=False) for t in source],
        "torchstain torch, macenko": lambda: [in_torch.normalize(t, stains=False) for t in batch],
        "torchstain torch, reinhard": lambda: [reinhard.normalize(tile) for tile in batch],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of peers
    work = contenders(options.side)
    best = dict.fromkeys(work, float("inf"))
    for _ in range(options.rounds + 1):  # the first round warms up
        for name, run in work.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    print(f"{options.side} px, one thread, best of {options.rounds}; times MONAI's macenko")
    for name, seconds in best.items():
        rate, factor = TILES / seconds, best["MONAI, macenko"] / seconds
        print(f"  {name:<28} {rate:8.0f} tiles/s {1e3 * seconds / TILES:8.2f} ms {factor:6.1f} x")


if __name__ == "__main__":
    main()
