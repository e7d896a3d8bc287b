"""How well scores of tiles find those that argue for a class, and those that argue against it."""

import torch
from torch import Tensor


def key_tile_precision(scores: Tensor, evidence: Tensor) -> Tensor:
    """AUPRC-2: average precision for tiles that argue for, and by ``-scores`` for those against.

    It is 1 where all tiles for a class are scored above all others and all tiles against it below.
    A bag that has only one of the two kinds is measured by that one; a kind that is all of the bag
    cannot be missed and does not count.

    Args:
        scores: ``(bags, tiles)``, for one class.
        evidence: ``(bags, tiles)`` of 1, -1 and 0, for that class.

    Returns:
        ``(bags,)`` float64 in [0, 1], NaN where a bag has neither kind.

    Source:
        xMIL, NeurIPS 2024 (arXiv:2406.04280), appendix A.3. Which bags count follows the
        authors' published evaluation.
    """
    found = torch.stack(
        [average_precision(scores, evidence > 0), average_precision(-scores, evidence < 0)]
    )
    return found.nanmean(0)


def average_precision(scores: Tensor, relevant: Tensor) -> Tensor:
    """Mean over relevant tiles of the precision among tiles scored at least as high.

    Args:
        scores: ``(bags, tiles)``.
        relevant: ``(bags, tiles)`` bool.

    Returns:
        ``(bags,)`` float64, NaN where no tile, or every one, is relevant.

    Raises:
        ValueError: a score is not a number.
    """
    if scores.isnan().any():
        raise ValueError("scores of tiles must be numbers, got NaN")
    above = (scores[:, None, :] >= scores[:, :, None]).double()
    wanted = relevant.double()
    precision = (above * wanted[:, None, :]).sum(-1) / above.sum(-1)
    count = wanted.sum(-1)
    mean = (precision * wanted).sum(-1) / count
    return torch.where((count > 0) & (count < scores.shape[1]), mean, torch.nan)
