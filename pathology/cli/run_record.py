"""What a run's folder says about how it was made: ``environment.json`` and ``metrics.json``."""

import json
import math
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from pathology.cli.run_logs import read_curves
from pathology.outputs import complete_file
from pathology.tasks.checkpoint import Run

# Whose version may change a number.
PACKAGES = (
    "bcos-pathology", "torch", "timm", "lightning", "monai", "torchmetrics", "kornia", "numpy",
    "pillow", "openslide-python", "openslide-bin", "tifffile", "imagecodecs", "simplejpeg",
)  # fmt: skip


def note_session(run: Run, arguments: Sequence[str], trainer: Trainer, step: int) -> None:
    """Add to ``environment.json`` what this start, or resumption, of a run is run with.

    Nothing in it names a computer or a person; paths are as they were given.

    Args:
        run: the run's folder.
        arguments: the command line behind ``pathology train``.
        trainer: knows devices and processes.
        step: optimiser steps done before.
    """
    path = run.folder / "environment.json"
    sessions = json.loads(path.read_text())["sessions"] if path.is_file() else []
    sessions.append(
        {
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "from_step": step,
            "command": ["pathology", "train", *arguments],
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "packages": {name: _version(name) for name in PACKAGES},
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
            "device": _device(trainer),
            "processes": trainer.world_size,
            "nodes": trainer.num_nodes,
            "threads": torch.get_num_threads(),
            "git": git_state(Path.cwd()),
        }
    )
    with complete_file(path) as draft:
        draft.write_text(json.dumps({"sessions": sessions}, indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the working copy that ``folder`` is in, and whether tracked files differ from it.

    ``None`` where there is no repository, no commit or no git.
    """

    def ask(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return done.stdout.strip()

    try:
        commit = ask("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def write_metrics(run: Run, monitor: str, trainer: Trainer) -> dict[str, Any]:
    """Write ``metrics.json``: what the best and the last epoch came to.

    Args:
        run: the run's folder; its curves are complete.
        monitor: the metric that tells the best epoch, the larger the better.
        trainer: when training is over.

    Returns:
        What was written.
    """
    epochs: dict[int, dict[str, float]] = {}
    best: dict[str, float] | None = None
    for row in read_curves(run.logs / "metrics.csv"):
        epoch, steps = int(row["epoch"]), int(row["step"]) + 1
        found = {name: float(value) for name, value in row.items() if value and _is_kept(name)}
        figures = epochs.setdefault(epoch, {"epoch": epoch, "steps": 0})
        figures |= found | {"steps": max(steps, int(figures["steps"]))}
        # As its checkpoint is chosen, of validations within an epoch, too.
        if monitor in found and (best is None or _rank(found, monitor) > _rank(best, monitor)):
            best = {"epoch": epoch, "steps": steps} | found
    if best is not None:
        of_epoch = epochs[int(best["epoch"])]
        best |= {name: value for name, value in of_epoch.items() if name == "train_loss"}
    record: dict[str, Any] = {
        "monitor": monitor,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "best": None if best is None else _finite(best),
        "last": _finite(epochs[max(epochs)]) if epochs else None,
    }
    with complete_file(run.folder / "metrics.json") as draft:
        draft.write_text(json.dumps(record, indent=2) + "\n")
    return record


def _is_kept(name: str) -> bool:
    return name.startswith("val_") or name == "train_loss"


def _rank(figures: dict[str, float], monitor: str) -> tuple[float, float]:
    """By score, and of equal scores by the lower loss."""
    return _score(figures[monitor]), _score(-figures.get("val_loss", math.inf))


def _score(value: float) -> float:
    """NaN is the worst, as for Lightning."""
    return -math.inf if math.isnan(value) else value


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
