"""A trained run as the verbs use it: task, checkpoint hash, device, and the tiles it knows."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from pathology.errors import StampMismatchError
from pathology.outputs import complete_file
from pathology.tasks.checkpoint import Run, load_task
from pathology.tasks.tile_classification import TileClassification
from pathology.tiling import TileSpec

ORIGIN_FILE = "made_from.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """A task ready to use, and what it was made from."""

    task: TileClassification
    checkpoint: str
    size_px: int | None
    mpp: float | None

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


def write_origin(run: Run, size_px: int | None, mpp: float | None, digest: str) -> None:
    """Note in a run's folder what tiles it is trained on.

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
        draft.write_text(json.dumps({"size_px": size_px, "mpp": mpp, "digest": digest}))


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
    path = (run if run.is_dir() else run.parent.parent) / ORIGIN_FILE
    known = json.loads(path.read_text()) if path.is_file() else {"size_px": None, "mpp": None}
    return Trained(task, digest, known["size_px"], known["mpp"])
