"""Published weights as data, and loading them: download, check, convert, fit to the model."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """One published checkpoint.

    Args:
        model: our name of the architecture.
        tag: what tells it from other weights of the same architecture.
    """

    model: str
    tag: str
    model_args: dict[str, Any] = field(default_factory=dict)

    def data_config(self) -> dict[str, Any]:
        """Entries of timm's data config."""
        return {}


PUBLISHED: tuple[PublishedWeights, ...] = ()


def published(model: str, tag: Any = None) -> PublishedWeights:
    """The published weights of ``model`` under a tag."""
    raise NotImplementedError


def load_published(model: nn.Module, weights: PublishedWeights, cache_dir: str | None) -> None:
    """Give a model its published weights."""
    raise NotImplementedError
