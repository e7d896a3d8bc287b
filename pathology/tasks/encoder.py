"""A trained task's model as an encoder of tiles: what its classifier sees."""

from typing import cast

from torch import nn

from pathology.data.encoders import Encoder, PooledFeatures
from pathology.errors import ManifestError
from pathology.tasks.encoding import TileEncoding


def task_encoder(task: nn.Module, weights: str) -> Encoder:
    """The model of a task without its classifier.

    Of a ViT these are the very numbers that the classifier takes. Of a network whose classifier
    comes before pooling (our CNNs) they are means over the places that it takes one by one.

    Args:
        task: has ``model``, ``encoding`` and ``hparams``, as tasks on tiles have; in eval mode.
        weights: hash of its checkpoint.

    Raises:
        ManifestError: a task that has no model of tiles, or whose model was trained to see tiles
            with a halo.
    """
    model, encoding = getattr(task, "model", None), getattr(task, "encoding", None)
    is_of_timm = isinstance(model, nn.Module) and hasattr(model, "forward_features")
    if not isinstance(encoding, TileEncoding) or not is_of_timm:
        raise ManifestError(
            f"a run of {type(task).__name__} has no model of tiles; give one trained on tiles"
        )
    if task.hparams.get("dense_halo_px"):  # type: ignore[union-attr, operator]
        raise ManifestError(
            "a dense run has no features of tiles by themselves: its model was trained to see them"
            " with their halo; give a run on plain tiles"
        )
    pooled = PooledFeatures(cast(nn.Module, model))
    name = f"{task.hparams['model']} of a run"  # type: ignore[index]
    words = encoding.name
    if encoding.stain_space:
        words = f"stain space: {encoding.stain_space}"
    elif encoding.name == "rgb":
        mean, std = (" ".join(f"{x:g}" for x in v.flatten()) for v in (encoding.mean, encoding.std))
        words = f"rgb, mean {mean}, std {std}"
    pooled.eval().requires_grad_(False)
    return Encoder(name, pooled, encoding, pooled.dims, weights, words)
