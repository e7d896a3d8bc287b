"""Finding the two stains of H&E in optical densities, and how much of each a pixel holds.

torchstain, MONAI and TIAToolbox fit and apply per image, which fails on glass and gives
neighbouring tiles different colours; here vectors are found among pixels of a whole slide.
Macenko's agree with torchstain's on the same pixels. Vahadane's are found by the steps of
dictionary learning with the amounts solved exactly, as two stains allow: scikit-learn's coordinate
descent stops short where vectors are as near to each other as these.
"""

import numpy as np
from numpy.typing import NDArray

REFERENCE = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
"""Haematoxylin and eosin as rows of length 1: the reference that implementations of Macenko use."""

DICTIONARY_PIXELS = 20_000
"""The dictionary is learnt from no more pixels; vectors then vary by tenths of a degree."""

STEPS, STILL = 1000, 1e-6
"""The dictionary is learnt when vectors move less than this, or after so many steps."""


def macenko(densities: NDArray[np.float64], percentile: float) -> NDArray[np.float64]:
    """The outermost directions of the pixels in the plane of their largest variance.

    Args:
        densities: ``(n, 3)`` optical densities of stained pixels.
        percentile: share of pixels, in percent, left out beyond either direction.

    Returns:
        Haematoxylin and eosin as rows of length 1, ``(2, 3)``.

    Source:
        Macenko et al., "A method for normalizing histology slides for quantitative analysis",
        ISBI 2009.
    """
    _, vectors = np.linalg.eigh(np.cov(densities.T))
    # The larger first and turned towards the pixels, so that angles lie around 0 and none wraps.
    plane = vectors[:, [2, 1]]
    plane = plane * np.where(densities.mean(0) @ plane < 0, -1.0, 1.0)
    first, second = (densities @ plane).T
    extremes = np.percentile(np.arctan2(second, first), [percentile, 100 - percentile])
    return in_order(np.stack([np.cos(extremes), np.sin(extremes)], axis=1) @ plane.T)


def vahadane(
    densities: NDArray[np.float64], sparsity: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The two directions of which non-negative, sparse amounts explain the pixels best.

    Amounts and vectors are solved in turn, from :data:`REFERENCE`; vectors keep length 1, or the
    penalty on amounts would only make vectors longer.

    Args:
        densities: ``(n, 3)`` optical densities of stained pixels.
        sparsity: weight of the sum of amounts against half the squared error. More of it draws the
            vectors together; of none, any pair that spans the pixels is as good.
        rng: draws the pixels that are looked at.

    Returns:
        Haematoxylin and eosin as rows of length 1, ``(2, 3)``.

    Source:
        Vahadane et al., "Structure-preserving color normalization and sparse stain separation for
        histological images", IEEE TMI 35, 2016, eq. 4; the dictionary's step as in Mairal et al.,
        "Online learning for matrix factorization and sparse coding", JMLR 11, 2010.
    """
    if len(densities) > DICTIONARY_PIXELS:
        densities = densities[rng.choice(len(densities), DICTIONARY_PIXELS, replace=False)]
    vectors = REFERENCE / np.linalg.norm(REFERENCE, axis=1, keepdims=True)
    for _ in range(STEPS):
        before = vectors.copy()
        held = positive_amounts(densities, vectors, sparsity)
        squares, products = held.T @ held, held.T @ densities
        for _ in range(5):
            for i in (0, 1):
                if squares[i, i] > 0:
                    better = vectors[i] + (products[i] - squares[i] @ vectors) / squares[i, i]
                    better = better.clip(0)
                    vectors[i] = better / max(np.linalg.norm(better), 1e-12)
        if np.abs(vectors - before).max() < STILL:
            break
    return in_order(vectors)


def in_order(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Haematoxylin first: the order in which both rows together are nearer to :data:`REFERENCE`."""
    turned = vectors[::-1]
    straight = np.sum(vectors * REFERENCE) >= np.sum(turned * REFERENCE)
    return vectors if straight else turned


def angle(vectors: NDArray[np.float64]) -> float:
    """Degrees between two rows."""
    first, second = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # By the tangent: near 0 the cosine does not tell angles apart.
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(first, second)), first @ second)))


def amounts(densities: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much of each stain, ``(n, 2)``, explains the densities with the least squared error."""
    solved: NDArray[np.float64] = densities @ np.linalg.pinv(vectors)
    return solved


def positive_amounts(
    densities: NDArray[np.float64], vectors: NDArray[np.float64], sparsity: float = 0.0
) -> NDArray[np.float64]:
    """The same, but none below 0 and drawn towards it by ``sparsity``; vectors of length 1.

    Exact: where one amount would be negative it is 0, and the other explains alone.
    """
    alone = densities @ vectors.T - sparsity
    both = alone @ np.linalg.inv(vectors @ vectors.T)
    return np.where(both[:, ::-1] < 0, alone, both).clip(0)
