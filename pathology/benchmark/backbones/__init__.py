"""Training, loading and measuring of the networks of studies."""

from pathology.benchmark.backbones.backbone import Backbone, make_backbones
from pathology.benchmark.backbones.training import command, train
from pathology.benchmark.backbones.values import backbone_values, load_classifier

__all__ = [
    "Backbone",
    "backbone_values",
    "command",
    "load_classifier",
    "make_backbones",
    "train",
]
