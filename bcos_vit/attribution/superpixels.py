"""Superpixels: small regions of one colour, the parts that surrogates are fitted to.

Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", TPAMI 2012, as
scikit-image has it: k-means of colour (CIELAB) and place.
"""

import numpy as np
import torch
from torch import Tensor


def superpixels(image: Tensor, count: int, compactness: float = 10.0) -> Tensor:
    """Cut an image into about ``count`` connected regions.

    Args:
        image: ``(3, h, w)`` RGB in [0, 1].
        count: regions wanted; images without texture may have fewer, and some a few more.
        compactness: how much near counts against alike; higher is squarer.

    Returns:
        ``(h, w)`` int64 on the image's device, from 0 without gaps.
    """
    # Late: whoever uses no surrogate needs no scikit-image.
    from skimage.segmentation import slic

    pixels = image.detach().permute(1, 2, 0).cpu().double().numpy()
    labels = slic(pixels, n_segments=count, compactness=compactness, start_label=0)
    _, numbered = np.unique(labels, return_inverse=True)
    return torch.from_numpy(numbered.reshape(labels.shape).astype(np.int64)).to(image.device)
