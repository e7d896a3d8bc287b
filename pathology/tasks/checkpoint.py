"""Runs on disk: where a training run keeps what it made, and reading it back."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml

from bcos_vit.errors import WeightsError
from pathology.errors import ManifestError
from pathology.tasks.tile_classification import TileClassification, read_checkpoint


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of one training run.

    ``config.yaml`` is the whole run; ``checkpoints/best.ckpt`` the weights to use,
    ``checkpoints/last.ckpt`` the state to resume from; ``finished`` exists once training ended.
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
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def finished(self) -> Path:
        return self.folder / "finished"

    def data_arguments(self) -> dict[str, object]:
        """The data module's arguments, as trained.

        Raises:
            ManifestError: the folder holds no run.
        """
        if not self.config.is_file():
            raise ManifestError(
                f"{self.folder}: not a run (no config.yaml); give --run a folder"
                " that `pathology train` wrote"
            )
        config = yaml.safe_load(self.config.read_text())
        return dict(config["data"])


def load_task(run: str | Path) -> tuple[TileClassification, str]:
    """The trained task of a run folder or checkpoint file, in eval mode on the CPU.

    Args:
        run: folder written by ``pathology train``, or a ``.ckpt`` file.

    Returns:
        The task, and the SHA-256 of its checkpoint file (first 16 hex digits).

    Raises:
        ManifestError: there is no such run or checkpoint.
        WeightsError: the file is no checkpoint of a tile classification, or does not fit.
    """
    path = Path(run)
    if path.is_dir():
        path = Run(path).best
    if not path.is_file():
        raise ManifestError(
            f"{path}: no checkpoint; give --run a folder that `pathology train` wrote"
        )
    checkpoint = read_checkpoint(path)
    try:
        # Its own weights follow; those it began with may be gone.
        hyper_parameters = dict(checkpoint["hyper_parameters"]) | {"init_from": None}
        arguments = dict(hyper_parameters.get("model_args") or {})
        hyper_parameters["model_args"] = arguments | {"pretrained": False}
        task = TileClassification(**hyper_parameters)
        task.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, KeyError, TypeError) as error:
        # The first line of torch's message only says that something does not fit.
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise WeightsError(f"{path}: not a usable checkpoint: {reason}") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return task.eval(), digest
