"""What can be trained: tiles or slides, each a task and the data module that feeds it."""

import importlib
from typing import NamedTuple

import lightning


class Classes(NamedTuple):
    """The two classes of a kind of training."""

    task: type[lightning.LightningModule]
    data: type[lightning.LightningDataModule]


# Named, not imported: training tiles needs nothing of what slides need.
TASKS = {
    "tiles": (
        "pathology.tasks.tile_classification:TileClassification",
        "pathology.data.modules:TileDataModule",
    ),
    "slides": (
        "pathology.tasks.slide_prediction:SlidePrediction",
        "pathology.data.bag_module:BagDataModule",
    ),
}
DEFAULT_TASK = "tiles"  # of runs from before there was a choice, too


def task_classes(name: str) -> Classes:
    """Task and data module of this name.

    Raises:
        ValueError: there is no such task.
    """
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}; got {name!r}")
    found = []
    for place in TASKS[name]:
        module, _, cls = place.partition(":")
        found.append(getattr(importlib.import_module(module), cls))
    return Classes(*found)
