"""A trained run as the verbs use it: task, checkpoint hash, device, and the tiles it knows."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from pathology.errors import ManifestError, StampMismatchError
from pathology.outputs import complete_file
from pathology.stain import StainFolder
from pathology.tasks.checkpoint import Run, load_task
from pathology.tasks.tile_classification import TileClassification
from pathology.tiling import TileSpec

ORIGIN_FILE = "made_from.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """A task ready to use, and what it was made from.

    Args:
        task: in eval mode, on its device.
        checkpoint: hash of its weights.
        size_px, mpp: of the tiles it was trained on, where known.
        stain: fingerprint of the target that these were normalised to, if they were.
        stains: the folder of stain profiles that its config names.
    """

    task: TileClassification
    checkpoint: str
    size_px: int | None
    mpp: float | None
    stain: str | None = None
    stains: str | None = None

    def check_stains(self, folder: str | Path | None) -> StainFolder | None:
        """The stain profiles in ``folder``, if the model needs any: tiles look as in training.

        Raises:
            ManifestError: none are given, or the folder holds no target.
            StampMismatchError: of another target than the model was trained with, or of any when it
                was trained on tiles as they are.
        """
        if self.stain is None:
            if folder is not None:
                raise StampMismatchError(
                    f"{folder}: the model was trained on tiles that were not normalised; leave"
                    " --stains out"
                )
            return None
        if folder is None:
            raise ManifestError(
                "the model was trained on normalised tiles of slides; give --stains, a folder that"
                " `pathology stain` wrote with the same target"
            )
        stains = StainFolder(folder)
        if stains.target.digest() != self.stain:
            raise StampMismatchError(
                f"{folder}: stains are normalised to {stains.target.name} by"
                f" {stains.target.method}, the model was trained with another target; run"
                " `pathology stain` with the target of its training"
            )
        return stains

    def check_tiles(self, spec: TileSpec, where: str) -> None:
        """Refuse tiles of another size or scale than those trained on.

        Raises:
            StampMismatchError: naming both.
        """
        if self.size_px not in (None, spec.size_px) or self.mpp not in (None, spec.mpp):
            wanted = f"{self.size_px} px" + (f" at {self.mpp} um/px" if self.mpp else "")
            raise StampMismatchError(
                f"{where}: tiles of {spec.size_px} px at {spec.mpp} um/px, the model was trained on"
                f" {wanted}; tile the slide again with those"
            )


def write_origin(
    run: Run, size_px: int | None, mpp: float | None, digest: str, stain: str | None = None
) -> None:
    """Note in a run's folder what tiles it is trained on, and to which stains they are normalised.

    Raises:
        StampMismatchError: the run was begun with other tables or first weights.
    """
    path = run.folder / ORIGIN_FILE
    if path.is_file():
        if json.loads(path.read_text())["digest"] != digest:
            raise StampMismatchError(
                f"{run.folder}: manifest, tile tables or the weights to start from have changed"
                " since this run began; choose another --out, or remove the folder"
            )
        return
    with complete_file(path) as draft:
        origin = {"size_px": size_px, "mpp": mpp, "digest": digest, "stain": stain}
        draft.write_text(json.dumps(origin))


def load_trained(run: Path, device: str = "auto") -> Trained:
    """A run folder's best model on ``device`` (``"auto"``: the GPU if there is one)."""
    task, digest = load_task(run)
    # TF32 rounds to three digits: scores and contributions would no longer add up.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        task.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}"
        ) from error
    folder = Run(run if run.is_dir() else run.parent.parent)
    path = folder.folder / ORIGIN_FILE
    known = json.loads(path.read_text()) if path.is_file() else {"size_px": None, "mpp": None}
    # Runs from before there was stain normalisation do not name it.
    stain = known.get("stain")
    stains = folder.data_arguments().get("stains") if stain else None
    return Trained(
        task, digest, known["size_px"], known["mpp"], stain, None if stains is None else str(stains)
    )
