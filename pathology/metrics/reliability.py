"""Whether probabilities are what they say: expected calibration error and its bins."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Binning = Literal["width", "count"]


class Reliability:
    """Bins of predicted probability, and the expected calibration error over them.

    ``ECE = sum over bins of (examples in it / all) * |share that is true - mean probability|``.
    Bins of equal width as in Naeini et al. (AAAI 2015) and Guo et al. (ICML 2017), or of equally
    many examples (adaptive; Nguyen and O'Connor, EMNLP 2015). Their edges are those of all
    examples and stay for every bootstrap draw.

    Args:
        probability: ``(n,)`` in [0, 1].
        true: ``(n,)`` whether what was predicted is the case.
        bins: how many.
        binning: of equal ``width``, or of equal ``count``.

    Raises:
        ValueError: fewer than one bin, or an unknown binning.
    """

    def __init__(
        self,
        probability: NDArray[np.float64],
        true: NDArray[np.bool_],
        bins: int = 15,
        binning: Binning = "width",
    ) -> None:
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        if binning == "width":
            # As published: a bin holds its upper edge and not its lower.
            place = np.ceil(probability * bins).astype(np.int64) - 1
            self.bin = np.clip(place, 0, bins - 1)
        elif binning == "count":
            # Equal probabilities stay together, whatever their order.
            edges = np.quantile(probability, np.arange(1, bins) / bins, method="inverted_cdf")
            self.bin = np.searchsorted(np.unique(edges), probability, side="left")
        else:
            raise ValueError(f"binning must be width or count, got {binning!r}")
        self.bins = bins
        self.probability, self.true = probability, true
        self.gap = true - probability

    def __call__(self, weights: NDArray[np.float64]) -> float:
        """The expected calibration error with each example counted ``weights (n,)`` times."""
        gaps = np.bincount(self.bin, weights * self.gap, self.bins)
        return float(np.abs(gaps).sum() / weights.sum())

    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Mean probability, share that is true and number of examples of each bin with any."""
        counts = np.bincount(self.bin, minlength=self.bins)
        filled = counts > 0
        with np.errstate(invalid="ignore"):
            said = np.bincount(self.bin, self.probability, self.bins) / counts
            found = np.bincount(self.bin, self.true, self.bins) / counts
        return said[filled], found[filled], counts[filled]
