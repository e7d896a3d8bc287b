"""Runs on disk: where a training run keeps what it made, and reading it back."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bcos_vit.errors import WeightsError
from pathology.errors import ManifestError
from pathology.tasks.base import Task
from pathology.tasks.registry import DEFAULT_TASK, task_classes
from pathology.tasks.tile_classification import read_checkpoint
from pathology.tasks.weight_file import read_weight_file


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of one training run.

    ``config.yaml`` is the whole run; ``checkpoints/best.ckpt`` the weights to use, and
    ``checkpoints/best.safetensors`` the same for other programs; ``checkpoints/last.ckpt`` is the
    state to resume from, ``checkpoints/previous.ckpt`` the one before; ``finished`` exists once
    training ended.
    """

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def weights(self) -> Path:
        return self.checkpoints / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def previous(self) -> Path:
        return self.checkpoints / "previous.ckpt"

    @property
    def origin(self) -> Path:
        return self.folder / "made_from.json"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def finished(self) -> Path:
        return self.folder / "finished"

    @property
    def task(self) -> str:
        """What was trained, a key of ``TASKS``.

        Raises:
            ManifestError: the folder holds no run.
        """
        return str(self.settings().get("task", DEFAULT_TASK))

    def data_arguments(self) -> dict[str, object]:
        """The data module's arguments, as trained.

        Raises:
            ManifestError: the folder holds no run.
        """
        return dict(self.settings()["data"])

    def settings(self) -> dict[str, Any]:
        """What ``config.yaml`` says.

        Raises:
            ManifestError: the folder holds no run.
        """
        if not self.config.is_file():
            raise ManifestError(
                f"{self.folder}: not a run (no config.yaml); give --run a folder"
                " that `pathology train` wrote"
            )
        return dict(yaml.safe_load(self.config.read_text()))


def load_task(run: str | Path) -> tuple[Task, str]:
    """The trained task of a run folder or checkpoint file, in eval mode on the CPU.

    Args:
        run: folder written by ``pathology train``, or a ``.ckpt`` or ``.safetensors`` file of one.

    Returns:
        The task, and the SHA-256 of its checkpoint file (first 16 hex digits).

    Raises:
        ManifestError: there is no such run or checkpoint.
        WeightsError: the file is no checkpoint of a run, or does not fit.
    """
    path = Path(run)
    if path.is_dir():
        path = Run(path).best if Run(path).best.is_file() else Run(path).weights
    if not path.is_file():
        raise ManifestError(
            f"{path}: no checkpoint; give --run a folder that `pathology train` wrote"
        )
    checkpoint = read_trained(path)
    settings = dict(checkpoint["hyper_parameters"])
    # Its own weights follow; those it began with may be gone.
    if "init_from" in settings:
        settings["init_from"] = None
    if "model_args" in settings:
        settings["model_args"] = dict(settings["model_args"] or {}) | {"pretrained": False}
    try:
        task = task_classes(checkpoint.get("task", DEFAULT_TASK)).task(**settings)
        task.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, KeyError, TypeError) as error:
        # The first line of torch's message only says that something does not fit.
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise WeightsError(f"{path}: not a usable checkpoint: {reason}") from error
    assert isinstance(task, Task)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return task.eval(), digest


def read_trained(path: Path) -> dict[str, Any]:
    """What a file of trained weights holds: ``state_dict``, ``hyper_parameters``, its origin.

    Args:
        path: a ``.ckpt`` or ``.safetensors`` file of a run.

    Raises:
        WeightsError: the file cannot be read, or is of no run.
    """
    return read_weight_file(path) if path.suffix == ".safetensors" else read_checkpoint(path)
