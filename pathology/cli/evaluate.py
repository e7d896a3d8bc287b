"""``pathology evaluate``: a trained model's metrics on a split, with intervals."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.cli.run_function import run_function
from pathology.errors import ManifestError, StampMismatchError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pathology.data.modules import TileDataset


def evaluate(
    run: Path,
    split: str = "val",
    manifest: str | None = None,
    root: str | None = None,
    tiles: str | None = None,
    shards: str | None = None,
    stains: str | None = None,
    group_column: str | None = None,
    out: Path | None = None,
    device: str = "auto",
    batch_size: int = 64,
) -> int:
    """Measure a trained model on one split: AUROC, balanced accuracy, F1 with 95 % intervals.

    Args:
        run: folder of a trained run.
        split: train, val or test.
        manifest: another manifest than the run's own, of the same classes.
        root: folder of that manifest's images; its own folder when omitted.
        tiles: folder of that manifest's tile tables, when it is one of slides.
        shards: folder of that manifest's packed tiles, instead of tiles.
        stains: folder of its slides' stain profiles, when the run was trained on normalised tiles.
        group_column: column of the manifest drawn as a whole by the bootstrap; patient_id, else
            slide_id, else each tile by itself when omitted. Rows without an entry stand alone.
        out: folder for metrics and predictions; RUN/evaluation when omitted.
        device: auto, cpu, cuda, ...
        batch_size: tiles per pass through the model.
    """
    import numpy as np
    import pandas as pd
    import torch
    from tqdm import tqdm

    from pathology.cli.trained import load_trained
    from pathology.data.modules import TileDataModule
    from pathology.outputs import complete_file, writable_folder
    from pathology.tasks.checkpoint import Run
    from pathology.tasks.intervals import measure

    trained = load_trained(run, device)
    task = trained.task
    arguments = Run(run).data_arguments()
    others = {"root": root, "tiles": tiles, "shards": shards, "stains": stains}
    if manifest is not None:
        arguments |= {"manifest": manifest, **others}
    elif given := [name for name, value in others.items() if value is not None]:
        raise ValueError(f"--{given[0]} is of another manifest; give --manifest, too")
    trained.check_stains(arguments.get("stains"))  # type: ignore[arg-type]
    data = TileDataModule(**arguments | {"classes": task.classes, "batch_size": batch_size})  # type: ignore[arg-type]
    dataset = data.dataset(split)
    trained.check_tiles(dataset, str(data.tiles or data.shards or data.manifest))
    table = data.table()
    table = table[table["split"] == split].reset_index(drop=True)
    column, groups = _groups(table, dataset, group_column, data.manifest)
    folder = writable_folder(out or run / "evaluation")
    made_from = {"manifest": data.manifest, "digest": data.digest(), "group_column": column}
    _check_same(folder / f"{split}.json", made_from)

    logits = []
    with torch.no_grad():
        loader = data.loader(split)
        for batch in tqdm(loader, desc=f"evaluating {split}", unit="batch", leave=False):
            logits.append(task(batch["image"].to(task.device)).double().cpu().numpy())
    scores = np.concatenate(logits)
    assert len(scores) == len(dataset.labels)
    if not np.isfinite(scores).all():
        raise ManifestError(f"{run}: the model returns NaN or infinite logits; train it again")
    estimates = measure(scores, dataset.labels, groups)

    predictions = pd.DataFrame(scores, columns=[f"logit_{name}" for name in task.classes])
    predictions.insert(0, "label", [task.classes[i] for i in dataset.labels])
    if groups is not None:
        predictions.insert(0, str(column), groups)
    with complete_file(folder / f"{split}.parquet") as draft:
        predictions.to_parquet(draft)
    record = {
        "split": split,
        "made_from": made_from,
        "tiles": len(scores),
        "groups": None if groups is None else len(np.unique(groups)),
        "checkpoint": trained.checkpoint,
        # JSON has no NaN; an interval that does not exist is null.
        "metrics": {
            name: {k: v if np.isfinite(v) else None for k, v in asdict(estimate).items()}
            for name, estimate in estimates.items()
        },
    }
    with complete_file(folder / f"{split}.json") as draft:
        draft.write_text(json.dumps(record, indent=2))
    drawn = f"{record['groups']} by {column}" if groups is not None else "tiles one by one"
    print(f"{run}: {len(scores)} tiles of split {split}, 95 % intervals over {drawn}")
    for name, estimate in estimates.items():
        print(f"  {name:<18} {estimate}")
    return 0


def _groups(
    table: "pd.DataFrame", dataset: "TileDataset", wanted: str | None, manifest: str
) -> "tuple[str | None, NDArray[Any] | None]":
    """The column that is drawn as a whole, and its entry for each tile."""
    from pathology.data.tiles import ImageTiles

    if wanted is not None and wanted not in table:
        raise ManifestError(f"{manifest}: no column {wanted!r}; got {', '.join(table.columns)}")
    column = wanted or next((c for c in ("patient_id", "slide_id") if c in table), None)
    if column is None:
        return None, None
    entries = [entry or f"row {i}" for i, entry in enumerate(table[column].astype(str))]
    named = table[column].to_numpy().copy()
    named[:] = entries
    return column, named if isinstance(dataset, ImageTiles) else named[dataset.owner]


def _check_same(path: Path, made_from: dict[str, Any]) -> None:
    """Refuse to replace figures of another manifest."""
    try:
        stored = json.loads(path.read_text())["made_from"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        return
    if stored["digest"] != made_from["digest"]:
        raise StampMismatchError(
            f"{path}: holds figures for {stored['manifest']}, as it was then; choose another --out"
        )


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(evaluate, arguments)
