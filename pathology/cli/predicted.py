"""Predictions of a trained run for one split of some manifest, whatever the run was trained on."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric.utilities import move_data_to_device
from numpy.typing import NDArray
from tqdm import tqdm

from pathology.data.manifest import checksum
from pathology.data.modules import TileDataModule
from pathology.errors import ManifestError
from pathology.metrics import Predictions
from pathology.runs.trained import Trained
from pathology.tasks.checkpoint import Run
from pathology.tasks.registry import task_classes

if TYPE_CHECKING:
    from pathology.data.bag_module import BagDataModule

GROUP_COLUMNS = ("patient_id", "patient", "slide_id")
PLURAL = {"patient_id": "patients", "patient": "patients", "slide_id": "slides"}


@dataclass(frozen=True)
class Source:
    """A split of a manifest, as a run's data module reads it.

    Args:
        data: the run's data module on that manifest.
        split: train, val, test or all.
        digest: of the data.
        truth: one row per example.
        group_column: what the bootstrap draws as a whole; ``None`` for each example by itself.
        groups: ``(n,)`` its entries.
    """

    data: "TileDataModule | BagDataModule"
    split: str
    digest: str
    truth: pd.DataFrame
    group_column: str | None
    groups: NDArray[Any] | None

    @property
    def unit(self) -> str:
        """What an example is."""
        return "tiles" if isinstance(self.data, TileDataModule) else f"{self.data.bag}s"

    @property
    def group_name(self) -> str | None:
        """The groups in words."""
        return (
            None if self.group_column is None else PLURAL.get(self.group_column, self.group_column)
        )

    @property
    def made_from(self) -> dict[str, Any]:
        """What figures of this source are made from."""
        return {
            "manifest": self.data.manifest,
            "manifest_sha256": checksum(Path(self.data.manifest)),
            "digest": self.digest,
            "group_column": self.group_column,
        }

    def picture(self, row: int) -> NDArray[np.uint8] | None:
        """The tile of an example without its halo, ``(height, width, 3)``; none of bags."""
        if not isinstance(self.data, TileDataModule):
            return None
        image = np.asarray(self.data.dataset(self.split)[row]["image"])
        halo = self.data.dense_halo_px or 0
        image = image[:, halo : image.shape[1] - halo, halo : image.shape[2] - halo]
        return np.ascontiguousarray(np.moveaxis(image, 0, -1))


def open_source(
    run: Path,
    trained: Trained,
    split: str | None,
    *,
    group_column: str | None = None,
    batch_size: int = 64,
    **others: str | None,
) -> Source:
    """A split of the run's own manifest, or of another one of the same kind.

    Args:
        run: folder of the run.
        trained: what it holds.
        split: train, val, test or all; when omitted val, or all rows of a manifest that has no
            splits.
        group_column: what the bootstrap draws as a whole; patient_id, else slide_id when omitted.
        batch_size: tiles per pass through the model; bags come one by one.
        others: ``manifest`` and what belongs to it, instead of the run's own.

    Raises:
        ManifestError: the manifest cannot be used, or has no such column.
        ValueError: something of another manifest without that manifest.
        StampMismatchError: tiles or stains of another kind than the run was trained on.
    """
    module: Any = task_classes(Run(run).task).data
    known = inspect.signature(module).parameters
    arguments = Run(run).data_arguments()
    given = {name: value for name, value in others.items() if value is not None}
    if others.get("manifest") is not None:
        if wrong := [name for name in given if name not in known]:
            raise ValueError(f"--{wrong[0]} is not for a run of {Run(run).task}")
        # Where the run's own lie says nothing of another manifest's.
        arguments |= {name: value for name, value in others.items() if name in known}
        if "path_column" in known:
            arguments["path_column"] = None
    elif given:
        raise ValueError(f"--{next(iter(given))} is of another manifest; give --manifest, too")
    trained.check_stains(arguments.get("stains"))  # type: ignore[arg-type]
    if module is TileDataModule:
        arguments |= {"classes": trained.task.classes, "batch_size": batch_size}
    data = module(**arguments)
    split = split or ("val" if "split" in data.table() else "all")
    dataset = data.dataset(split)
    if isinstance(data, TileDataModule):
        trained.check_tiles(dataset, str(data.tiles or data.shards or data.manifest))
    else:
        trained.task.check_data(data)
    truth = data.truth(split).reset_index(drop=True)
    assert len(truth) == len(dataset)
    column, groups = _groups(truth, group_column, data.manifest)
    return Source(data, split, data.digest(), truth, column, groups)


def predict(run: Path, trained: Trained, source: Source) -> Predictions:
    """Run the model over a source.

    Raises:
        ManifestError: the model returns NaN or infinite logits.
    """
    task = trained.task
    logits = []
    with torch.inference_mode():
        for i, batch in enumerate(_batches(source)):
            found = task.predict_step(move_data_to_device(batch, task.device), i)
            logits.append(found.double().cpu().numpy())
    scores = np.concatenate(logits)
    if not np.isfinite(scores).all():
        raise ManifestError(f"{run}: the model returns NaN or infinite logits; train it again")
    outcome: Any = task.outcome
    is_sigmoid = getattr(task, "loss_name", None) == "bce"
    return Predictions(
        outcome,
        list(task.classes),
        scores,
        source.truth,
        source.groups,
        link="sigmoid" if is_sigmoid else "softmax",
    )


def _batches(source: Source) -> Iterator[Any]:
    loader = source.data.loader(source.split)
    yield from tqdm(loader, desc=f"predicting {source.split}", unit="batch", leave=False)


def _groups(
    truth: pd.DataFrame, wanted: str | None, manifest: str
) -> tuple[str | None, NDArray[Any] | None]:
    """The column that is drawn as a whole, and its entry for each example."""
    if wanted is not None and wanted not in truth:
        raise ManifestError(f"{manifest}: no column {wanted!r}; got {', '.join(truth.columns)}")
    column = wanted or next((c for c in GROUP_COLUMNS if c in truth), None)
    if column is None:
        return None, None
    cells = truth[column].fillna("").astype(str)
    named = [cell or name for cell, name in zip(cells, truth["name"].astype(str), strict=True)]
    return column, np.array(named, dtype=object)
